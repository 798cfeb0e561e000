//! Clients and origins that flood the gateway with what costs them little. Each is cut off or slowed
//! down, and others are served meanwhile.

use mesh_ingress_testkit::{Closed, Gate, Step};

use crate::frames::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FrameClient, GET,
    HEADERS, Outcome, PING, POST, PRIORITY, PROTOCOL_ERROR, SETTINGS, WINDOW_UPDATE, field_section,
    frame, headers, literal, rst_stream, with,
};
use crate::heads::refused;
use crate::reply::soon;
use crate::world::{HOST, OK, World, answer, get, head, ok};

/// Another client gets an answer, and the origin has seen nothing of the flood.
async fn others_are_served(world: &World) {
    world.nothing_has_reached_the_origin().await;
}

/// For a host without a route: the gateway's own answers cost as much as forwarded ones.
const UNROUTED: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "nobody.example.com"),
    (":path", "/"),
];

/// Sends a flood of HTTP/2 frames, and expects the connection to end with this error.
async fn cut_off(code: u32, bytes: Vec<u8>) {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(bytes).await;
    match client.outcome(u32::MAX).await {
        Outcome::GoAway(error) => assert_eq!(error, code),
        outcome => panic!("it ends with {outcome:?}"),
    }
    others_are_served(&world).await;
}

async fn calmed(bytes: Vec<u8>) {
    cut_off(ENHANCE_YOUR_CALM, bytes).await;
}

/// The streams a client may number, with frames on each.
fn streams(count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let all = (0..count).map(|number| frames(2 * number + 1));
    all.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn cve_2023_44487_rapid_resets_are_cut_off() {
    calmed(streams(5_000, |stream| {
        [
            headers(stream, END_STREAM, UNROUTED),
            rst_stream(stream, CANCEL),
        ]
        .concat()
    }))
    .await;
}

/// The same with uploads, which are still in progress when they are reset.
#[tokio::test]
async fn rustsec_2023_0034_resets_of_uploads_are_cut_off() {
    calmed(streams(5_000, |stream| {
        [headers(stream, 0, UNROUTED), rst_stream(stream, CANCEL)].concat()
    }))
    .await;
}

/// The client makes the server send the resets. A stream error would be enough; the gateway ends the
/// whole connection.
#[tokio::test]
async fn cve_2025_8671_windows_without_increment_are_cut_off() {
    let bytes = streams(5_000, |stream| {
        let nothing = frame(WINDOW_UPDATE, 0, stream, [0; 4]);
        [headers(stream, 0, UNROUTED), nothing].concat()
    });
    cut_off(PROTOCOL_ERROR, bytes).await;
}

#[tokio::test]
async fn rustsec_2025_0070_resets_by_overflowing_windows_are_cut_off() {
    calmed(streams(5_000, |stream| {
        let too_much = frame(WINDOW_UPDATE, 0, stream, [0x7f, 0xff, 0xff, 0xff]);
        [headers(stream, 0, UNROUTED), too_much].concat()
    }))
    .await;
}

#[tokio::test]
async fn rustsec_2024_0003_resets_by_malformed_requests_are_cut_off() {
    let fields = with(UNROUTED, &[("connection", "close")]);
    calmed(streams(5_000, |stream| {
        headers(stream, END_STREAM, &fields)
    }))
    .await;
}

#[tokio::test]
async fn rustsec_2024_0332_continuation_without_end_is_cut_off() {
    let begin = frame(HEADERS, END_STREAM, 1, field_section(UNROUTED));
    let pieces = frame(CONTINUATION, 0, 1, field_section(&[("x", "y")])).repeat(50_000);
    calmed([begin, pieces].concat()).await;
}

#[tokio::test]
async fn rustsec_2024_0332_empty_continuations_without_end_are_cut_off() {
    let begin = frame(HEADERS, END_STREAM, 1, field_section(UNROUTED));
    calmed([begin, frame(CONTINUATION, 0, 1, []).repeat(50_000)].concat()).await;
}

#[tokio::test]
async fn rustsec_2026_0258_empty_data_without_end_is_cut_off() {
    let begin = headers(1, 0, UNROUTED);
    calmed([begin, frame(DATA, 0, 1, []).repeat(50_000)].concat()).await;
}

/// Many frames that each require an answer: they get it, or are cut off; the answers are not queued.
async fn answered(kind: u8, payload: &'static [u8]) {
    const FRAMES: usize = 20_000;
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(frame(kind, 0, 0, payload).repeat(FRAMES)).await;
    let mut answers = 0;
    while answers < FRAMES {
        let Some(frame) = client.next().await else {
            break;
        };
        answers += usize::from(frame.kind == kind && frame.flags & ACK != 0);
    }
    others_are_served(&world).await;
}

#[tokio::test]
async fn cve_2019_9512_pings_are_answered_one_by_one() {
    answered(PING, &[0; 8]).await;
}

#[tokio::test]
async fn cve_2019_9515_settings_are_answered_one_by_one() {
    answered(SETTINGS, &[]).await;
}

/// Frames without effect: they cost the gateway as little as the client.
#[tokio::test]
async fn cve_2019_9513_priority_frames_are_ignored() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let shuffle = frame(PRIORITY, 0, 1, [0, 0, 0, 3, 7]).repeat(20_000);
    client.send(shuffle).await;
    assert_eq!(client.ask(1, GET).await, Outcome::Status(200));
}

