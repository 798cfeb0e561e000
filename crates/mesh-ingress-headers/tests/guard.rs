//! The guard on whole connections, as bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

mod checks;

use checks::{Found, found};
use mesh_ingress_headers::RequestRule;
use mesh_ingress_headers::guard::{Part, RequestGuard};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Feeds the bytes in one piece, and as the checks of the fuzz target do.
fn passes(bytes: &str) {
    checks::request_guard(bytes.as_bytes());
    let expected = Found {
        good: bytes.len(),
        refused: None,
        undecided: false,
    };
    assert_eq!(found([bytes.as_bytes()]), expected, "{bytes:?}");
}

/// The guard refuses the byte after `good`, which is a prefix of `bytes`.
#[track_caller]
fn refused(bytes: &str, good: &str, rule: RequestRule, part: Part) {
    assert!(bytes.starts_with(good));
    checks::request_guard(bytes.as_bytes());
    let found = found([bytes.as_bytes()]);
    let because = found.refused.unwrap_or_else(|| panic!("{bytes:?} passes"));
    assert_eq!((because.rule(), because.part()), (rule, part), "{bytes:?}");
    assert_eq!(&bytes[..found.good], good);
}

/// A head with a field that is refused after `good`.
#[track_caller]
fn field(field: &str, good: &str, rule: RequestRule) {
    let begin = "POST / HTTP/1.1\r\nHost: a\r\n";
    let bytes = format!("{begin}{field}\r\n\r\n{GET}");
    refused(&bytes, &format!("{begin}{good}"), rule, Part::Head);
}

/// A chunked body that is refused after `good`.
#[track_caller]
fn chunks(body: &str, good: &str, rule: RequestRule) {
    let begin = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{begin}{body}{GET}");
    refused(&bytes, &format!("{begin}{good}"), rule, Part::Content);
}

#[test]
fn requests_of_common_clients_pass() {
    for bytes in [
        "",
        GET,
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://a/?b=c&d=\"{}|\\^`%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e4} HTTP/1.1\r\nX: \u{e4}\ty \r\n\r\n",
        "M!#$%&'*+-.^_`|~9z / HTTP/1.1\r\n!#$%&'*+-.^_`|~9z:\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:\t5 \t\r\n\r\nhello",
        "POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nhello",
        "POST / HTTP/1.1\r\nTRANSFER-ENCODING:Chunked \r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00\r\nX: y\r\nContent-Length: 7\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b;\tc\"\r\nhello\r\nA  ;\r\n0123456789\r\n0;x\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        "GET / HTTP/1.1\r\nContent-Lengthy: x\r\nTransfer-Encodin: y\r\nUpgrades: z\r\n\r\n",
    ] {
        passes(bytes);
        passes(&format!("{GET}{bytes}"));
    }
}

#[test]
fn every_prefix_of_an_accepted_stream_is_accepted() {
    let bytes = format!(
        "{GET}\r\nPOST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n{GET}"
    );
    let mut ends = Vec::new();
    for length in 0..bytes.len() {
        passes(&bytes[..length]);
        let mut guard = RequestGuard::new();
        guard.feed(&bytes.as_bytes()[..length]).unwrap();
        if guard.is_between_requests() {
            ends.push(length);
        }
    }
    let first = GET.len();
    assert_eq!(ends, [0, first, first + 1, first + 2, bytes.len() - first]);
}

#[test]
fn rfc9112_2_2_lines_end_in_crlf() {
    use RequestRule::{FieldValue, LineEnd};
    for (bytes, good, rule) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1", LineEnd),
        (
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r",
            LineEnd,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a",
            LineEnd,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            LineEnd,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\rX",
            "GET / HTTP/1.1\r\nHost: a\r\n\r",
            LineEnd,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\rX: y\r\n",
            "GET / HTTP/1.1\r\nHost: a\r",
            LineEnd,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r",
            LineEnd,
        ),
        ("\nGET / HTTP/1.1\r\n\r\n", "", LineEnd),
        ("\r\rGET / HTTP/1.1\r\n\r\n", "\r", LineEnd),
        (
            "GET / HTTP/1.1\r\nHost: a\0\r\n",
            "GET / HTTP/1.1\r\nHost: a",
            FieldValue,
        ),
    ] {
        refused(bytes, good, rule, Part::Head);
    }
}

#[test]
fn rfc9112_2_2_one_empty_line_before_a_request_is_skipped() {
    refused(
        &format!("\r\n\r\n{GET}"),
        "\r\n",
        RequestRule::RequestLine,
        Part::Head,
    );
    let good = format!("{GET}\r\n");
    refused(
        &format!("{good}\r\n{GET}"),
        &good,
        RequestRule::RequestLine,
        Part::Head,
    );
}

