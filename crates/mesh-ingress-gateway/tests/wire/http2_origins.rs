//! Origins that speak HTTP/2 without TLS, frame by frame: a refused request is retried where that is
//! safe, a protocol error is a 502, and an incomplete response is visibly truncated.

use mesh_ingress_testkit::{Gate, Step};

use crate::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FrameClient, GET,
    HEADERS, NO_ERROR, Outcome, PING, PREFACE, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM,
    SETTINGS, WINDOW_UPDATE, field_section, frame, goaway, headers, rst_stream, with,
};
use crate::reply::soon;
use crate::upgrades::{SWITCHING, upgrade};
use crate::world::{World, field_values, get, head};

const H2C: &[&str] = &["--upstream-protocol", "h2c"];
const GOOD: &[(&str, &str)] = &[(":status", "200"), ("content-length", "2")];

/// The steps that every connection begins with.
fn begin() -> Vec<Step> {
    vec![
        Step::ReadUntil(PREFACE.into()),
        Step::send(frame(SETTINGS, 0, 0, [])),
    ]
}

/// Reads the head of a request without a body.
fn request(stream: u32) -> Step {
    Step::ReadUntil(
        [
            &[HEADERS, END_HEADERS | END_STREAM][..],
            &stream.to_be_bytes(),
        ]
        .concat()
        .into(),
    )
}

/// Reads the head of a request with a body.
fn upload(stream: u32) -> Step {
    Step::ReadUntil(
        [&[HEADERS, END_HEADERS][..], &stream.to_be_bytes()]
            .concat()
            .into(),
    )
}

fn good(stream: u32) -> Step {
    Step::send(
        [
            headers(stream, 0, GOOD),
            frame(DATA, END_STREAM, stream, "ok"),
        ]
        .concat(),
    )
}

/// A connection that answers this many requests.
fn well(requests: u32) -> Vec<Step> {
    let streams = (0..requests).map(|number| 2 * number + 1);
    let exchanges = streams.flat_map(|stream| [request(stream), good(stream)]);
    begin().into_iter().chain(exchanges).collect()
}

fn then(mut script: Vec<Step>, steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    script.extend(steps);
    script
}

async fn assert_ok(world: &World) {
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "ok"), "{}", reply.head);
}

/// Sends two requests over one connection, of which the second meets `steps`; returns its response.
async fn second_meets(steps: impl IntoIterator<Item = Step>) -> (World, u16) {
    let script = then(well(1), [request(3)]);
    let world = World::with([then(script, steps), well(2)], H2C).await;
    assert_ok(&world).await;
    let status = world.ask(get("/second")).await.status;
    (world, status)
}

#[tokio::test]
async fn rfc9113_8_7_refused_stream_is_retried() {
    let (world, status) = second_meets([
        Step::send(rst_stream(3, REFUSED_STREAM)),
        request(5),
        good(5),
    ])
    .await;
    assert_eq!(status, 200);
    assert_eq!(world.origin.connections(), 1, "nothing is wrong with it");
}

#[tokio::test]
async fn rfc9113_6_8_stream_above_the_last_of_goaway_is_retried_elsewhere() {
    let (world, status) = second_meets([Step::send(goaway(1, NO_ERROR))]).await;
    assert_eq!(status, 200);
    assert_eq!(world.origin.connections(), 2);
}

/// A WebSocket that is refused over HTTP/2 and retried over HTTP/1.1, because the next connection does
/// not offer it over HTTP/2: the second try has each forwarded field once, as the first.
#[tokio::test]
async fn rfc8441_3_retry_in_another_version_has_the_same_fields() {
    let takes_connect = frame(SETTINGS, 0, 0, [0, 8, 0, 0, 0, 1]);
    let refuses = vec![
        Step::ReadUntil(PREFACE.into()),
        Step::send(takes_connect),
        upload(1),
        Step::send(goaway(0, NO_ERROR)),
    ];
    let switches = vec![Step::ReadHead, Step::send(SWITCHING)];
    let world = World::with([refuses, begin(), switches], H2C).await;
    let mut client = world.send(upgrade()).await;
    assert_eq!(client.head().await.0, 101);
    let head = world.head_at_origin(2).await;
    for field in [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-real-ip",
        "via",
    ] {
        assert_eq!(field_values(&head, field).len(), 1, "{field}: {head}");
    }
}

