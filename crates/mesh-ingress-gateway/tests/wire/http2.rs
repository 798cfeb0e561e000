//! Requests over HTTP/2: a malformed one is refused before anything reaches the origin, and a valid
//! one arrives in HTTP/1.1 as one request.

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameClient, GET, HEADERS, Outcome, POST,
    PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, field_section, frame,
    headers, literal, with,
};
use crate::world::{HOST, OK, VHOST, World, answer, field_values, ok};

type Fields<'f> = [(&'f str, &'f str)];

/// The stream is refused: with its connection, alone, or with 400.
async fn refused(fields: &Fields<'_>) {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let outcome = client.ask(1, fields).await;
    let good = [
        Outcome::Reset(PROTOCOL_ERROR),
        Outcome::GoAway(PROTOCOL_ERROR),
        Outcome::Status(400),
    ];
    assert!(good.contains(&outcome), "{outcome:?}");
    world.nothing_has_reached_the_origin().await;
}

macro_rules! refused {
    ($($(#[$attr:meta])* $name:ident: $base:expr, $more:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            refused(&with($base, &$more)).await;
        })*
    };
}

/// The pseudo-fields without one, and with another at its place.
fn but<'f>(name: &str, value: Option<&'f str>) -> Vec<(&'static str, &'f str)> {
    let mut fields: Vec<(&'static str, &'f str)> = GET.to_vec();
    match value {
        Some(value) => fields.iter_mut().find(|field| field.0 == name).unwrap().1 = value,
        None => fields.retain(|field| field.0 != name),
    }
    fields
}