#[test]
fn rfc9112_3_request_line_has_three_parts() {
    use RequestRule::{Fragment, RequestLine, Version};
    for (bytes, good, rule) in [
        (" GET / HTTP/1.1\r\n", "", RequestLine),
        ("\tGET / HTTP/1.1\r\n", "", RequestLine),
        ("GET\t/ HTTP/1.1\r\n", "GET", RequestLine),
        ("GET  / HTTP/1.1\r\n", "GET ", RequestLine),
        ("GET /  HTTP/1.1\r\n", "GET / ", Version),
        ("GET / a HTTP/1.1\r\n", "GET / ", Version),
        ("GET /\ta HTTP/1.1\r\n", "GET /", RequestLine),
        ("GET /\r\n", "GET /", RequestLine),
        ("GET\r\n", "GET", RequestLine),
        ("GET / HTTP/1.1 \r\n", "GET / HTTP/1.1", RequestLine),
        ("GET / http/1.1\r\n", "GET / ", Version),
        ("GET / HTTP/1.2\r\n", "GET / HTTP/1.", Version),
        ("GET / HTTP/1.10\r\n", "GET / HTTP/1.1", RequestLine),
        ("GET / HTTP/01.1\r\n", "GET / HTTP/", Version),
        ("GET / HTTP/2.0\r\n", "GET / HTTP/", Version),
        ("GET / \r\n", "GET / ", Version),
        ("G(T / HTTP/1.1\r\n", "G", RequestLine),
        ("GET /\x01 HTTP/1.1\r\n", "GET /", RequestLine),
        ("GET /\x7f HTTP/1.1\r\n", "GET /", RequestLine),
        ("GET /\0 HTTP/1.1\r\n", "GET /", RequestLine),
        ("GET /a#b HTTP/1.1\r\n", "GET /a", Fragment),
        ("GET # HTTP/1.1\r\n", "GET ", Fragment),
        ("\x16\x03\x01\x02\x00", "", RequestLine),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/", Version),
    ] {
        refused(bytes, good, rule, Part::Head);
    }
}

#[test]
fn rfc9112_5_1_field_name_is_a_token_with_a_colon() {
    for (line, good) in [
        ("X : y", "X"),
        ("X\t: y", "X"),
        (": y", ""),
        ("Content-Length : 5", "Content-Length"),
        ("Transfer-Encoding\x0b: chunked", "Transfer-Encoding"),
        ("Transfer-Encoding\0: chunked", "Transfer-Encoding"),
        ("\u{a0}X: y", ""),
        ("X", "X"),
        ("(X): y", ""),
        ("X\x7f: y", "X"),
    ] {
        field(line, good, RequestRule::FieldName);
    }
}

#[test]
fn rfc9112_5_2_folded_lines_are_refused() {
    for (line, good) in [
        ("X: y\r\n z", "X: y\r\n"),
        ("X: y\r\n\tz", "X: y\r\n"),
        ("X: y\r\n \r\nTransfer-Encoding: chunked", "X: y\r\n"),
        ("Transfer-Encoding:\r\n chunked", "Transfer-Encoding:"),
        ("Content-Length:\r\n 5", "Content-Length:"),
    ] {
        let rule = match good {
            "Transfer-Encoding:" => RequestRule::TransferEncoding,
            "Content-Length:" => RequestRule::ContentLength,
            _ => RequestRule::LineFolding,
        };
        field(line, good, rule);
    }
    let first = "GET / HTTP/1.1\r\n";
    let bytes = format!("{first} Host: a\r\n\r\n");
    refused(&bytes, first, RequestRule::LineFolding, Part::Head);
}

#[test]
fn rfc9110_5_5_values_have_no_control_characters() {
    for byte in (0..=0x1f_u8).chain([0x7f]) {
        let byte = char::from(byte);
        if !['\t', '\r', '\n'].contains(&byte) {
            field(&format!("X: y{byte}z"), "X: y", RequestRule::FieldValue);
        }
    }
}

