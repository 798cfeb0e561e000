//! Bodies and trailers over HTTP/2, and errors as gRPC statuses.

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress::Body;
use mesh_ingress_testkit::{Closed, Step};
use tokio::net::TcpStream;

use crate::frames::{
    CANCEL, DATA, END_STREAM, FrameClient, GET, HEADERS, Outcome, POST, PROTOCOL_ERROR, RST_STREAM,
    frame, headers, rst_stream, with,
};
use crate::reply::soon;
use crate::world::{OK, World, answer, field_values, head, ok};

/// An upload that does not match its length: it is cut off upstream, and its connection is not reused.
async fn misfit(length: &'static str, frames: &[Vec<u8>]) {
    let world = World::start([vec![Step::ReadHead, Step::ReadToEnd], ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let fields = with(POST, &[("content-length", length)]);
    client.send(headers(1, 0, &fields)).await;
    // Forwarded before the error.
    world.received(0, "\r\n\r\n").await;
    client.send(frames.concat()).await;
    let outcome = client.outcome(1).await;
    assert!(!matches!(outcome, Outcome::Status(200..300)), "{outcome:?}");
    assert_ne!(
        soon(world.origin.wait_for_closed(0)).await,
        Closed::ByScript
    );
    let received = world.all_received();
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    assert_eq!(field_values(head, "content-length"), [length], "{head}");
    assert!(body.len() < length.parse().unwrap(), "whole: {received}");
    world.first_connection_is_not_used_again().await;
}

macro_rules! misfit {
    ($($(#[$attr:meta])* $name:ident: $length:literal, $frames:expr;)*) => {
        $($(#[$attr])* #[tokio::test] async fn $name() { misfit($length, &$frames).await; })*
    };
}

misfit! {
    rfc9113_8_1_1_a_body_shorter_than_its_length_is_cut:
        "5", [frame(DATA, END_STREAM, 1, "abc")];
    rfc9113_8_1_1_a_body_of_nothing_is_cut: "5", [frame(DATA, END_STREAM, 1, "")];
    rfc9113_8_1_1_a_body_longer_than_its_length_is_cut:
        "5", [frame(DATA, 0, 1, "abc"), frame(DATA, END_STREAM, 1, "defg")];
    rfc9113_8_1_1_a_body_shorter_than_its_length_before_trailers_is_cut:
        "5", [frame(DATA, 0, 1, "abc"), headers(1, END_STREAM, &[("x-checksum", "1")])];
    rfc9113_8_1_a_body_shorter_than_its_length_before_a_path_is_cut:
        "5", [frame(DATA, 0, 1, "abc"), headers(1, END_STREAM, &[(":path", "/evil")])];
    rfc9113_8_1_trailers_that_are_not_the_end_are_cut:
        "5", [frame(DATA, 0, 1, "abc"), headers(1, 0, &[("x-checksum", "1")])];
    rfc9113_8_2_1_a_trailer_in_upper_case_is_cut:
        "5", [frame(DATA, 0, 1, "abc"), headers(1, END_STREAM, &[("X-Checksum", "1")])];
    rfc9113_6_1_padding_longer_than_its_frame_is_cut:
        "5", [frame(DATA, 0x8 | END_STREAM, 1, [200, b'a', b'b', b'c', b'd', b'e'])];
}

/// The client has gone, so only the origin is told.
#[tokio::test]
async fn rfc9113_5_4_2_a_body_that_is_reset_is_cut() {
    let world = World::start([vec![Step::ReadHead, Step::ReadToEnd], ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, 0, POST)).await;
    client.send(frame(DATA, 0, 1, "abc")).await;
    world.received(0, "abc").await;
    client.send(rst_stream(1, CANCEL)).await;
    soon(world.origin.wait_for_closed(0)).await;
    assert!(
        world.all_received().ends_with("3\r\nabc\r\n"),
        "no last chunk"
    );
    world.first_connection_is_not_used_again().await;
}

/// The body that the origin gets of a POST of unknown length.
async fn uploaded(frames: &[Vec<u8>]) -> String {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("\r\n0\r\n".into()),
        Step::ReadUntil("\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let mut client = FrameClient::connect(&world).await;
    let fields = with(POST, &[("te", "trailers"), ("trailer", "x-checksum")]);
    client.send(headers(1, 0, &fields)).await;
    client.send(frames.concat()).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    let received = world.all_received();
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        field_values(head, "transfer-encoding"),
        ["chunked"],
        "{head}"
    );
    assert!(field_values(head, "content-length").is_empty(), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn rfc9112_7_1_a_body_without_length_goes_on_in_chunks() {
    let body = uploaded(&[frame(DATA, 0, 1, "hello"), frame(DATA, END_STREAM, 1, "")]).await;
    assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n");
}

/// Padding is of the frame, not of the body.
#[tokio::test]
async fn rfc9113_6_1_padding_is_dropped() {
    let padded = [&[4][..], b"hello", &[0; 4]].concat();
    let body = uploaded(&[frame(DATA, 0x8 | END_STREAM, 1, padded)]).await;
    assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn rfc9110_6_5_a_good_trailer_of_http2_reaches_the_origin() {
    let trailers = headers(1, END_STREAM, &[("x-checksum", "abc")]);
    let body = uploaded(&[frame(DATA, 0, 1, "hello"), trailers]).await;
    assert_eq!(
        body.to_lowercase(),
        "5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n"
    );
}

#[tokio::test]
async fn rfc9110_6_5_1_forbidden_trailers_are_dropped_in_http2_too() {
    let fields = [
        ("content-length", "9"),
        ("host", "evil"),
        ("authorization", "evil"),
        ("x-forwarded-for", "evil"),
        ("x_checksum", "evil"),
        ("x-checksum", "abc"),
    ];
    let trailers = headers(1, END_STREAM, &fields);
    let body = uploaded(&[frame(DATA, 0, 1, "hello"), trailers]).await;
    assert_eq!(
        body.to_lowercase(),
        "5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n"
    );
}

/// Of unknown length, as nearly all bodies of HTTP/2 are: hyper's client would leave it out.
#[tokio::test]
async fn rfc9110_9_3_1_a_get_with_a_body_over_http2_keeps_it() {
    let script = vec![
        Step::ReadHead,
        Step::ReadUntil("5\r\nhello\r\n0\r\n\r\n".into()),
        Step::send(OK),
    ];
    let world = World::start([script]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, 0, GET)).await;
    client.send(frame(DATA, END_STREAM, 1, "hello")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
}

/// HTTP/2 has no 101, and the client did not ask for one.
#[tokio::test]
async fn rfc9113_8_6_a_101_for_a_client_of_http2_is_502() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                     Upgrade: websocket\r\n\r\nevil";
    let world = World::start([answer(switching), ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    assert_eq!(client.ask(1, GET).await, Outcome::Status(502));
    world.first_connection_is_not_used_again().await;
}

/// HTTP/2 frames a response by itself: the framing fields of HTTP/1.1 are removed.
#[tokio::test]
async fn rfc9113_8_2_2_a_response_in_chunks_has_none_in_http2() {
    let response = "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-secret\r\nX-Secret: 1\r\n\
                    Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\nTrailer: x-checksum\r\n\r\n\
                    5\r\nhello\r\n0\r\nX-Checksum: abc\r\nContent-Length: 9\r\n\r\n";
    let world = World::start([answer(response)]).await;
    let response = call(&world, "http://shop.example.com/").await;
    for name in [
        "connection",
        "x-secret",
        "keep-alive",
        "transfer-encoding",
        "content-length",
    ] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap();
    assert_eq!(trailers["x-checksum"], "abc");
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(body.to_bytes(), "hello");
}

/// A request that is malformed at its end has none.
#[tokio::test]
async fn rfc9113_8_1_pseudo_fields_among_trailers_are_no_end() {
    let world = World::start([vec![Step::ReadHead, Step::ReadToEnd], ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, 0, POST)).await;
    client.send(frame(DATA, 0, 1, "hello")).await;
    world.received(0, "hello").await;
    let trailers = [(":path", "/evil"), ("x-checksum", "abc")];
    client.send(headers(1, END_STREAM, &trailers)).await;
    assert_eq!(client.outcome(1).await, Outcome::Reset(PROTOCOL_ERROR));
    soon(world.origin.wait_for_closed(0)).await;
    assert!(
        world.all_received().ends_with("5\r\nhello\r\n"),
        "no last chunk"
    );
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9113_8_1_an_early_answer_arrives_before_the_upload_ends() {
    let world = World::start([answer(OK), ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    let fields = with(POST, &[("content-length", "1000000")]);
    client.send(headers(1, 0, &fields)).await;
    client.send(frame(DATA, 0, 1, "hello")).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(200));
    client.send(rst_stream(1, CANCEL)).await;
    soon(world.origin.wait_for_closed(0)).await;
    world.first_connection_is_not_used_again().await;
}

/// A response truncated upstream is truncated for an HTTP/2 client, too.
async fn truncated(response: &'static str) {
    let script = vec![Step::ReadHead, Step::send(response), Step::Close];
    let world = World::start([script, ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    assert_eq!(client.ask(1, GET).await, Outcome::Status(200));
    loop {
        let frame = client.next().await.expect("a reset, not the end of all");
        assert!(frame.stream != 1 || frame.kind != HEADERS, "no trailers");
        if frame.stream == 1 && frame.kind == RST_STREAM {
            break;
        }
        let ended = frame.stream == 1 && frame.flags & END_STREAM != 0;
        assert!(!ended, "a clean end");
    }
    world.first_connection_is_not_used_again().await;
}

#[tokio::test]
async fn rfc9113_8_1_a_response_shorter_than_its_length_is_reset() {
    truncated("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
}

#[tokio::test]
async fn rfc9113_8_1_a_response_without_its_last_chunk_is_reset() {
    truncated("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
}

#[tokio::test]
async fn rfc9113_5_4_2_a_reset_of_the_client_closes_the_upstream() {
    let world = World::start([vec![Step::ReadHead, Step::ReadToEnd], ok()]).await;
    let mut client = FrameClient::connect(&world).await;
    client.send(headers(1, END_STREAM, GET)).await;
    world.received(0, "\r\n\r\n").await;
    client.send(rst_stream(1, CANCEL)).await;
    soon(world.origin.wait_for_closed(0)).await;
    assert_eq!(client.ask(3, GET).await, Outcome::Status(200));
}

/// The response to a gRPC call.
async fn call(world: &World, uri: &str) -> Response<Incoming> {
    let io = TokioIo::new(TcpStream::connect(world.gateway.addr).await.unwrap());
    let builder = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from("\0\0\0\0\0"));
    soon(sender.send_request(request.unwrap())).await.unwrap()
}

async fn grpc_error(world: &World, uri: &str) -> HeaderMap {
    let response = call(world, uri).await;
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["content-type"]
        ),
        (200, &"application/grpc".parse().unwrap())
    );
    let headers = response.headers().clone();
    assert!(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .is_empty()
    );
    headers
}

#[tokio::test]
async fn grpc_an_unknown_host_is_unimplemented() {
    let world = World::start([ok()]).await;
    let headers = grpc_error(&world, "http://evil.example/a.B/C").await;
    assert_eq!(headers["grpc-status"], "12");
    world.nothing_has_reached_the_origin().await;
}

#[tokio::test]
async fn grpc_an_origin_that_closes_is_unavailable() {
    let script = vec![Step::ReadHead, Step::Close];
    let world = World::start([script, ok()]).await;
    let headers = grpc_error(&world, "http://shop.example.com/a.B/C").await;
    assert_eq!(headers["grpc-status"], "14");
}

#[tokio::test]
async fn grpc_an_origin_that_does_not_answer_is_deadline_exceeded() {
    let script = vec![Step::ReadHead, Step::ReadToEnd];
    let options = ["--response-header-timeout", "200ms"];
    let world = World::with([script, ok()], &options).await;
    let headers = grpc_error(&world, "http://shop.example.com/a.B/C").await;
    assert_eq!(headers["grpc-status"], "4");
}

#[tokio::test]
async fn grpc_a_malformed_call_is_internal() {
    let world = World::start([ok()]).await;
    let headers = grpc_error(&world, "http://shop.example.com/a/../C").await;
    assert_eq!(headers["grpc-status"], "13");
    world.nothing_has_reached_the_origin().await;
}

/// An HTTP/1.1 client may send gRPC, too: a refused request closes its connection all the same.
#[tokio::test]
async fn rfc9112_9_6_refused_grpc_request_closes_the_connection() {
    let world = World::start([ok()]).await;
    let fields = "Content-Type: application/grpc\r\nHost: evil.example\r\n";
    let request = head("POST / HTTP/1.1", fields) + crate::world::SMUGGLED;
    let mut client = world.send(request).await;
    let reply = client.reply().await;
    assert!(reply.closes(), "{}", reply.head);
    assert_eq!(reply.values("grpc-status"), ["13"], "{}", reply.head);
    client.ends().await;
    world.nothing_has_reached_the_origin().await;
}

/// Many clients end the whole connection when a response to HEAD has a body.
#[tokio::test]
async fn rfc9110_9_3_2_head_gets_no_body_of_ours_either() {
    let world = World::start([]).await;
    let mut client = FrameClient::connect(&world).await;
    for (stream, method) in [(1, "GET"), (3, "HEAD")] {
        let unknown = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "elsewhere.example.com"),
            (":path", "/"),
        ];
        client.send(headers(stream, END_STREAM, &unknown)).await;
        let answer = loop {
            let frame = client.next().await.unwrap();
            if frame.stream == stream {
                break frame;
            }
        };
        assert_eq!(answer.kind, HEADERS);
        let ended = answer.flags & END_STREAM != 0;
        assert_eq!(ended, method == "HEAD", "{method}");
    }
}