/// A small reference to a large field, over and over.
#[tokio::test]
async fn cve_2016_1544_a_section_that_is_large_by_references_is_refused() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let large = literal(0x40, "x", &"y".repeat(3_000));
    let bomb = [field_section(GET), large, vec![0xbe; 10_000]].concat();
    client
        .send(frame(HEADERS, END_HEADERS | END_STREAM, 1, bomb))
        .await;
    let outcome = client.outcome(1).await;
    assert!(!matches!(outcome, Outcome::Status(200..300)), "{outcome:?}");
    others_are_served(&world).await;
}

#[tokio::test]
async fn cve_2019_9516_fields_without_names_are_refused() {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let fields = [field_section(GET), literal(0, "", "").repeat(4_000)].concat();
    client
        .send(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields))
        .await;
    let outcome = client.outcome(1).await;
    assert!(!matches!(outcome, Outcome::Status(200..300)), "{outcome:?}");
    others_are_served(&world).await;
}

/// A section in as many frames as it takes.
async fn large(status: u16, fields: Vec<u8>) {
    let world = World::start([ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let mut pieces = fields.chunks(16_000);
    client
        .send(frame(HEADERS, END_STREAM, 1, pieces.next().unwrap()))
        .await;
    for piece in pieces {
        client.send(frame(CONTINUATION, 0, 1, piece)).await;
    }
    client.send(frame(CONTINUATION, END_HEADERS, 1, [])).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(status));
    others_are_served(&world).await;
}

macro_rules! large {
    ($($(#[$attr:meta])* $name:ident: $status:literal, $base:expr, $more:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            large($status, [field_section($base), $more].concat()).await;
        })*
    };
}

large! {
    rfc6585_5_more_than_100_fields_over_http2_are_431: 431, GET, literal(0, "x", "y").repeat(101);
    rfc6585_5_a_field_of_70_000_bytes_over_http2_is_431: 431, GET, literal(0, "x", &"y".repeat(70_000));
    rfc6585_5_cookie_crumbs_count_as_the_fields_they_are: 431, GET, literal(0, "cookie", "a=1").repeat(7_000);
    rfc9110_15_5_15_a_target_of_20_000_bytes_over_http2_is_414:
        414, &GET[..3], literal(0, ":path", &format!("/{}", "a".repeat(19_999)));
}

/// An unknown method is forwarded, without copying it into an array of fixed size.
#[tokio::test]
async fn cve_2019_18801_a_method_of_40_000_bytes_arrives_whole() {
    let world = World::start([ok()]).await;
    let line = format!("{} / HTTP/1.1", "A".repeat(40_000));
    let head = world.forwarded(head(&line, "")).await;
    assert!(head.starts_with(&format!("{line}\r\n")));
}

/// Streams beyond the limit are refused, the others stay.
#[tokio::test]
async fn rfc9113_5_1_2_streams_beyond_the_limit_are_refused() {
    let gate = Gate::new();
    let script = vec![Step::ReadHead, Step::Hold(gate.clone()), Step::send(OK)];
    let options = ["--max-connections", "2", "--queue-timeout", "0"];
    let world = World::with([script], &options).await;
    let mut client = FrameClient::connect(&world).await;
    client
        .send(streams(251, |stream| headers(stream, END_STREAM, GET)))
        .await;
    let beyond = client.outcome(501).await;
    assert!(
        matches!(beyond, Outcome::Reset(_) | Outcome::GoAway(_)),
        "{beyond:?}"
    );
    assert!(world.origin.connections() <= 2);
    gate.open();
}

/// An HTTP/1 client that does not complete a request head gets a 408, and its connection is closed.
#[tokio::test]
async fn rfc9110_15_5_9_a_head_that_does_not_end_is_408() {
    let world = World::with([ok()], &["--request-header-timeout", "200ms"]).await;
    let mut client = world
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n"))
        .await;
    let reply = client.reply().await;
    assert!(reply.status == 408 && reply.closes(), "{}", reply.head);
    client.ends().await;
    others_are_served(&world).await;
}

/// The same for a later request of a connection.
#[tokio::test]
async fn rfc9110_15_5_9_a_second_head_that_does_not_end_is_408() {
    let world = World::with([ok()], &["--request-header-timeout", "200ms"]).await;
    let mut client = world.send(get("/1") + "GET /slow HTTP/1.1\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 408);
    client.ends().await;
    assert!(!world.all_received().contains("/slow"));
}

/// Between requests no 408 is sent: the client would take it for the next response.
#[tokio::test]
async fn rfc9112_9_5_idle_connection_is_closed_without_a_response() {
    let world = World::with([ok()], &["--request-header-timeout", "200ms"]).await;
    let mut client = world.send(get("/")).await;
    assert_eq!(client.reply().await.status, 200);
    client.ends().await;
}

#[tokio::test]
async fn rfc9112_9_5_silent_client_is_closed_without_a_response() {
    let world = World::with([ok()], &["--request-header-timeout", "200ms"]).await;
    world.client().await.ends().await;
    // These bytes could still be the HTTP/2 preface.
    world.send("PRI * HT").await.ends().await;
    others_are_served(&world).await;
}

/// A slow client is served as long as it makes progress.
#[tokio::test]
async fn rfc9112_9_5_a_body_that_does_not_go_on_is_cut() {
    let world = World::with(
        [vec![Step::ReadHead, Step::ReadToEnd], ok()],
        &["--request-body-timeout", "200ms"],
    )
    .await;
    let request = head("POST / HTTP/1.1", "Content-Length: 10\r\n") + "hello";
    let mut client = world.send(request).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 408, "{}", reply.head);
    client.ends().await;
    assert_ne!(
        soon(world.origin.wait_for_closed(0)).await,
        Closed::ByScript
    );
    world.first_connection_is_not_used_again().await;
}

macro_rules! refused {
    ($($(#[$attr:meta])* $name:ident: $status:literal, $bytes:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused($status, $bytes).await; })*
    };
}

refused! {
    /// Beyond the limit of the head the status does not depend on which part is too long.
    rfc6585_5_a_target_of_100_000_bytes_is_431: 431, get(&format!("/{}", "a".repeat(100_000)));
    rfc6585_5_a_name_of_70_000_bytes_is_431:
        431, head("GET / HTTP/1.1", &format!("{}: y\r\n", "x".repeat(70_000)));
    rfc6585_5_2_000_cookies_are_431: 431, head("GET / HTTP/1.1", &"Cookie: a=1\r\n".repeat(2_000));
    rfc6585_5_small_fields_of_70_000_bytes_are_431:
        431, head("GET / HTTP/1.1", &format!("X: {}\r\n", "y".repeat(1_000)).repeat(70));
    rfc9112_2_2_10_000_empty_lines_are_refused: 400, "\r\n".repeat(10_000);
}

/// One chunk for each byte is a valid body.
#[tokio::test]
async fn rfc9112_7_1_tiny_chunks_of_a_response_are_a_body() {
    const CHUNKS: usize = 10_000;
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let response = response + &"1\r\nx\r\n".repeat(CHUNKS) + "0\r\n\r\n";
    let world = World::start([answer(response)]).await;
    assert_eq!(world.ask(get("/")).await.body, vec![b'x'; CHUNKS]);
}

/// Extensions larger than their chunks, up to hyper's limit.
#[tokio::test]
async fn cve_2023_39326_chunk_extensions_of_a_response_are_bounded() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1_000));
    let world = World::start([answer(response + &chunk.repeat(1_000)), ok()]).await;
    let mut client = world.send(get("/")).await;
    client.head().await;
    let rest = client.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 1_000);
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9112_7_1_2_trailers_of_a_response_are_bounded() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".to_owned();
    let world = World::start([answer(response + &"X: evil\r\n".repeat(100_000)), ok()]).await;
    let mut client = world.send(get("/")).await;
    client.head().await;
    assert!(!client.rest().await.ends_with(b"0\r\n\r\n"));
    world.first_connection_is_not_used_again().await;
}

