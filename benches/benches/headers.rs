//! The header rules of a request and of a response, each alone and all of them in a row.

use std::error::Error;
use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use mesh_ingress::Downstream;
use mesh_ingress::headers::response::ResponseHygiene;
use mesh_ingress::headers::verdict::VerdictRules;
use mesh_ingress::headers::{
    Client, EdgeHygiene, ForwardedPolicy, RequestHost, framing, hop_by_hop,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// The fields that a load generator sends.
const SMALL: &[(&str, &str)] = &[("host", "shop.example.com"), ("accept", "*/*")];
/// The fields that a browser sends.
const BROWSER: &[(&str, &str)] = &[
    ("host", "shop.example.com"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://shop.example.com/"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark",
    ),
    ("connection", "keep-alive"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
];
/// The fields of a sidecar's response.
const RESPONSE: &[(&str, &str)] = &[
    ("server", "istio-envoy"),
    ("x-envoy-upstream-service-time", "3"),
    ("x-envoy-attempt-count", "1"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "1024"),
    ("cache-control", "no-store"),
    ("date", "Tue, 02 Jun 2026 10:00:00 GMT"),
];

fn section(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    // With room for what is added.
    let mut headers = HeaderMap::with_capacity(32);
    for (name, value) in fields {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

/// Times `work` on a copy of a section; the copy is not timed.
fn bench<R>(
    criterion: &mut Criterion,
    name: &str,
    headers: &HeaderMap,
    mut work: impl FnMut(&mut HeaderMap) -> R,
) {
    criterion.bench_function(name, |bencher| {
        bencher.iter_batched_ref(
            || headers.clone(),
            |headers| work(black_box(headers)),
            BatchSize::SmallInput,
        );
    });
}

fn requests(criterion: &mut Criterion) -> Result<(), BoxError> {
    let (hygiene, forwarded) = (EdgeHygiene::default(), ForwardedPolicy::default());
    let client = Client::new(&Downstream::new("203.0.113.7:51000".parse()?).listener_port(443));
    let (uri, version) = (Uri::from_static("/cart?id=7"), Version::HTTP_11);
    for (kind, fields) in [("small", SMALL), ("browser", BROWSER)] {
        let headers = section(fields);
        let host = RequestHost::of(&uri, &headers, version)?;
        let mut bench = |name: &str, work: &mut dyn FnMut(&mut HeaderMap) -> bool| {
            bench(criterion, &format!("headers/{name}/{kind}"), &headers, work);
        };
        bench("framing", &mut |headers| {
            framing::check_request(&Method::GET, &uri, version, headers).is_ok()
        });
        bench("host", &mut |headers| {
            RequestHost::of(&uri, headers, version).is_ok()
        });
        bench("hop_by_hop", &mut |headers| {
            hop_by_hop::strip(headers).te_trailers
        });
        bench("hygiene", &mut |headers| {
            hygiene.apply(headers, false).is_ok()
        });
        bench("forwarded", &mut |headers| {
            forwarded.apply(headers, &client, &host);
            true
        });
        bench("all", &mut |headers| {
            let framed = framing::check_request(&Method::GET, &uri, version, headers).is_ok();
            let Ok(host) = RequestHost::of(&uri, headers, version) else {
                return false;
            };
            black_box(hop_by_hop::strip(headers));
            let clean = hygiene.apply(headers, false).is_ok();
            forwarded.apply(headers, &client, &host);
            framed && clean
        });
    }
    let mut nominated = section(BROWSER);
    let options = HeaderValue::from_static("keep-alive, x-forwarded-for, x-nothing");
    nominated.insert(CONNECTION, options);
    bench(
        criterion,
        "headers/hop_by_hop/nominated",
        &nominated,
        hop_by_hop::strip,
    );
    Ok(())
}

fn responses(criterion: &mut Criterion) {
    let headers = section(RESPONSE);
    let (hygiene, verdict) = (ResponseHygiene::default(), VerdictRules::default());
    bench(criterion, "headers/verdict/response", &headers, |headers| {
        verdict.judge(headers)
    });
    bench(criterion, "headers/hygiene/response", &headers, |headers| {
        hygiene.apply(StatusCode::OK, headers)
    });
}

fn main() -> Result<(), BoxError> {
    let mut criterion = Criterion::default().configure_from_args();
    requests(&mut criterion)?;
    responses(&mut criterion);
    criterion.final_summary();
    Ok(())
}