#[test]
fn rfc9112_6_1_transfer_encoding_is_exactly_chunked_and_once() {
    use RequestRule::TransferEncoding;
    for (line, good) in [
        ("Transfer-Encoding: gzip, chunked", "Transfer-Encoding: "),
        (
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked",
        ),
        (
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked",
        ),
        ("Transfer-Encoding: identity", "Transfer-Encoding: "),
        ("Transfer-Encoding: xchunked", "Transfer-Encoding: "),
        ("Transfer-Encoding: chunke", "Transfer-Encoding: chunke"),
        ("Transfer-Encoding: chunkedd", "Transfer-Encoding: chunked"),
        (
            "Transfer-Encoding: chunked d",
            "Transfer-Encoding: chunked ",
        ),
        ("Transfer-Encoding: chun ked", "Transfer-Encoding: chun"),
        (
            "Transfer-Encoding: chunked;a=b",
            "Transfer-Encoding: chunked",
        ),
        ("Transfer-Encoding: ,chunked", "Transfer-Encoding: "),
        ("Transfer-Encoding: \"chunked\"", "Transfer-Encoding: "),
        ("Transfer-Encoding: \x0bchunked", "Transfer-Encoding: "),
        ("Transfer-Encoding:", "Transfer-Encoding:"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding",
        ),
    ] {
        field(line, good, TransferEncoding);
    }
    let good = "POST / HTTP/1.0\r\nTransfer-Encoding";
    let bytes = format!("{good}: chunked\r\n\r\n0\r\n\r\n");
    let rule = RequestRule::TransferEncodingInHttp10;
    refused(&bytes, good, rule, Part::Head);
}

#[test]
fn rfc9112_6_1_transfer_encoding_and_content_length_are_refused_in_any_order() {
    let both = RequestRule::TransferEncodingAndContentLength;
    for (line, good) in [
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            "Content-Length: 0\r\nTransfer-Encoding",
        ),
        (
            "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 5",
            "transfer-encoding: chunked\r\nX: y\r\ncontent-length",
        ),
    ] {
        field(line, good, both);
    }
}

#[test]
fn rfc9110_8_6_content_length_is_one_plain_number() {
    for (value, good) in [
        ("", ""),
        (" ", " "),
        ("+5", ""),
        ("-0", ""),
        ("05", "0"),
        ("00", "0"),
        ("0x5", "0"),
        ("5,5", "5"),
        ("5, 5", "5"),
        ("5 5", "5 "),
        ("5;", "5"),
        ("5.0", "5"),
        ("1e3", "1"),
        ("\"5\"", ""),
        ("a", ""),
        ("18446744073709551616", "1844674407370955161"),
        ("99999999999999999999", "9999999999999999999"),
        ("\u{0665}", ""),
        ("5\x0b", "5"),
    ] {
        let line = format!("Content-Length:{value}");
        let good = format!("Content-Length:{good}");
        field(&line, &good, RequestRule::ContentLength);
    }
    let twice = RequestRule::ContentLengthRepeated;
    let good = "Content-Length: 5\r\nX: y\r\nContent-Length";
    field(&format!("{good}: 5"), good, twice);
    field(&format!("{good}: 6"), good, twice);
}

#[test]
fn rfc9112_7_1_chunk_size_is_a_plain_hexadecimal_number() {
    for (body, good) in [
        ("\r\n0\r\n\r\n", ""),
        ("g\r\n", ""),
        ("5g\r\nhello\r\n", "5"),
        ("+5\r\nhello\r\n", ""),
        ("-5\r\n", ""),
        (" 5\r\nhello\r\n", ""),
        ("0x5\r\nhello\r\n", "0"),
        ("5 \r\nhello\r\n", "5 "),
        ("5\t5\r\nhello\r\n", "5\t"),
        ("5,5\r\nhello\r\n", "5"),
        ("5\x0b\r\nhello\r\n", "5"),
        ("00000000000000005\r\nhello\r\n", "0000000000000000"),
        ("10000000000000005\r\nhello\r\n", "1000000000000000"),
        ("\0", ""),
        ("\u{0665}\r\n", ""),
    ] {
        chunks(body, good, RequestRule::ChunkSize);
    }
}

