//! HTTP/2 upstreams that limit, reset and close, and the requests on their connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use frames::{DATA, Peer, REFUSED_STREAM, RST_STREAM};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_ingress_core::{Body, BoxError, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, UpstreamPool};
use mesh_ingress_testkit::{Behaviour, BodyEnd, Gate, Origin};
use support::{Reply, Waiting, begin, get, poll_once, read, send, to};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn request(addr: SocketAddr) -> Request<Body> {
    to(addr, Protocol::Http2, get(addr))
}

fn posted(addr: SocketAddr, body: &'static str) -> Request<Body> {
    let mut request = request(addr);
    *request.method_mut() = Method::POST;
    *request.body_mut() = Body::from(body);
    request
}

fn pool(forwarder: &Forwarder, addr: SocketAddr) -> UpstreamPool {
    forwarder.pool(&Upstream::new(addr).protocol(Protocol::Http2))
}

fn sent(forwarder: &Forwarder, request: Request<Body>) -> JoinHandle<Reply> {
    let forwarder = forwarder.clone();
    tokio::spawn(async move { send(&forwarder, request).await })
}

/// Sends a request on a new connection and answers it, so that the next request reuses it.
async fn first(forwarder: &Forwarder, listener: &TcpListener, addr: SocketAddr) -> Peer {
    let reply = sent(forwarder, request(addr));
    let mut peer = Peer::accept(listener, 100).await;
    let stream = peer.request().await;
    peer.answer(stream).await;
    read(reply.await.unwrap()).await;
    peer
}

#[tokio::test]
async fn connections_are_opened_as_streams_need_up_to_the_limit() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .behaviour(Behaviour::Gated(gate.clone()))
        .max_concurrent_streams(5)
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::builder().max_connections(3).build();
    let mut replies = Vec::new();
    for _ in 0..40 {
        replies.push(sent(&forwarder, request(origin.addr())));
    }
    origin.wait_for_requests(15).await;
    let pool = pool(&forwarder, origin.addr());
    assert_eq!((pool.connections(), pool.waiting()), (3, 25));
    gate.open();
    for reply in replies {
        read(reply.await.unwrap()).await;
    }
    assert_eq!((origin.connections(), pool.waiting()), (3, 0));
}

#[tokio::test]
async fn rfc9113_6_5_2_peer_may_raise_and_lower_its_stream_limit() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::builder().max_connections(1).build();
    let pool = pool(&forwarder, addr);
    let one = sent(&forwarder, request(addr));
    let mut peer = Peer::accept(&listener, 1).await;
    let stream = peer.request().await;
    let two: Waiting = begin(&forwarder, request(addr)).await;
    let three: Waiting = begin(&forwarder, request(addr)).await;
    assert_eq!(pool.waiting(), 2);

    // More streams: waiting requests are sent at once, although no stream has ended.
    peer.allow_streams(3).await;
    let (two, three) = (tokio::spawn(two), tokio::spawn(three));
    let (second, third) = (peer.request().await, peer.request().await);
    assert_eq!(pool.waiting(), 0);
    for stream in [stream, second, third] {
        peer.answer(stream).await;
    }
    for reply in [one, two, three] {
        read(reply.await.unwrap()).await;
    }

    // Fewer streams: no more than that are used.
    peer.allow_streams(1).await;
    peer.settled().await;
    let busy = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    let mut next = begin(&forwarder, request(addr)).await;
    assert!(poll_once(&mut next).await.is_pending());
    assert_eq!(pool.waiting(), 1);
    peer.answer(stream).await;
    read(busy.await.unwrap()).await;
    let next = tokio::spawn(next);
    let stream = peer.request().await;
    peer.answer(stream).await;
    read(next.await.unwrap()).await;
    assert_eq!(pool.connections(), 1);
}

#[tokio::test]
async fn rfc9113_6_8_request_above_a_goaway_is_sent_again() {
    for method in [Method::GET, Method::POST] {
        let (listener, addr) = listen().await;
        let forwarder = Forwarder::default();
        let mut peer = first(&forwarder, &listener, addr).await;
        let mut again = request(addr);
        *again.method_mut() = method;
        let reply = sent(&forwarder, again);
        let stream = peer.request().await;
        peer.go_away(stream - 2).await;
        // The peer has not processed it: another connection serves it.
        let mut other = Peer::accept(&listener, 100).await;
        let stream = other.request().await;
        other.answer(stream).await;
        read(reply.await.unwrap()).await;
        peer.ended().await;
    }
}

#[tokio::test]
async fn rfc9113_6_8_request_below_a_goaway_is_answered_or_lost() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    // Answered, after the GOAWAY.
    let reply = sent(&forwarder, posted(addr, "pay"));
    let stream = peer.request().await;
    peer.go_away(stream).await;
    peer.answer(stream).await;
    read(reply.await.unwrap()).await;
    peer.ended().await;

    // Lost: the peer may have acted on it.
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, posted(addr, "pay"));
    let stream = peer.request().await;
    peer.go_away(stream).await;
    drop(peer);
    let error = reply.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    assert!(!error.may_retry());
}

#[tokio::test]
async fn consumed_body_is_not_sent_again_and_the_error_is_retryable() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, posted(addr, "pay"));
    let stream = peer.request().await;
    while peer.next().await.unwrap().kind != DATA {}
    peer.go_away(stream - 2).await;
    let error = reply.await.unwrap().unwrap_err();
    // A caller that still has the body may send it again.
    assert!(error.may_retry(), "{error:?}");
}

