//! Defects found in parsers: ours, those of peers, and those of origins behind them. More of them are
//! tested by subject: framing in `heads`, chunks in `bodies`, frames in `http2` and `floods`.

use mesh_ingress_testkit::{Closed, Step};

use crate::heads::refused;
use crate::reply::soon;
use crate::world::{HOST, OK, SMUGGLED, World, answer, field_values, get, head, ok};

macro_rules! refused {
    ($($(#[$attr:meta])* $name:ident: $status:literal, $bytes:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused($status, $bytes).await; })*
    };
}

fn post(fields: &str) -> String {
    head("POST / HTTP/1.1", fields)
}

refused! {
    /// The same with a body for each reading of the framing.
    rfc9112_11_2_cl_te_is_refused:
        400, post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\nG";
    rfc9112_11_2_te_cl_is_refused:
        400, post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "12\r\nGPOST / HTTP/1.1\r\n\r\n\r\n0\r\n\r\n";
    rfc9112_11_2_te_te_is_refused:
        400, post("Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n") + "0\r\n\r\n";
    rfc9112_11_2_cl_cl_is_refused: 400, post("Content-Length: 8\r\nContent-Length: 7\r\n") + "12345\r\nG";
    /// hyper looks at the last coding of the last line only.
    hyper_gzip_before_chunked_in_a_line_of_its_own_is_refused:
        400, post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n");
    hyper_an_empty_line_before_chunked_is_refused:
        400, post("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n");
    hyper_a_comma_before_chunked_is_refused: 400, post("Transfer-Encoding: , chunked\r\n");
    hyper_a_comma_behind_chunked_is_refused: 400, post("Transfer-Encoding: chunked,\r\n");
    hyper_chunked_and_more_is_refused: 400, post("Transfer-Encoding: chunked x\r\n");
    hyper_chunked_in_a_comment_is_refused: 400, post("Transfer-Encoding: (chunked) chunked\r\n");
    /// A letter that is none of ASCII and looks like a `k` in lower case: KELVIN SIGN.
    hyper_chunked_that_is_not_ascii_is_refused: 400, post("Transfer-Encoding: chun\u{212a}ed\r\n");
    hyper_a_form_feed_behind_chunked_is_refused: 400, post("Transfer-Encoding: chunked\x0c\r\n");
    hyper_a_nul_behind_chunked_is_refused: 400, post("Transfer-Encoding: chunked\0\r\n");
    hyper_a_no_break_space_before_chunked_is_refused: 400, post("Transfer-Encoding: \u{a0}chunked\r\n");
    /// RUSTSEC-2021-0020: of two lines, one saw the first and another the last.
    rustsec_2021_0020_three_transfer_encodings_are_refused:
        400, post("Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n");
    /// RUSTSEC-2021-0078: numbers that `u64::from_str` accepts and the grammar does not.
    rustsec_2021_0078_a_plus_and_transfer_encoding_are_refused:
        400, post("Content-Length: +0\r\nTransfer-Encoding: chunked\r\n");
    rustsec_2021_0078_an_underscore_in_a_length_is_refused: 400, post("Content-Length: 1_0\r\n");
    rustsec_2021_0078_a_fraction_is_no_length: 400, post("Content-Length: 5.0\r\n");
    rustsec_2021_0078_an_exponent_is_no_length: 400, post("Content-Length: 1e1\r\n");
    rustsec_2021_0078_digits_of_another_script_are_no_length: 400, post("Content-Length: \u{665}\r\n");
    rustsec_2021_0078_a_quoted_length_is_refused: 400, post("Content-Length: \"5\"\r\n");
    rustsec_2021_0078_a_length_with_a_parameter_is_refused: 400, post("Content-Length: 5;x\r\n");
    /// HAProxy CVE-2021-40346: a name longer than its counter was the name before the overflow.
    cve_2021_40346_a_length_behind_a_name_of_270_bytes_is_refused:
        400, post(&format!("Content-Length0{}:\r\nContent-Length: 5\r\nContent-Length: 0\r\n", "a".repeat(255)));
    /// HAProxy CVE-2023-25725: an empty name ended the fields, and hid what framed the body.
    cve_2023_25725_an_empty_name_before_transfer_encoding_is_refused:
        400, post(":\r\nTransfer-Encoding: chunked\r\n");
    cve_2023_25725_an_empty_name_between_fields_is_refused:
        400, post("Content-Length: 0\r\n: x\r\nX: y\r\n");
    /// Apache CVE-2023-25690: a line end that a rewrite had decoded; here it would be raw.
    cve_2023_25690_a_line_end_in_a_target_is_refused:
        400, format!("GET /a\r\nX: y HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    /// Go CVE-2022-1705: `Transfer-Encoding` that one reader does not know and another does.
    cve_2022_1705_an_unknown_coding_beside_a_length_is_refused:
        400, post("Transfer-Encoding: \"chunked\"\r\nContent-Length: 5\r\n");
    /// Node.js CVE-2022-35256 and CVE-2022-32215: a value that goes on in a folded line.
    cve_2022_32215_a_folded_coding_after_another_is_refused:
        400, post("Transfer-Encoding: chunked\r\n , identity\r\n");
    cve_2022_35256_a_field_that_ends_in_a_bare_cr_is_refused:
        400, post("X: y\rTransfer-Encoding: chunked\r\n");
    /// Node.js CVE-2023-30589: a bare CR took the place of CRLF.
    cve_2023_30589_bare_crs_instead_of_line_ends_are_refused:
        400, format!("GET / HTTP/1.1\rHost: {HOST}\r\r");
    /// Netty CVE-2019-20444, Twisted CVE-2022-24801: a line without a colon joins another.
    cve_2019_20444_a_line_without_a_colon_behind_a_length_is_refused:
        400, post("Content-Length: 0\r\nevil\r\n");
    /// Squid CVE-2021-46784 and more: white space around what is not to have any.
    cve_2020_15810_white_space_before_the_colon_of_a_length_is_refused:
        400, post("Content-Length : 5\r\n");
    cve_2020_15811_a_split_transfer_encoding_is_refused: 400, post("Transfer-Encoding: chu\tnked\r\n");
    /// Werkzeug, Gunicorn CVE-2024-1135: an unknown coding was ignored.
    cve_2024_1135_an_unknown_coding_behind_chunked_is_refused:
        400, post("Transfer-Encoding: chunked,xyz\r\nContent-Length: 5\r\n");
    /// Pingora RUSTSEC-2026-0034: a request of HTTP/1.0 with a coding ended with its connection.
    rustsec_2026_0034_http10_with_identity_is_refused:
        400, head("POST / HTTP/1.0", "Transfer-Encoding: identity\r\n") + SMUGGLED;
    rustsec_2026_0034_http10_with_gzip_and_chunked_is_refused:
        400, head("POST / HTTP/1.0", "Transfer-Encoding: gzip, chunked\r\n") + SMUGGLED;
    rustsec_2026_0034_http10_with_both_is_refused:
        400, head("POST / HTTP/1.0", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + SMUGGLED;
    rfc9112_2_3_http_1_01_is_refused: 400, head("GET / HTTP/1.01", "");
    rfc9112_2_3_http_0_9_with_a_version_is_refused: 400, head("GET / HTTP/0.9", "");
    rfc9112_2_3_http_1_10_is_refused: 400, head("GET / HTTP/1.10", "");
    rfc9112_2_3_a_plus_in_a_version_is_refused: 400, head("GET / HTTP/+1.1", "");
    rfc9112_2_3_a_version_in_the_middle_is_refused: 400, head("GET / HTTP/1.1/", "");
    rfc9113_3_4_a_preface_that_is_not_whole_is_refused: 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\rx";
}

/// A chunked body that two parsers may read differently: it gets no end, and the bytes after it are dropped.
async fn cut(chunks: &str) {
    let world = World::start([vec![Step::ReadHead, Step::ReadToEnd], ok()]).await;
    let mut client = world
        .send(post("Transfer-Encoding: chunked\r\n") + "1\r\nx\r\n")
        .await;
    world.received(0, "x\r\n").await;
    client.send([chunks, SMUGGLED].concat()).await;
    let answers = String::from_utf8_lossy(&client.rest().await).into_owned();
    assert!(!answers.starts_with("HTTP/1.1 2"), "{answers}");
    assert!(answers.matches("HTTP/1.").count() <= 1, "{answers}");
    assert_ne!(
        soon(world.origin.wait_for_closed(0)).await,
        Closed::ByScript
    );
    let received = world.all_received();
    assert!(!received.ends_with("0\r\n\r\n"), "a clean end: {received}");
    world.first_connection_is_not_used_again().await;
    assert!(!world.all_received().contains("/smuggled"));
}

macro_rules! cut {
    ($($(#[$attr:meta])* $name:ident: $chunks:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { cut(&$chunks).await; })*
    };
}

cut! {
    /// Kestrel CVE-2025-55315 and "funky chunks": a parser that looks for CRLF finds another line end
    /// than one that looks for LF.
    cve_2025_55315_an_lf_in_a_chunk_extension_is_cut: "2;\nxx\r\n4f\r\n0\r\n\r\n";
    cve_2025_55315_a_cr_in_a_chunk_extension_is_cut: "2;\rxx\r\n4f\r\n0\r\n\r\n";
    cve_2025_55315_an_lf_before_the_end_of_an_extension_is_cut: "2;a\n\r\nxx\r\n0\r\n\r\n";
    cve_2025_55315_a_cr_before_the_end_of_an_extension_is_cut: "2;a\r\r\nxx\r\n0\r\n\r\n";
    /// Nor may a quoted string contain a line end.
    cve_2025_55315_a_line_end_in_a_quoted_extension_is_cut: "2;a=\"\n\"\r\nxx\r\n0\r\n\r\n";
    cve_2025_55315_a_bare_cr_in_a_quoted_extension_is_cut: "2;a=\"\r\"\r\nxx\r\n0\r\n\r\n";
    cve_2025_55315_an_escaped_lf_in_a_quoted_extension_is_cut: "2;a=\"\\\n\"\r\nxx\r\n0\r\n\r\n";
    /// Some parsers skip the two bytes after the data unread.
    funky_chunks_data_that_ends_in_two_other_bytes_is_cut: "5\r\nAAAAAXX0\r\n\r\n";
    funky_chunks_data_that_ends_in_lf_lf_is_cut: "5\r\nAAAAA\n\n0\r\n\r\n";
    funky_chunks_data_that_ends_in_cr_cr_is_cut: "5\r\nAAAAA\r\r0\r\n\r\n";
    funky_chunks_data_that_ends_in_lf_cr_is_cut: "5\r\nAAAAA\n\r0\r\n\r\n";
    funky_chunks_a_line_end_before_a_size_is_cut: "\r\n5\r\nAAAAA\r\n0\r\n\r\n";
    funky_chunks_a_bare_lf_behind_the_last_size_is_cut: "0\n\r\n";
    funky_chunks_a_bare_cr_behind_the_last_size_is_cut: "0\r\r\n\r\n";
    /// RUSTSEC-2021-0079: 2^64 and more was a small number.
    rustsec_2021_0079_a_size_of_2_to_the_64_is_cut: "10000000000000000\r\n\r\n0\r\n\r\n";
    rustsec_2021_0079_a_size_of_2_to_the_64_and_one_is_cut: "10000000000000001\r\nx\r\n0\r\n\r\n";
    rustsec_2021_0079_zeros_without_end_are_cut: format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(300));
    /// hyper before 0.14.10: all that `from_str_radix` takes.
    rustsec_2021_0079_a_size_with_an_underscore_is_cut: "1_0\r\n0123456789abcdef\r\n0\r\n\r\n";
    rustsec_2021_0079_a_size_that_is_not_ascii_is_cut: "\u{ff11}\r\nx\r\n0\r\n\r\n";
    rfc9112_7_1_a_tab_behind_a_size_is_cut: "1\t\r\nx\r\n0\r\n\r\n";
    rfc9112_7_1_a_nul_behind_a_size_is_cut: "1\0\r\nx\r\n0\r\n\r\n";
    rfc9112_7_1_a_vertical_tab_behind_a_size_is_cut: "1\x0b\r\nx\r\n0\r\n\r\n";
    rfc9112_7_1_a_size_behind_a_semicolon_is_cut: ";1\r\nx\r\n0\r\n\r\n";
    rfc9112_7_1_2_a_trailer_without_a_colon_is_cut: "0\r\nGET / HTTP/1.1\r\n\r\n";
    rfc9112_7_1_2_a_trailer_without_a_name_is_cut: "0\r\n: x\r\n\r\n";
    rfc9112_7_1_2_a_trailer_with_a_nul_is_cut: "0\r\nX: y\0\r\n\r\n";
    rfc9112_7_1_2_a_trailer_with_a_bare_cr_is_cut: "0\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n";
}

/// Unusual but unambiguous extensions are dropped.
async fn extension(extension: &str) {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("0\r\n\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let chunks = format!("2{extension}\r\nhi\r\n0{extension}\r\n\r\n");
    let reply = world
        .ask(post("Transfer-Encoding: chunked\r\n") + &chunks)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.head);
    let received = world.all_received();
    let (_, body) = received.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "2\r\nhi\r\n0\r\n\r\n");
}

macro_rules! extensions {
    ($($name:ident: $extension:literal;)*) => {
        $(#[tokio::test] async fn $name() { extension($extension).await; })*
    };
}

extensions! {
    rfc9112_7_1_1_a_quoted_extension_is_dropped: ";a=\"b;c\"";
    rfc9112_7_1_1_a_quotation_mark_without_its_pair_is_dropped: ";a=\"b";
    rfc9112_7_1_1_an_escaped_quotation_mark_is_dropped: ";a=\"b\\\"\"";
    rfc9112_7_1_1_an_empty_extension_is_dropped: ";";
    rfc9112_7_1_1_white_space_in_an_extension_is_dropped: ";a = b ; c";
}

/// The guard has read the head of a later request before hyper has answered the first.
#[tokio::test]
async fn pingora_2026_0033_a_bad_second_request_does_not_spoil_the_body_of_the_first() {
    let script = vec![Step::ReadHead, Step::ReadBody(5), Step::send(OK)];
    let world = World::start([script, ok()]).await;
    let bad = post("Transfer-Encoding: chunked, chunked\r\n");
    let bytes = [
        post("Content-Length: 5\r\n"),
        "hello".to_owned(),
        bad,
        SMUGGLED.to_owned(),
    ];
    let mut client = world.send(bytes.concat()).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 400);
    client.ends().await;
    assert!(world.origin.received(0).ends_with(b"hello"));
    assert!(!world.all_received().contains("/smuggled"));
}

/// pingora RUSTSEC-2025-0037: the unread rest of a body is not the next request.
async fn undrained(status: u16, line: &str, fields: &str) {
    let world = World::start([ok()]).await;
    let fields = format!("{fields}Content-Length: {}\r\n", SMUGGLED.len());
    let request = format!("{line}\r\n{fields}\r\n{SMUGGLED}");
    let mut client = world.send(request + &get("/next")).await;
    assert_eq!(client.reply().await.status, status);
    let rest = String::from_utf8_lossy(&client.rest_after_fin().await).into_owned();
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 200 "),
        "{rest}"
    );
    assert!(!world.all_received().contains("/smuggled"));
}

#[tokio::test]
async fn rustsec_2025_0037_the_body_of_a_405_is_no_request() {
    undrained(405, "TRACE / HTTP/1.1", "Host: shop.example.com\r\n").await;
}

#[tokio::test]
async fn rustsec_2025_0037_the_body_of_a_400_is_no_request() {
    undrained(400, "POST /../ HTTP/1.1", "Host: shop.example.com\r\n").await;
}

#[tokio::test]
async fn rustsec_2025_0037_the_body_of_a_404_is_no_request() {
    undrained(404, "POST / HTTP/1.1", "Host: evil.example\r\n").await;
}

#[tokio::test]
async fn rustsec_2025_0037_the_body_of_an_answered_options_is_no_request() {
    let fields = "Host: shop.example.com\r\nMax-Forwards: 0\r\n";
    undrained(204, "OPTIONS / HTTP/1.1", fields).await;
}

/// hyper CVE-2022-0022 and more: a response head that comes byte by byte is the same response.
#[tokio::test]
async fn hyper_a_response_in_pieces_is_a_response() {
    let pieces = "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok".as_bytes();
    let steps = pieces.iter().map(|byte| Step::send(vec![*byte]));
    let script = std::iter::once(Step::ReadHead).chain(steps).collect();
    let world = World::start([script]).await;
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert_eq!(field_values(&reply.head, "x-a"), ["b"]);
}

/// A reason phrase may be anything but a line end (RFC 9112 §4).
#[tokio::test]
async fn rfc9112_4_reason_phrase_is_ignored() {
    let odd = "HTTP/1.1 200 \u{e4}\t!\r\nContent-Length: 2\r\n\r\nok";
    let script = [
        answer("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
        answer(odd),
    ];
    let world = World::start([script.concat()]).await;
    for _ in 0..2 {
        assert_eq!(world.ask(get("/")).await.text(), "ok");
    }
}
