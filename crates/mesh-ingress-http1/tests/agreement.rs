//! The guard and the parser find the same requests in any bytes that the guard lets pass.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests, too

use std::path::Path;

use bytes::BytesMut;
use http::HeaderMap;
use mesh_ingress_headers::guard::RequestGuard;
use mesh_ingress_http1::{Decoder, Limits, Malformed, request};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    bytes: 64 * 1024,
    fields: 100,
};

/// The ends of the requests that the guard finds; `None` if it refuses something.
fn ends_by_guard(bytes: &[u8]) -> Option<Vec<usize>> {
    let mut guard = RequestGuard::new();
    let mut ends = Vec::new();
    let mut amid = false;
    for (at, byte) in bytes.iter().enumerate() {
        guard.stayed();
        guard.feed(&[*byte]).ok()?;
        let between = guard.is_between_requests() || guard.is_undecided();
        if amid && between {
            ends.push(at + 1);
        }
        amid = !between;
    }
    Some(ends)
}

/// The ends of the requests that the parser finds.
fn ends_by_parser(bytes: &[u8]) -> Result<Vec<usize>, Malformed> {
    let mut buf = BytesMut::from(bytes);
    let mut ends = Vec::new();
    while let Some(head) = request::parse(&mut buf, LIMITS, &mut HeaderMap::new())? {
        let mut body: Decoder = head.body;
        while body.next(&mut buf, LIMITS)?.is_some() {}
        if !body.is_complete() {
            break;
        }
        ends.push(bytes.len() - buf.len());
    }
    Ok(ends)
}

fn agree(bytes: &[u8]) {
    let Some(by_guard) = ends_by_guard(bytes) else {
        return;
    };
    // The parser may refuse more: invalid targets, too many fields.
    if let Ok(by_parser) = ends_by_parser(bytes) {
        assert_eq!(by_guard, by_parser, "{}", bytes.escape_ascii());
    }
}

#[test]
fn on_the_corpus_of_the_fuzzers() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/request_guard");
    // They are not part of the published crate.
    let Ok(corpus) = corpus.read_dir() else {
        return;
    };
    for input in corpus {
        agree(&std::fs::read(input.unwrap().path()).unwrap());
    }
}

/// Parts of requests, mostly good ones.
fn part() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.1\r\n",
        "PUT /c HTTP/1.0\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
        "Host: h\r\n",
        "Content-Length: 5\r\n",
        "content-length:\t0 \r\n",
        "Transfer-Encoding: chunked\r\n",
        "transfer-encoding:Chunked\r\n",
        "Upgrade: websocket\r\n",
        "X: \t y\r\n",
        "x:\r\n",
        "\r\n",
        "\r\n",
        "\r\n",
        "hello",
        "5\r\nhello\r\n",
        "05;a=b\r\nhello\r\n",
        "A \t;x\r\n0123456789\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "0;end\r\nx-t: 1\r\n\r\n",
        "\n",
        " ",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn on_requests_of_parts(parts in prop::collection::vec(part(), 1..16)) {
        agree(parts.concat().as_bytes());
    }

    #[test]
    fn on_whole_requests(
        requests in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\na: b\r\n\r\n",
            "\r\nGET /x HTTP/1.0\r\nUpgrade: y\r\n\r\n",
        ]), 1..5),
        cut in 0_usize..400,
    ) {
        let bytes = requests.concat();
        let bytes = &bytes.as_bytes()[..cut.min(bytes.len())];
        let by_guard = ends_by_guard(bytes);
        prop_assert!(by_guard.is_some());
        prop_assert_eq!(by_guard, ends_by_parser(bytes).ok());
    }
}