/// A stream up to the last one is still answered.
#[tokio::test]
async fn rfc9113_6_8_a_stream_below_the_last_of_a_goaway_is_answered() {
    let (world, status) = second_meets([Step::send(goaway(3, NO_ERROR)), good(3)]).await;
    assert_eq!(status, 200);
    assert_eq!(world.origin.connections(), 1);
    assert_ok(&world).await;
    assert_eq!(world.origin.connections(), 2, "nothing new after GOAWAY");
}

/// An idle connection is not reused after a GOAWAY.
#[tokio::test]
async fn rfc9113_6_8_nothing_is_sent_after_a_goaway() {
    let gate = Gate::new();
    let script = then(
        well(1),
        [Step::Hold(gate.clone()), Step::send(goaway(1, NO_ERROR))],
    );
    let world = World::with([script, well(1)], H2C).await;
    assert_ok(&world).await;
    gate.open();
    // Without streams the gateway closes it.
    soon(world.origin.wait_for_closed(0)).await;
    assert_ok(&world).await;
    assert_eq!(world.origin.connections(), 2);
}

/// An origin that has begun may have acted on the request: after such a reset it is not retried.
async fn not_asked_again(line: &str, code: u32) {
    let script = then(well(1), [upload(3), Step::send(rst_stream(3, code))]);
    let world = World::with([script, well(2)], H2C).await;
    assert_ok(&world).await;
    let reply = world
        .ask(head(line, "Content-Length: 5\r\n") + "hello")
        .await;
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert_eq!(world.origin.connections(), 1, "asked once");
}

#[tokio::test]
async fn rfc9110_9_2_2_reset_post_is_not_retried() {
    not_asked_again("POST /twice HTTP/1.1", CANCEL).await;
}

#[tokio::test]
async fn rfc9113_8_7_request_with_a_consumed_body_is_not_retried() {
    not_asked_again("POST /twice HTTP/1.1", REFUSED_STREAM).await;
}

/// 502, and nothing of the response.
async fn refused(steps: Vec<Step>) {
    let script = then(begin(), [request(1)]);
    let world = World::with([then(script, steps), well(1)], H2C).await;
    let reply = world.ask(get("/")).await;
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert!(!format!("{}{}", reply.head, reply.text()).contains("evil"));
}

macro_rules! refused {
    ($($(#[$attr:meta])* $name:ident: $bytes:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { refused(vec![Step::send($bytes)]).await; })*
    };
}

fn response(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = with(&[(":status", "200")], fields);
    [headers(1, 0, &fields), frame(DATA, END_STREAM, 1, "evil")].concat()
}

refused! {
    rfc9113_8_2_2_a_response_with_connection_is_502: response(&[("connection", "close")]);
    rfc9113_8_2_2_a_response_with_transfer_encoding_is_502:
        response(&[("transfer-encoding", "chunked")]);
    rfc9113_8_2_2_a_response_with_upgrade_is_502: response(&[("upgrade", "evil")]);
    rfc9113_8_2_2_a_response_with_keep_alive_is_502: response(&[("keep-alive", "evil")]);
    rfc9113_8_2_1_a_response_with_an_upper_case_name_is_502: response(&[("X-Evil", "1")]);
    rfc9113_8_2_1_a_response_with_a_line_end_is_502: response(&[("x", "1\r\nset-cookie: evil=1")]);
    rfc9113_8_2_1_a_response_with_a_nul_is_502: response(&[("x", "evil\0")]);
    rfc9110_8_6_a_response_of_http2_with_differing_lengths_is_502:
        response(&[("content-length", "4"), ("content-length", "5")]);
    rfc9110_8_6_a_response_of_http2_with_the_same_length_twice_is_502:
        response(&[("content-length", "4"), ("content-length", "4")]);
    rfc9110_8_6_a_response_of_http2_with_a_length_that_is_no_number_is_502:
        response(&[("content-length", "four")]);
    rfc9113_8_3_2_a_response_without_status_is_502: headers(1, END_STREAM, &[("x", "evil")]);
    rfc9113_8_3_2_a_status_that_is_no_number_is_502: headers(1, END_STREAM, &[(":status", "abc")]);
    rfc9113_8_3_2_two_statuses_are_502:
        headers(1, END_STREAM, &[(":status", "200"), (":status", "204")]);
    rfc9113_8_6_a_101_over_http2_is_502: headers(1, END_STREAM, &[(":status", "101")]);
    rfc9113_6_4_a_reset_instead_of_a_response_is_502: rst_stream(1, CANCEL);
    rfc9113_8_1_data_before_its_head_is_502: frame(DATA, END_STREAM, 1, "evil");
    rfc9113_8_4_push_promise_with_push_disabled_is_502:
        frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &field_section(GET)].concat());
    rfc7541_2_3_3_a_response_with_a_bad_index_is_502:
        frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff, 0x80, 0x01]);
    rfc9113_4_2_a_response_in_too_large_a_frame_is_502: frame(DATA, 0, 1, vec![0; 20_000]);
    rfc9113_6_9_1_a_window_that_overflows_upstream_is_502:
        frame(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]);
    /// CVE-2024-27316 the other way round.
    rustsec_2024_0332_continuation_without_end_of_an_origin_is_502: {
        let pieces = std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, [0; 16_000]));
        let begin = frame(HEADERS, 0, 1, field_section(&[(":status", "200")]));
        [vec![begin], pieces.take(100).collect()].concat().concat()
    };
    rfc6585_5_a_response_of_http2_with_too_many_fields_is_502: response(&[("x", "evil"); 200]);
}