#[tokio::test]
async fn rfc9110_9_2_2_get_survives_a_dead_connection_and_post_is_not_repeated() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    let mut reply = sent(&forwarder, request(addr));
    peer.request().await;
    drop(peer);
    let mut peer = tokio::select! {
        reply = &mut reply => panic!("{reply:?}"),
        peer = Peer::accept(&listener, 100) => peer,
    };
    let stream = peer.request().await;
    peer.answer(stream).await;
    read(reply.await.unwrap()).await;

    for body in ["pay", ""] {
        let reply = sent(&forwarder, posted(addr, body));
        peer.request().await;
        drop(peer);
        let error = reply.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionTerminated, "{error:?}");
        assert!(!error.may_retry());
        peer = first(&forwarder, &listener, addr).await;
    }
}

#[tokio::test]
async fn connection_that_dies_within_a_response_is_an_error() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    peer.begin_answer(stream).await;
    let response = reply.await.unwrap().unwrap();
    drop(peer);
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn rfc9113_8_7_refused_stream_is_sent_again_a_limited_number_of_times() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    for method in [Method::GET, Method::POST] {
        let mut refused = request(addr);
        *refused.method_mut() = method;
        let reply = sent(&forwarder, refused);
        let stream = peer.request().await;
        peer.reset(stream, REFUSED_STREAM).await;
        let stream = peer.request().await;
        peer.answer(stream).await;
        read(reply.await.unwrap()).await;
    }
    let reply = sent(&forwarder, request(addr));
    for _ in 0..2 {
        let stream = peer.request().await;
        peer.reset(stream, REFUSED_STREAM).await;
    }
    // The last time on a new connection.
    let mut other = Peer::accept(&listener, 100).await;
    let stream = other.request().await;
    other.reset(stream, REFUSED_STREAM).await;
    let error = reply.await.unwrap().unwrap_err();
    assert!(error.may_retry(), "{error:?}");
}

/// After any other reset the peer may have acted on the request.
#[tokio::test]
async fn stream_reset_for_another_reason_is_not_sent_again() {
    const INTERNAL_ERROR: u32 = 2;
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    for request in [request(addr), posted(addr, "")] {
        let reply = sent(&forwarder, request);
        let stream = peer.request().await;
        peer.reset(stream, INTERNAL_ERROR).await;
        let error = reply.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
        assert!(!error.may_retry());
    }
    // The connection is still usable.
    let reply = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    peer.answer(stream).await;
    read(reply.await.unwrap()).await;
    assert_eq!(pool(&forwarder, addr).connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn peer_without_ping_answers_is_dead() {
    support::fine_clock();
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::builder().response_header_timeout(None).build();
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, posted(addr, "pay"));
    peer.request().await;
    peer.is_well = false;
    let begun = Instant::now();
    peer.ended().await;
    // 20 s without a frame, 10 s for the answer.
    let waited = begun.elapsed().as_secs_f64();
    assert!((29.0..32.0).contains(&waited), "{waited}");
    let error = reply.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReadTimeout, "{error:?}");
    assert!(!error.may_retry());
    assert_eq!(pool(&forwarder, addr).connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_peer_with_ping_answers_is_alive() {
    support::fine_clock();
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::builder().response_header_timeout(None).build();
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    let later = tokio::time::sleep(Duration::from_secs(100));
    tokio::select! {
        frame = peer.next() => panic!("{frame:?}"),
        () = later => {}
    }
    peer.answer(stream).await;
    read(reply.await.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn retired_connection_completes_its_streams() {
    support::fine_clock();
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::builder()
        .max_lifetime(Duration::from_secs(10))
        .build();
    let mut old = first(&forwarder, &listener, addr).await;
    let under_way = sent(&forwarder, request(addr));
    let stream = old.request().await;
    old.begin_answer(stream).await;
    let under_way = under_way.await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;

    // Later requests use another connection.
    let mut young = first(&forwarder, &listener, addr).await;
    old.end_answer(stream, b"at last").await;
    assert_eq!(read(under_way).await.0, "at last");
    old.ended().await;
    let reply = sent(&forwarder, request(addr));
    let stream = young.request().await;
    young.answer(stream).await;
    read(reply.await.unwrap()).await;
    assert_eq!(pool(&forwarder, addr).connections(), 1);
}

#[tokio::test]
async fn rfc9113_8_1_early_response_reaches_an_uploading_client() {
    let refuse = Behaviour::Status(StatusCode::PAYLOAD_TOO_LARGE);
    let origin = Origin::builder().behaviour(refuse).start().await.unwrap();
    let forwarder = Forwarder::default();
    for _ in 0..3 {
        let piece = || Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[b'x'; 10_000])));
        let endless = StreamBody::new(futures_util::stream::repeat_with(piece));
        let mut upload = posted(origin.addr(), "");
        *upload.body_mut() = Body::new(endless);
        let response = send(&forwarder, upload).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        read(Ok(response)).await;
    }
    // Only the stream is closed.
    assert_eq!(origin.connections(), 1);
    assert!(
        origin
            .requests()
            .iter()
            .all(|r| r.body_end != BodyEnd::Complete)
    );
}

#[tokio::test]
async fn cancelled_request_resets_its_stream_only() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    reply.abort();
    let frame = peer.next().await.unwrap();
    assert_eq!((frame.kind, frame.stream), (RST_STREAM, stream));
    let reply = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    peer.answer(stream).await;
    read(reply.await.unwrap()).await;
}

#[tokio::test]
async fn rfc9110_15_2_interim_responses_are_dropped() {
    let (listener, addr) = listen().await;
    let forwarder = Forwarder::default();
    let mut peer = first(&forwarder, &listener, addr).await;
    let reply = sent(&forwarder, request(addr));
    let stream = peer.request().await;
    for _ in 0..3 {
        peer.hint(stream).await;
    }
    peer.answer(stream).await;
    let response = reply.await.unwrap();
    assert_eq!(response.as_ref().unwrap().status(), StatusCode::OK);
    read(response).await;
}