refused! {
    rfc9113_8_2_2_connection_is_refused: GET, [("connection", "keep-alive")];
    /// It would be stripped, and a field of the gateway with it.
    rfc9113_8_2_2_connection_that_names_a_field_is_refused: GET, [("connection", "x-forwarded-for")];
    rfc9113_8_2_2_keep_alive_is_refused: GET, [("keep-alive", "timeout=5")];
    rfc9113_8_2_2_proxy_connection_is_refused: GET, [("proxy-connection", "keep-alive")];
    cve_2021_21309_transfer_encoding_is_refused: POST, [("transfer-encoding", "chunked")];
    rfc9113_8_2_2_transfer_encoding_and_a_length_are_refused:
        POST, [("content-length", "0"), ("transfer-encoding", "chunked")];
    rfc9113_8_2_2_upgrade_is_refused: GET, [("upgrade", "websocket")];
    rfc9113_8_2_2_te_other_than_trailers_is_refused: GET, [("te", "gzip")];
    rfc9113_8_2_2_te_with_more_than_trailers_is_refused: GET, [("te", "trailers, gzip")];
    rfc9113_8_2_2_a_second_te_is_refused: GET, [("te", "trailers"), ("te", "gzip")];
    rfc9113_8_2_1_an_upper_case_name_is_refused: GET, [("X-Upper", "1")];
    rfc9113_8_2_1_transfer_encoding_in_upper_case_is_refused: POST, [("Transfer-Encoding", "chunked")];
    rfc9113_8_2_1_an_empty_name_is_refused: GET, [("", "1")];
    rfc9113_8_2_1_a_name_with_a_space_is_refused: GET, [("x y", "1")];
    rfc9113_8_2_1_a_name_with_a_colon_is_refused: GET, [("x:y", "1")];
    rfc9113_8_2_1_a_name_with_a_line_end_is_refused: GET, [("x\r\ntransfer-encoding", "chunked")];
    rfc9113_8_2_1_a_name_with_a_nul_is_refused: GET, [("x\0", "1")];
    rfc9113_8_2_1_a_value_with_a_line_end_is_refused: GET, [("x", "1\r\ntransfer-encoding: chunked")];
    rfc9113_8_2_1_a_value_with_a_bare_lf_is_refused: GET, [("x", "1\nhost: evil.example")];
    rfc9113_8_2_1_a_value_with_a_bare_cr_is_refused: GET, [("x", "1\rhost: evil.example")];
    rfc9113_8_2_1_a_value_with_a_nul_is_refused: GET, [("x", "1\0")];
    rfc9113_8_3_no_method_is_refused: &but(":method", None), [];
    rfc9113_8_3_1_no_scheme_is_refused: &but(":scheme", None), [];
    rfc9113_8_3_1_no_path_is_refused: &but(":path", None), [];
    rfc9113_8_3_1_an_empty_path_is_refused: &but(":path", Some("")), [];
    rfc9113_8_3_1_an_empty_method_is_refused: &but(":method", Some("")), [];
    rfc9113_8_3_1_two_methods_are_refused: GET, [(":method", "POST")];
    rfc9113_8_3_1_two_paths_are_refused: GET, [(":path", "/evil")];
    rfc9113_8_3_1_two_schemes_are_refused: GET, [(":scheme", "https")];
    rfc9113_8_3_1_two_authorities_are_refused: GET, [(":authority", "evil.example")];
    rfc9113_8_3_an_unknown_pseudo_field_is_refused: GET, [(":evil", "1")];
    rfc9113_8_3_a_status_in_a_request_is_refused: GET, [(":status", "200")];
    rfc9113_8_3_a_pseudo_field_behind_a_field_is_refused:
        &but(":path", None), [("x", "1"), (":path", "/")];
    rfc9113_8_3_1_a_path_without_its_slash_is_refused: &but(":path", Some("evil")), [];
    rfc9113_8_3_1_a_path_that_is_a_host_is_refused: &but(":path", Some(".evil.example/")), [];
    rfc9113_8_3_1_an_asterisk_is_no_path_of_a_get: &but(":path", Some("*")), [];
    rfc9113_8_3_1_a_path_with_a_space_is_refused: &but(":path", Some("/ HTTP/1.1")), [];
    rfc9113_8_3_1_a_path_with_a_request_in_it_is_refused:
        &but(":path", Some("/ HTTP/1.1\r\nhost: evil.example\r\n\r\nGET /smuggled")), [];
    rfc9113_8_3_1_a_method_with_a_request_in_it_is_refused:
        &but(":method", Some("GET /smuggled HTTP/1.1\r\n\r\nGET")), [];
    rfc9113_8_3_1_a_scheme_with_a_request_in_it_is_refused:
        &but(":scheme", Some("http://evil.example/smuggled HTTP/1.1\r\n\r\n")), [];
    rfc9113_8_3_1_a_scheme_that_is_not_of_http_is_refused: &but(":scheme", Some("ftp")), [];
    rfc9113_8_3_1_an_authority_with_user_information_is_refused:
        &but(":authority", Some("user@shop.example.com")), [];
    rfc9113_8_3_1_an_authority_that_names_no_host_is_refused: &but(":authority", Some(":80")), [];
    rfc9113_8_3_1_an_empty_authority_is_refused: &but(":authority", Some("")), [];
    rfc9113_8_3_1_an_authority_with_a_space_is_refused:
        &but(":authority", Some("shop.example.com evil.example")), [];
    rfc9113_8_3_1_an_authority_with_a_line_end_is_refused:
        &but(":authority", Some("shop.example.com\r\nx: y")), [];
    rfc9113_8_3_1_an_authority_with_a_path_is_refused:
        &but(":authority", Some("shop.example.com/evil")), [];
    rfc9113_8_3_1_neither_authority_nor_host_is_refused: &but(":authority", None), [];
    rfc9113_8_3_1_a_host_that_differs_from_the_authority_is_refused: GET, [("host", "evil.example")];
    rfc9113_8_3_1_two_hosts_are_refused: &but(":authority", None), [("host", HOST), ("host", "evil.example")];
    rfc9113_8_3_1_the_host_twice_is_refused: GET, [("host", HOST), ("host", HOST)];
    rfc9113_8_3_1_a_bad_host_is_refused: &but(":authority", None), [("host", "a b")];
    rfc9113_8_1_1_a_length_without_a_body_is_refused: POST, [("content-length", "5")];
    /// Before h2 0.4.20, hyper's HTTP/1.1 client sent both, and chunks.
    rustsec_h2_0_4_20_two_differing_lengths_are_refused:
        POST, [("content-length", "0"), ("content-length", "5")];
    rfc9110_8_6_the_same_length_twice_is_refused_in_http2:
        POST, [("content-length", "0"), ("content-length", "0")];
    rfc9110_8_6_a_list_of_lengths_is_refused_in_http2: POST, [("content-length", "0, 0")];
    rfc9110_8_6_an_empty_length_is_refused_in_http2: POST, [("content-length", "")];
    rustsec_2021_0078_a_length_with_a_plus_is_refused_in_http2: POST, [("content-length", "+0")];
    /// RFC 8441 is offered, but only for WebSocket.
    rfc8441_4_a_protocol_of_another_method_is_refused: GET, [(":protocol", "websocket")];
}

/// Bytes after a valid beginning that end the connection or the stream; nothing reaches the origin.
async fn broken(bytes: impl AsRef<[u8]>) {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(bytes).await;
    let outcome = client.outcome(1).await;
    assert!(!matches!(outcome, Outcome::Status(_)), "{outcome:?}");
    world.nothing_has_reached_the_origin().await;
}