/// The head is valid, and the body does not match it.
async fn truncated(bytes: Vec<u8>) {
    let script = then(begin(), [request(1), Step::send(bytes)]);
    let world = World::with([script, well(1)], H2C).await;
    let all = world
        .send(head("GET / HTTP/1.1", "Connection: close\r\n"))
        .await
        .rest()
        .await;
    let all = String::from_utf8_lossy(&all).into_owned();
    // The error may come so early that the client has seen nothing of the response.
    if all.is_empty() || all.starts_with("HTTP/1.1 502 ") {
        return;
    }
    let (head, rest) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(!rest.ends_with("0\r\n\r\n"), "a clean end: {rest}");
    let framed = head.to_lowercase();
    let known = ["content-length: 100", "transfer-encoding: chunked"];
    assert!(
        known.iter().any(|framing| framed.contains(framing)),
        "{head}"
    );
    assert!(rest.len() < 100, "{rest}");
}

macro_rules! truncated {
    ($($(#[$attr:meta])* $name:ident: $fields:expr, $frames:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() {
            let fields = with(&[(":status", "200")], &$fields);
            let frames: Vec<Vec<u8>> = $frames.into();
            truncated([vec![headers(1, 0, &fields)], frames].concat().concat()).await;
        })*
    };
}

const LENGTH: [(&str, &str); 1] = [("content-length", "100")];
const NONE: [(&str, &str); 0] = [];

truncated! {
    rfc9113_8_1_1_a_response_shorter_than_its_length_is_truncated:
        LENGTH, [frame(DATA, END_STREAM, 1, "half")];
    rfc9113_6_4_a_response_with_a_length_that_is_reset_is_truncated:
        LENGTH, [frame(DATA, 0, 1, "half"), rst_stream(1, CANCEL)];
    rfc9113_6_4_a_response_without_a_length_that_is_reset_is_truncated:
        NONE, [frame(DATA, 0, 1, "half"), rst_stream(1, CANCEL)];
    /// Only the end of a stream is the end of a response: NO_ERROR is a reset as well.
    rfc9113_8_1_a_response_that_is_reset_without_error_is_truncated:
        LENGTH, [frame(DATA, 0, 1, "half"), rst_stream(1, NO_ERROR)];
    rfc9113_8_1_1_a_response_longer_than_its_length_is_truncated:
        LENGTH, [frame(DATA, END_STREAM, 1, "x".repeat(101))];
}

/// gRPC makes a status of it (a caller tells `RESOURCE_EXHAUSTED` from `INTERNAL` by it).
#[tokio::test]
async fn rfc9113_7_the_reason_of_a_reset_is_told_to_a_client_of_http2() {
    let gate = Gate::new();
    let half = [headers(1, 0, GOOD), frame(DATA, 0, 1, "o")].concat();
    let steps = [
        request(1),
        Step::send(half),
        Step::Hold(gate.clone()),
        Step::send(rst_stream(1, ENHANCE_YOUR_CALM)),
    ];
    let world = World::with([then(begin(), steps)], H2C).await;
    let mut client = FrameClient::connect(&world).await;
    assert_eq!(client.ask(1, GET).await, Outcome::Status(200));
    gate.open();
    assert_eq!(client.outcome(1).await, Outcome::Reset(ENHANCE_YOUR_CALM));
}

