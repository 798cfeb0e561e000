//! Properties of the guard for any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests, too

mod checks;

use checks::found;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Pieces of valid and invalid requests.
fn piece() -> impl Strategy<Value = &'static str> {
    select(
        &[
            "GET / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\n",
            "POST /x?y HTTP/1.0\r\n",
            "Host: a\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: 0\r\n",
            "content-length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "transfer-encoding: Chunked \r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            " chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "X: y\r\n",
            "X: y\n",
            "Upgrade: z\r\n",
            "\r\n",
            "\n",
            "\r",
            "5\r\n",
            "hello",
            "hello\r\n",
            "0\r\n",
            "0\r\n\r\n",
            "5;a=b\r\n",
            "0x5\r\n",
            "5 \r\n",
            ":",
            " ",
            "\t",
            "\0",
            "0",
            "a",
            "#",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na;b\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        ][..],
    )
}

/// Valid requests with a few bytes changed.
fn almost_good() -> impl Strategy<Value = Vec<u8>> {
    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
        "POST / HTTP/1.1\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na;b\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    ];
    const BYTES: &[u8] = b"\r\n \t:;,#\0\x0b+-05afx\x7f\x80HTc";
    let edit = (any::<Index>(), select(BYTES), 0..3_u8);
    (vec(select(GOOD), 1..4), vec(edit, 0..4)).prop_map(|(requests, edits)| {
        let mut bytes = requests.concat().into_bytes();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lenient_readers_agree_on_accepted_streams(pieces in vec(piece(), 0..12)) {
        checks::request_guard(pieces.concat().as_bytes());
    }

    #[test]
    fn lenient_readers_agree_on_accepted_mutations(bytes in almost_good()) {
        checks::request_guard(&bytes);
    }

    #[test]
    fn guard_result_does_not_depend_on_the_pieces(
        bytes in almost_good(),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        prop_assert_eq!(found(pieces), found([&bytes[..]]));
    }

    #[test]
    fn guard_accepts_any_bytes_without_panic(bytes in vec(any::<u8>(), 0..200)) {
        checks::request_guard(&bytes);
    }
}
