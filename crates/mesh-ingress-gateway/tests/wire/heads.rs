//! Heads that are refused: 400 or a more precise status, the connection is closed, and neither the
//! request nor the bytes after it reach the origin.

use crate::world::{HOST, SMUGGLED, World, get, head, ok};

/// Sends bytes and then a valid request, and expects a single response, a refusal.
pub(crate) async fn refused(status: u16, bytes: impl AsRef<[u8]>) {
    let world = World::start([ok()]).await;
    let mut client = world
        .send([bytes.as_ref(), SMUGGLED.as_bytes()].concat())
        .await;
    let reply = client.reply().await;
    assert_eq!(reply.status, status, "{}", reply.head);
    assert!(
        reply.closes() || reply.head.starts_with("HTTP/1.0"),
        "{}",
        reply.head
    );
    client.ends().await;
    world.nothing_has_reached_the_origin().await;
}

/// A field beside a good `Host`, in a POST.
async fn field(status: u16, field: &str) {
    refused(status, head("POST / HTTP/1.1", &format!("{field}\r\n"))).await;
}

macro_rules! fields {
    ($($(#[$attr:meta])* $name:ident: $status:literal, $field:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { field($status, $field).await; })*
    };
}

macro_rules! heads {
    ($($(#[$attr:meta])* $name:ident: $status:literal, $bytes:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused($status, $bytes).await; })*
    };
}

fields! {
    rfc9112_6_1_content_length_then_transfer_encoding_is_refused:
        400, "Content-Length: 5\r\nTransfer-Encoding: chunked";
    rfc9112_6_1_transfer_encoding_then_content_length_is_refused:
        400, "Transfer-Encoding: chunked\r\nContent-Length: 5";
    rfc9112_6_1_transfer_encoding_and_a_content_length_of_zero_are_refused:
        400, "Content-Length: 0\r\nTransfer-Encoding: chunked";
    rfc9112_6_1_gzip_chunked_is_refused: 400, "Transfer-Encoding: gzip, chunked";
    rfc9112_7_1_chunked_twice_is_refused: 400, "Transfer-Encoding: chunked, chunked";
    rfc9112_6_3_chunked_that_is_not_last_is_refused: 400, "Transfer-Encoding: chunked, gzip";
    rfc9112_6_1_identity_is_refused: 400, "Transfer-Encoding: identity";
    rfc9112_6_1_an_unknown_coding_is_refused: 400, "Transfer-Encoding: xchunked";
    rfc9112_6_1_an_empty_coding_is_refused: 400, "Transfer-Encoding:";
    rfc9112_6_1_a_quoted_coding_is_refused: 400, "Transfer-Encoding: \"chunked\"";
    rfc9112_6_1_a_coding_with_parameters_is_refused: 400, "Transfer-Encoding: chunked;q=1";
    rustsec_2021_0020_two_transfer_encodings_are_refused:
        400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity";
    rustsec_2021_0020_two_transfer_encodings_with_chunked_last_are_refused:
        400, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked";
    rustsec_2021_0020_the_same_transfer_encoding_twice_is_refused:
        400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
    rfc9112_6_1_a_vertical_tab_before_chunked_is_refused: 400, "Transfer-Encoding: \x0bchunked";
    rfc9112_5_2_a_folded_transfer_encoding_is_refused: 400, "Transfer-Encoding:\r\n chunked";
    rfc9112_5_1_white_space_before_the_colon_of_transfer_encoding_is_refused:
        400, "Transfer-Encoding : chunked";
    rfc9112_5_1_a_tab_before_the_colon_of_content_length_is_refused: 400, "Content-Length\t: 5";
    rfc9110_8_6_several_content_lengths_are_refused: 400, "Content-Length: 0\r\nContent-Length: 5";
    rfc9110_8_6_the_same_content_length_twice_is_refused:
        400, "Content-Length: 0\r\nContent-Length: 0";
    rfc9110_8_6_a_list_of_content_lengths_is_refused: 400, "Content-Length: 5, 5";
    rustsec_2021_0078_a_content_length_with_a_plus_is_refused: 400, "Content-Length: +5";
    rfc9110_8_6_a_negative_content_length_is_refused: 400, "Content-Length: -1";
    rfc9110_8_6_a_hexadecimal_content_length_is_refused: 400, "Content-Length: 0x5";
    rfc9110_8_6_a_content_length_with_a_leading_zero_is_refused: 400, "Content-Length: 05";
    cve_2023_40225_an_empty_content_length_is_refused: 400, "Content-Length:";
    cve_2023_40225_an_empty_content_length_before_another_is_refused:
        400, "Content-Length: \r\nContent-Length: 5";
    rfc9110_8_6_a_content_length_of_65_bits_is_refused: 400, "Content-Length: 18446744073709551616";
    rfc9110_8_6_a_content_length_of_many_digits_is_refused:
        400, "Content-Length: 100000000000000000000000";
    rfc9110_8_6_two_numbers_are_no_content_length: 400, "Content-Length: 5 5";
    rfc9112_5_1_white_space_before_a_colon_is_refused: 400, "X : y";
    rfc9112_5_2_a_folded_line_is_refused: 400, "X: y\r\n z";
    rfc9112_5_2_a_folded_empty_line_is_refused: 400, "X: y\r\n \r\nTransfer-Encoding: chunked";
    cve_2023_25725_an_empty_field_name_is_refused: 400, ": y\r\nContent-Length: 5";
    rfc9112_5_a_line_without_a_colon_is_refused: 400, "Transfer-Encoding chunked";
    rfc9110_5_1_a_field_name_that_is_no_token_is_refused: 400, "X(y): z";
    rfc9110_5_5_a_nul_in_a_value_is_refused: 400, "X: y\0z";
    rfc9110_5_5_a_bell_in_a_value_is_refused: 400, "X: y\x07z";
    rfc9110_5_5_delete_in_a_value_is_refused: 400, "X: y\x7fz";
    rfc9112_2_2_a_bare_cr_in_a_value_is_refused: 400, "X: y\rContent-Length: 5";
    rfc9112_2_2_a_bare_lf_at_the_end_of_a_field_is_refused: 400, "X: y\nContent-Length: 5";
}

heads! {
    rfc9112_6_1_transfer_encoding_in_http10_is_refused:
        400, head("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n";
    pingora_2026_0034_transfer_encoding_in_http10_with_keep_alive_is_refused: 400,
        head("POST / HTTP/1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n")
            + "0\r\n\r\n";
    rfc9112_2_2_a_bare_lf_after_the_request_line_is_refused:
        400, format!("GET / HTTP/1.1\nHost: {HOST}\r\n\r\n");
    rfc9112_2_2_bare_lfs_throughout_are_refused: 400, format!("GET / HTTP/1.1\nHost: {HOST}\n\n");
    rfc9112_2_2_a_head_that_ends_in_a_bare_lf_is_refused:
        400, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\n");
    rfc9112_2_2_a_bare_cr_after_the_request_line_is_refused:
        400, format!("GET / HTTP/1.1\rHost: {HOST}\r\n\r\n");
    rfc9112_2_2_white_space_before_the_first_field_is_refused:
        400, format!("GET / HTTP/1.1\r\n Host: {HOST}\r\n\r\n");
    rfc9112_2_2_empty_lines_without_end_are_refused: 400, "\r\n\r\n\r\n\r\n";
    rfc9112_3_white_space_before_the_method_is_refused: 400, format!(" {}", get("/"));
    rfc9112_3_two_spaces_in_a_request_line_are_refused: 400, head("GET  / HTTP/1.1", "");
    rfc9112_3_a_tab_in_a_request_line_is_refused: 400, head("GET\t/ HTTP/1.1", "");
    rfc9112_3_a_space_in_a_target_is_refused: 400, head("GET /a b HTTP/1.1", "");
    rfc9112_3_white_space_after_the_version_is_refused: 400, head("GET / HTTP/1.1 ", "");
    rfc9112_3_a_method_that_is_no_token_is_refused: 400, head("G(T / HTTP/1.1", "");
    rfc9112_2_3_http_0_9_is_refused: 400, "GET /\r\n\r\n";
    rfc9112_2_3_http_1_2_is_refused: 400, head("GET / HTTP/1.2", "");
    rfc9112_2_3_http_2_0_in_a_request_line_is_refused: 400, head("GET / HTTP/2.0", "");
    rfc9112_2_3_a_version_in_lower_case_is_refused: 400, head("GET / http/1.1", "");
    rfc9112_3_a_nul_in_a_target_is_refused: 400, head("GET /a\0b HTTP/1.1", "");
    rfc9112_3_a_control_byte_in_a_target_is_refused: 400, head("GET /a\x01b HTTP/1.1", "");
    cve_2023_45539_a_fragment_in_a_target_is_refused: 400, head("GET /a#b HTTP/1.1", "");
    cve_2023_45539_a_fragment_in_an_absolute_target_is_refused:
        400, head(&format!("GET http://{HOST}/#b HTTP/1.1"), "");
    a_tls_handshake_is_refused: 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    rfc9110_15_5_15_a_target_of_20_000_bytes_is_414:
        414, get(&format!("/{}", "a".repeat(20_000)));
    rfc6585_5_more_than_100_fields_are_431: 431, head("GET / HTTP/1.1", &"X: y\r\n".repeat(100));
    rfc6585_5_a_field_of_70_000_bytes_is_431:
        431, head("GET / HTTP/1.1", &format!("X: {}\r\n", "y".repeat(70_000)));
}

#[tokio::test]
async fn rfc9112_2_2_empty_line_before_a_request_is_skipped() {
    let world = World::start([ok()]).await;
    let mut client = world
        .send(format!("\r\n{}\r\n{}", get("/1"), get("/2")))
        .await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 200);
}

/// hyper parses a head that comes in pieces only when it is complete.
#[tokio::test]
async fn rfc9112_6_1_refusal_does_not_depend_on_segmentation() {
    let bytes = head(
        "POST / HTTP/1.1",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    );
    for cuts in [
        &[20][..],
        &[bytes.len() - 30],
        &[1, 40, 60, bytes.len() - 20],
    ] {
        let world = World::start([ok()]).await;
        let mut client = world.client().await;
        let mut sent = 0;
        for cut in cuts {
            client.send(&bytes[sent..*cut]).await;
            sent = *cut;
            // The gateway has but one thread: when this is answered, that has been read.
            assert_eq!(world.ask("GET / HTTP/1.1\r\n\r\n").await.status, 400);
        }
        client.send(format!("{}{SMUGGLED}", &bytes[sent..])).await;
        assert_eq!(client.reply().await.status, 400);
        client.ends().await;
        world.nothing_has_reached_the_origin().await;
    }
}

/// A refusal does not discard the responses to earlier requests.
#[tokio::test]
async fn rfc9112_9_3_2_requests_before_a_refused_one_are_answered() {
    let world = World::start([ok()]).await;
    let bad = head("POST / HTTP/1.1", "Content-Length: 5, 5\r\n");
    let mut client = world
        .send([&get("/1"), &get("/2"), &bad, SMUGGLED].concat())
        .await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 400);
    client.ends().await;
    let received = world.all_received();
    assert!(received.contains("/2 HTTP/1.1"), "{received}");
    assert!(!received.contains("/smuggled"), "{received}");
}