/// Many requests in one write are answered, one after the other.
#[tokio::test]
async fn rfc9112_9_3_2_500_requests_in_one_write_are_answered() {
    let world = World::start([ok()]).await;
    let unrouted = "GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n";
    let mut client = world.send(unrouted.repeat(500)).await;
    for _ in 0..500 {
        assert_eq!(client.reply().await.status, 404);
    }
    others_are_served(&world).await;
}

/// A request whose client has gone ends.
#[tokio::test]
async fn rfc9112_9_6_clients_that_close_at_once_leave_no_connection() {
    let options = ["--max-connections", "2"];
    let world = World::with([vec![Step::ReadHead, Step::ReadToEnd]], &options).await;
    for connection in 0..10 {
        let client = world.send(get("/")).await;
        world.received(connection, "\r\n\r\n").await;
        drop(client);
        soon(world.origin.wait_for_closed(connection)).await;
    }
    assert_eq!(world.origin.connections(), 10);
}

/// HTTP/2 uploads that the origin does not read are stalled, not buffered.
#[tokio::test]
async fn rfc9113_5_2_upload_stalls_while_the_origin_does_not_read() {
    let gate = Gate::new();
    let script = vec![Step::ReadHead, Step::Hold(gate.clone())];
    let world = World::start([script]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, 0, POST)).await;
    world.received(0, "\r\n\r\n").await;
    // More than the window of the stream.
    client.send(frame(DATA, 0, 1, [0; 16_000]).repeat(80)).await;
    let outcome = client.outcome(1).await;
    assert!(
        matches!(outcome, Outcome::Reset(3) | Outcome::GoAway(3)),
        "{outcome:?}"
    );
    gate.open();
}
