//! The guard over the bytes of HTTP/1 clients: heads, and the framing of bodies.

use std::error::Error;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use mesh_ingress::headers::guard::RequestGuard;

type BoxError = Box<dyn Error + Send + Sync>;

const SMALL: &str = "GET /1k HTTP/1.1\r\nHost: shop.example.com\r\nAccept: */*\r\n\r\n";
const BROWSER: &str = "GET /cart?id=7 HTTP/1.1\r\nHost: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n\
    Referer: https://shop.example.com/\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n\r\n";

fn post(framing: &str, body: &str) -> String {
    format!("POST /cart HTTP/1.1\r\nHost: shop.example.com\r\n{framing}\r\n\r\n{body}")
}

fn main() -> Result<(), BoxError> {
    let body = "x".repeat(16 * 1024);
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let cases = [
        ("small", SMALL.to_owned()),
        ("browser", BROWSER.to_owned()),
        ("post_16_kib", post("Content-Length: 16384", &body)),
        (
            "post_16_chunks_of_1_kib",
            post(
                "Transfer-Encoding: chunked",
                &(chunk.repeat(16) + "0\r\n\r\n"),
            ),
        ),
    ];
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("guard");
    for (name, bytes) in &cases {
        let bytes = bytes.as_bytes();
        let mut guard = RequestGuard::new();
        if guard.feed(bytes)? != bytes.len() {
            return Err(format!("{name} is not read to its end").into());
        }
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        // One guard a connection: request after request.
        group.bench_function(*name, |bencher| {
            bencher.iter(|| guard.feed(black_box(bytes)));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