macro_rules! broken {
    ($($(#[$attr:meta])* $name:ident: $bytes:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { broken($bytes).await; })*
    };
}

broken! {
    rfc9113_6_1_data_on_stream_0_ends_the_connection: frame(DATA, 0, 0, "evil");
    rfc9113_5_1_data_of_an_idle_stream_ends_the_connection: frame(DATA, 0, 1, "evil");
    rfc9113_5_1_1_a_stream_with_an_even_number_ends_the_connection: headers(2, END_STREAM, GET);
    rfc9113_5_1_1_data_of_a_stream_with_an_even_number_ends_the_connection:
        [headers(5, 0, GET), frame(DATA, 0, 2, "evil")].concat();
    rfc9113_5_1_1_a_reset_of_a_stream_with_an_even_number_ends_the_connection:
        [headers(5, 0, GET), frame(RST_STREAM, 0, 2, [0; 4])].concat();
    rfc9113_6_2_headers_on_stream_0_end_the_connection: headers(0, END_STREAM, GET);
    rfc9113_6_4_a_reset_of_an_idle_stream_ends_the_connection: frame(RST_STREAM, 0, 1, [0; 4]);
    rfc9113_6_4_a_reset_of_the_wrong_size_ends_the_connection: frame(RST_STREAM, 0, 1, [0; 3]);
    rfc9113_6_5_settings_of_a_stream_end_the_connection: frame(SETTINGS, 0, 1, []);
    rfc9113_6_5_settings_of_the_wrong_size_end_the_connection: frame(SETTINGS, 0, 0, [0; 5]);
    rfc9113_6_5_2_a_window_of_32_bits_ends_the_connection:
        frame(SETTINGS, 0, 0, [0, 4, 0xff, 0xff, 0xff, 0xff]);
    rfc9113_8_4_a_push_of_a_client_ends_the_connection:
        frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &field_section(GET)].concat());
    rfc9113_6_9_a_window_of_the_connection_without_increment_ends_it:
        frame(WINDOW_UPDATE, 0, 0, [0; 4]);
    rfc9113_6_9_1_a_window_that_overflows_ends_the_connection:
        frame(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]);
    rfc9113_4_2_a_frame_over_the_size_ends_the_connection: frame(HEADERS, END_HEADERS, 1, [0; 20_000]);
    rfc9113_6_10_continuation_of_nothing_ends_the_connection:
        frame(CONTINUATION, END_HEADERS, 1, field_section(GET));
    rfc9113_6_10_another_frame_between_headers_and_continuation_ends_the_connection: [
        frame(HEADERS, END_STREAM, 1, field_section(GET)),
        frame(SETTINGS, 0, 0, []),
        frame(CONTINUATION, END_HEADERS, 1, []),
    ].concat();
    rfc7541_2_3_3_an_index_beyond_the_table_ends_the_connection:
        frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff, 0x80, 0x01]);
    rfc7541_5_1_a_number_without_end_ends_the_connection:
        frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff; 30]);
    rfc7541_4_2_a_table_larger_than_announced_ends_the_connection:
        frame(HEADERS, END_HEADERS | END_STREAM, 1, [&[0x3f, 0xff, 0xff, 0x7f][..], &field_section(GET)].concat());
    rfc7541_5_2_a_text_longer_than_the_section_ends_the_connection:
        frame(HEADERS, END_HEADERS | END_STREAM, 1, [0, 0x7f, 0xff, 0x01, b'x']);
    rfc7541_5_2_a_bad_huffman_code_ends_the_connection:
        frame(HEADERS, END_HEADERS | END_STREAM, 1, [0, 0x84, 0xff, 0xff, 0xff, 0xff]);
}

/// Refusing one stream leaves the others of the connection as they are.
#[tokio::test]
async fn rfc9113_5_4_2_a_refused_stream_is_refused_alone() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let bad = with(GET, &[("te", "gzip")]);
    assert!(matches!(
        client.ask(1, &bad).await,
        Outcome::Reset(_) | Outcome::Status(400)
    ));
    assert_eq!(client.ask(3, GET).await, Outcome::Status(200));
}

/// The head that the origin gets of a request with these fields.
async fn sent(fields: &Fields<'_>) -> String {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    assert_eq!(client.ask(1, fields).await, Outcome::Status(200));
    world.head_at_origin(0).await
}

macro_rules! served {
    ($($(#[$attr:meta])* $name:ident: $base:expr, $more:expr => $($field:literal: $told:expr),*;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            let head = sent(&with($base, &$more)).await;
            assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
            let none: [&str; 0] = [];
            assert_eq!(field_values(&head, "transfer-encoding"), none, "{head}");
            assert_eq!(field_values(&head, "host"), [VHOST], "{head}");
            $(let told_: &[&str] = &$told; assert_eq!(field_values(&head, $field), told_, "{head}");)*
        })*
    };
}