#[test]
fn rfc9112_7_1_data_and_trailers_end_where_they_should() {
    use RequestRule::{ChunkEnd, ChunkSize, FieldName, FieldValue, LineEnd, LineFolding};
    for (body, good, rule) in [
        ("5\nhello\r\n0\r\n\r\n", "5", LineEnd),
        ("5\rhello\r\n0\r\n\r\n", "5\r", LineEnd),
        ("5\r\nhello\n0\r\n\r\n", "5\r\nhello", ChunkEnd),
        ("5\r\nhello!\r\n0\r\n\r\n", "5\r\nhello", ChunkEnd),
        ("5\r\nhello\r0\r\n\r\n", "5\r\nhello\r", LineEnd),
        ("5\r\nhello0\r\n\r\n", "5\r\nhello", ChunkEnd),
        ("5\r\nhello\r\n\r\n", "5\r\nhello\r\n", ChunkSize),
        ("0\r\n\n", "0\r\n", LineEnd),
        ("0\n\n", "0", LineEnd),
        ("0\n\r\n", "0", LineEnd),
        ("0\r\n\r", "0\r\n\r", LineEnd),
        ("0\r\nX: y\n\r\n", "0\r\nX: y", LineEnd),
        ("0\r\nX: y\n\n", "0\r\nX: y", LineEnd),
        ("0\r\nX: y\r\n\n", "0\r\nX: y\r\n", LineEnd),
        ("0\r\nX: y\r\n z\r\n\r\n", "0\r\nX: y\r\n", LineFolding),
        ("0\r\nX : y\r\n\r\n", "0\r\nX", FieldName),
        ("0\r\nX: \0\r\n\r\n", "0\r\nX: ", FieldValue),
        // A request line in place of the empty line is no field.
        ("0\r\n", "0\r\nGET", FieldName),
    ] {
        chunks(body, good, rule);
    }
}

#[test]
fn rfc9112_7_1_1_chunk_extensions_are_short_and_plain() {
    use RequestRule::{ChunkExtension, ChunkSize};
    for (body, good, rule) in [
        ("5;a\n\r\nhello\r\n", "5;a", ChunkExtension),
        ("5;\n5\r\nhello\r\n", "5;", ChunkExtension),
        ("5;a\0\r\nhello\r\n", "5;a", ChunkExtension),
        ("5 \n\r\nhello\r\n", "5 ", ChunkSize),
        ("5 a\r\nhello\r\n", "5 ", ChunkSize),
    ] {
        chunks(body, good, rule);
    }
    let longest = format!("5;{}", "a".repeat(255));
    passes(&format!(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{longest}\r\nhello\r\n0\r\n\r\n"
    ));
    chunks(
        &format!("{longest}a\r\nhello\r\n"),
        &longest,
        ChunkExtension,
    );
    let longest = format!("5{}", " ".repeat(256));
    chunks(&format!("{longest} ;a\r\n"), &longest, ChunkExtension);
}

#[test]
fn rfc9110_7_8_bytes_after_an_upgrade_request_are_undecided() {
    for request in [
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nupgrade:\r\n\r\n",
        "POST / HTTP/1.1\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT a:443 HTTP/1.0\r\n\r\n",
    ] {
        let begin = format!("{GET}{request}");
        let bytes = format!("{begin}{GET}");
        checks::request_guard(bytes.as_bytes());
        let mut undecided = RequestGuard::new();
        assert_eq!(
            undecided.feed(bytes.as_bytes()),
            Ok(begin.len()),
            "{request}"
        );
        assert!(undecided.is_undecided() && !undecided.is_between_requests());
        assert_eq!(undecided.feed(b"x"), Ok(0));

        let mut switched = undecided.clone();
        switched.switched().unwrap();
        assert!(!switched.is_undecided());
        assert_eq!(switched.feed(b"\0\n\r: anything"), Ok(13));

        let mut stayed = undecided;
        stayed.stayed();
        assert!(stayed.is_between_requests());
        assert_eq!(stayed.feed(GET.as_bytes()), Ok(GET.len()));
        let smuggled = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
        assert!(stayed.feed(smuggled).is_err());
    }
    for request in [
        "GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\n\r\n",
        "connect a:443 HTTP/1.1\r\n\r\n",
        "CONNECTS a:443 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nUpgrade: x\r\n\r\n",
    ] {
        passes(&format!("{request}{GET}"));
    }
}

#[test]
fn rfc9110_7_8_protocol_is_not_switched_inside_a_request() {
    for begin in [
        "",
        "GET",
        GET,
        "POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n1",
    ] {
        let mut guard = RequestGuard::new();
        guard.feed(begin.as_bytes()).unwrap();
        let refused = guard.switched().unwrap_err();
        assert_eq!(refused.rule(), RequestRule::SwitchedTooEarly);
        assert_eq!(guard.feed(b"2"), Err(refused));
        guard.stayed();
        assert_eq!(guard.feed(b"2"), Err(refused));
        assert_eq!(guard.switched(), Err(refused));
    }
}

#[test]
fn guard_allocates_nothing() {
    let bytes = format!(
        "{GET}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n\n"
    );
    let info = allocation_counter::measure(|| {
        for size in [1, 7, 1000] {
            let mut guard = RequestGuard::new();
            for piece in bytes.as_bytes().chunks(size) {
                let _ = std::hint::black_box(guard.feed(piece));
            }
        }
    });
    assert_eq!(info.count_total, 0);
}