/// A connection error fails the streams that are under way.
#[tokio::test]
async fn rfc9113_6_8_an_error_of_the_connection_is_502() {
    refused(vec![Step::send(goaway(1, PROTOCOL_ERROR)), Step::Close]).await;
}

#[tokio::test]
async fn rfc9113_6_8_a_connection_that_ends_is_502() {
    refused(vec![Step::Close]).await;
}

/// They are discarded as they come, and do not extend the timeout.
#[tokio::test]
async fn rfc9113_8_1_endless_interim_responses_over_http2_are_504() {
    let interim = headers(1, 0, &[(":status", "103"), ("link", "</evil>")]);
    let script = then(begin(), [request(1), Step::send(interim.repeat(20_000))]);
    let options = [H2C, &["--response-header-timeout", "300ms"]].concat();
    let world = World::with([script, well(1)], &options).await;
    let reply = world.ask(get("/")).await;
    assert_eq!(reply.status, 504, "{}", reply.head);
}

/// h2 drops pseudo-fields that do not belong to a response.
#[tokio::test]
async fn rfc9113_8_3_pseudo_fields_of_a_request_in_a_response_are_dropped() {
    let fields = with(GOOD, &[]);
    let odd = with(&[(":status", "200"), (":path", "/evil")], &fields[1..]);
    let body = frame(DATA, 0, 1, "ok");
    let trailers = headers(1, END_STREAM, &[(":status", "500")]);
    let bytes = [headers(1, 0, &odd), body, trailers].concat();
    let world = World::with([then(begin(), [request(1), Step::send(bytes)])], H2C).await;
    let reply = world.ask(get("/")).await;
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert!(!reply.head.contains("evil"), "{}", reply.head);
}

/// A refused stream was not acted on, on a new connection either.
#[tokio::test]
async fn rfc9113_8_7_first_refused_stream_is_retried() {
    let script = then(
        begin(),
        [
            request(1),
            Step::send(rst_stream(1, REFUSED_STREAM)),
            request(3),
            good(3),
        ],
    );
    let world = World::with([script, well(1)], H2C).await;
    assert_ok(&world).await;
}

/// The number of retries is bounded.
#[tokio::test]
async fn rfc9113_8_7_an_origin_that_refuses_everything_is_502() {
    let refusals = (0..100).map(|number| 2 * number + 1);
    let refusals = refusals.flat_map(|stream| {
        [
            request(stream),
            Step::send(rst_stream(stream, REFUSED_STREAM)),
        ]
    });
    let world = World::with([then(begin(), refusals)], H2C).await;
    let reply = world.ask(get("/")).await;
    assert_eq!(reply.status, 502, "{}", reply.head);
}

/// Other frames in between do not change the response of a stream.
#[tokio::test]
async fn rfc9113_5_1_frames_without_meaning_are_ignored() {
    let odd = [
        frame(PING, 0, 0, [7; 8]),
        frame(0xbe, 0xff, 1, "nobody knows this"),
        frame(SETTINGS, 0, 0, [0, 0xff, 0, 0, 0, 1]),
        headers(1, 0, &[(":status", "103"), ("link", "</a>")]),
        frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]),
    ];
    let script = then(begin(), [request(1), Step::send(odd.concat()), good(1)]);
    let world = World::with([script], H2C).await;
    assert_ok(&world).await;
}

/// An origin that does not speak HTTP/2 is detected before a request is sent to it.
#[tokio::test]
async fn rfc9113_3_4_an_origin_of_http1_gets_no_request() {
    let script = vec![
        Step::ReadUntil(PREFACE.into()),
        Step::send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    ];
    let world = World::with([script], H2C).await;
    assert_eq!(world.ask(get("/secret")).await.status, 502);
    assert!(!world.all_received().contains("/secret"));
}

/// The same for one that sends a GOAWAY at once.
#[tokio::test]
async fn rfc9113_6_8_an_origin_that_goes_away_at_once_is_502() {
    let script = [begin(), vec![Step::send(goaway(0, NO_ERROR)), Step::Close]];
    let world = World::with([script.concat()], H2C).await;
    assert_eq!(world.ask(get("/")).await.status, 502);
}