served! {
    rfc9113_8_3_1_the_authority_is_the_public_host: GET, [] => "x-forwarded-host": [HOST];
    rfc9113_8_3_1_host_will_do_without_an_authority:
        &but(":authority", None), [("host", HOST)] => "x-forwarded-host": [HOST];
    rfc9113_8_3_1_host_equal_to_the_authority_is_accepted:
        GET, [("host", HOST)] => "x-forwarded-host": [HOST];
    /// HTTP/2 may send each cookie in a line of its own; HTTP/1.1 has one line.
    rfc9113_8_2_3_cookie_crumbs_are_joined:
        GET, [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]
        => "cookie": ["a=1; b=2; c=3; d=4"], "x": ["y"];
    rfc9113_8_2_2_te_trailers_is_sent_for_this_hop:
        GET, [("te", "trailers")] => "te": ["trailers"], "connection": ["te"];
    rfc9113_8_2_2_te_trailers_is_not_added: GET, [] => "te": [], "connection": [];
    rfc9110_5_3_repeated_fields_stay_repeated_from_http2:
        GET, [("x-a", "1"), ("x-b", "2"), ("x-a", "3, 4")] => "x-a": ["1", "3, 4"];
    cgi_look_alikes_from_http2_are_removed:
        GET, [("x_forwarded_for", "1.2.3.4"), ("content_length", "5")]
        => "x_forwarded_for": [], "content_length": [];
    envoy_fields_from_http2_are_removed: GET, [("x-envoy-retry-on", "5xx")] => "x-envoy-retry-on": [];
    rfc9110_9_3_1_a_get_without_body_from_http2_stays_without: GET, [] => "content-length": [];
}

#[tokio::test]
async fn rfc9110_7_7_the_path_of_http2_is_kept() {
    let path = "/a%2Fb//c;d?e=%20+f&&g?h";
    let head = sent(&but(":path", Some(path))).await;
    assert!(
        head.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
        "{head}"
    );
}

/// A field section may come in one frame per byte.
#[tokio::test]
async fn rfc9113_6_10_a_section_in_pieces_is_one() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let fields = field_section(GET);
    let (first, rest) = fields.split_at(5);
    client.send(frame(HEADERS, END_STREAM, 1, first)).await;
    client.send(frame(CONTINUATION, 0, 1, [])).await;
    client.send(frame(CONTINUATION, END_HEADERS, 1, rest)).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
}

/// A client that has no table, and one that has: the field means the same.
#[tokio::test]
async fn rfc7541_6_2_1_indexed_fields_are_decoded_right() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let first = [field_section(GET), literal(0x40, "x-indexed", "1")].concat();
    let second = [field_section(GET), vec![0xbe]].concat();
    for (stream, fields) in [(1, first), (3, second)] {
        client
            .send(frame(HEADERS, END_HEADERS | END_STREAM, stream, fields))
            .await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(200));
    }
    assert_eq!(world.all_received().matches("x-indexed: 1\r\n").count(), 2);
}

macro_rules! statuses {
    ($($(#[$attr:meta])* $name:ident: $fields:expr, $status:literal;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            let world = World::start([ok()]).await;
            let mut client = FrameClient::connect(&world).await;
            assert_eq!(client.ask(1, &$fields).await, Outcome::Status($status));
            world.nothing_has_reached_the_origin().await;
        })*
    };
}

statuses! {
    rfc9113_8_5_connect_is_405: [(":method", "CONNECT"), (":authority", "127.0.0.1:80")], 405;
    rfc9110_9_3_8_trace_over_http2_is_405: but(":method", Some("TRACE")), 405;
    rfc3986_5_2_4_dot_segments_over_http2_are_refused: but(":path", Some("/a/../b")), 400;
    rfc9110_7_4_host_without_a_route_is_404: but(":authority", Some("evil.example")), 404;
}

/// Without `:protocol` it is an ordinary CONNECT, which must not have a path (RFC 9113 §8.5).
#[tokio::test]
async fn rfc8441_4_extended_connect_without_protocol_is_refused() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let outcome = client.ask(1, &but(":method", Some("CONNECT"))).await;
    assert!(!matches!(outcome, Outcome::Status(200..300)), "{outcome:?}");
    world.nothing_has_reached_the_origin().await;
}

#[tokio::test]
async fn rfc8441_4_unknown_protocol_opens_no_tunnel() {
    let world = World::start([answer(OK), ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let connect = but(":method", Some("CONNECT"));
    let fields = with(&connect, &[(":protocol", "connect-udp")]);
    client.send(headers(1, 0, &fields)).await;
    let outcome = client.outcome(1).await;
    assert!(!matches!(outcome, Outcome::Status(200..300)), "{outcome:?}");
    world.nothing_has_reached_the_origin().await;
}
