//! When a connection is reused, and when not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::num::NonZeroUsize;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use mesh_ingress_core::{ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Behaviour, Gate, Origin, RawOrigin, Step};
use support::{get, post, read, send, to};

#[tokio::test]
async fn sequential_requests_share_a_connection() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::default();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let before = origin.connections();
        for _ in 0..20 {
            let request = to(origin.addr(), protocol, post(origin.addr(), "hello"));
            read(send(&forwarder, request).await).await;
        }
        assert_eq!(origin.connections() - before, 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn connection_is_reused_after_trailers() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-checksum", http::HeaderValue::from_static("abc"));
    let origin = Origin::builder()
        .behaviour(Behaviour::Trailers(trailers))
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::default();
    for _ in 0..5 {
        let mut request = post(origin.addr(), "hello");
        let te = http::HeaderValue::from_static("trailers");
        request.headers_mut().insert("te", te);
        let mut body = send(&forwarder, request).await.unwrap().into_body();
        // As servers do, which do not poll after the trailers.
        while !body.frame().await.unwrap().unwrap().is_trailers() {}
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn response_without_a_body_returns_the_connection_at_once() {
    let origin = Origin::builder()
        .at("/none", Behaviour::Status(StatusCode::NO_CONTENT))
        .at("/same", Behaviour::Status(StatusCode::NOT_MODIFIED))
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::default();
    for (method, path) in [
        (Method::GET, "/none"),
        (Method::HEAD, "/"),
        (Method::GET, "/same"),
    ] {
        let mut request = get(origin.addr());
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://web{path}").parse().unwrap();
        // Dropped without being polled.
        drop(send(&forwarder, request).await.unwrap());
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn concurrent_requests_have_a_connection_each_and_max_idle_are_kept() {
    for shards in [1, 2] {
        check_max_idle(NonZeroUsize::new(shards).unwrap()).await;
    }
}

async fn check_max_idle(shards: NonZeroUsize) {
    let gate = Gate::new();
    let origin = Origin::builder()
        .behaviour(Behaviour::Gated(gate.clone()))
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::builder().max_idle(3).shards(shards).build();
    let requests: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn({
                let forwarder = forwarder.clone();
                let request = get(origin.addr());
                async move { read(send(&forwarder, request).await).await }
            })
        })
        .collect();
    origin.wait_for_requests(10).await;
    assert_eq!(origin.connections(), 10);
    gate.open();
    for request in requests {
        request.await.unwrap();
    }
    origin.wait_for_open_connections(3).await;
    assert_eq!(forwarder.pool(&Upstream::new(origin.addr())).idle(), 3);
}

#[tokio::test]
async fn http2_streams_beyond_the_limit_get_another_connection() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .behaviour(Behaviour::Gated(gate.clone()))
        .max_concurrent_streams(4)
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::default();
    let requests: Vec<_> = (0..10)
        .map(|_| {
            tokio::spawn({
                let forwarder = forwarder.clone();
                let request = to(origin.addr(), Protocol::Http2, get(origin.addr()));
                async move { read(send(&forwarder, request).await).await }
            })
        })
        .collect();
    origin.wait_for_requests(10).await;
    gate.open();
    for request in requests {
        request.await.unwrap();
    }
    assert!(origin.connections() >= 3, "{}", origin.connections());
}

#[tokio::test]
async fn dropped_response_closes_its_connection() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .at("/head", Behaviour::Gated(gate.clone()))
        .at("/body", Behaviour::GatedBody(gate.clone()))
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::default();
    // Cancelled before the head.
    let mut request = get(origin.addr());
    *request.uri_mut() = "http://web/head".parse().unwrap();
    let waiting = tokio::spawn({
        let forwarder = forwarder.clone();
        async move { send(&forwarder, request).await.map(drop) }
    });
    origin.wait_for_requests(1).await;
    waiting.abort();
    origin.wait_for_open_connections(0).await;
    // Dropped within the body.
    let mut request = get(origin.addr());
    *request.uri_mut() = "http://web/body".parse().unwrap();
    let response = send(&forwarder, request).await.unwrap();
    assert_eq!(origin.open_connections(), 1);
    drop(response);
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn rfc9112_9_connection_is_not_reused_after_a_doubtful_exchange() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (case, reply) in [
        (
            "close",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        ),
        (
            "two Connection lines",
            "HTTP/1.1 200 OK\r\nconnection: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        ),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (
            "extra bytes",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        ),
    ] {
        let origin = RawOrigin::start([
            vec![Step::ReadHead, Step::send(reply)],
            vec![Step::ReadHead, Step::send(ok)],
        ])
        .await
        .unwrap();
        let forwarder = Forwarder::default();
        for _ in 0..2 {
            let (body, _) = read(send(&forwarder, get(origin.addr())).await).await;
            assert_eq!(body, "ok", "{case}");
        }
        assert_eq!(origin.connections(), 2, "{case}");
    }
}

#[tokio::test]
async fn close_delimited_body_ends_with_its_connection() {
    let origin = RawOrigin::start([vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\n\r\nall there is"),
        Step::Close,
    ]])
    .await
    .unwrap();
    let forwarder = Forwarder::default();
    let (body, _) = read(send(&forwarder, get(origin.addr())).await).await;
    assert_eq!(body, "all there is");
    assert_eq!(forwarder.pool(&Upstream::new(origin.addr())).idle(), 0);
}

#[tokio::test]
async fn rfc9112_8_truncated_body_is_an_error() {
    for reply in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let origin = RawOrigin::start([vec![Step::ReadHead, Step::send(reply), Step::Close]])
            .await
            .unwrap();
        let response = send(&Forwarder::default(), get(origin.addr()))
            .await
            .unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        let error = error.downcast_ref::<mesh_ingress_core::Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    }
}

/// An origin that closes a kept connection just when the next request is in flight.
async fn closing_origin() -> RawOrigin {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    RawOrigin::start([
        vec![Step::ReadHead, Step::send(ok), Step::ReadHead, Step::Close],
        vec![Step::ReadHead, Step::send(ok)],
    ])
    .await
    .unwrap()
}

#[tokio::test]
async fn rfc9110_9_2_2_safe_request_survives_the_keep_alive_race() {
    let origin = closing_origin().await;
    let forwarder = Forwarder::default();
    for _ in 0..2 {
        let mut request = get(origin.addr());
        request
            .headers_mut()
            .insert("x-kept", http::HeaderValue::from_static("1"));
        let (body, _) = read(send(&forwarder, request).await).await;
        assert_eq!(body, "ok");
    }
    assert_eq!(origin.connections(), 2);
    assert_eq!(
        origin.received(1),
        b"GET / HTTP/1.1\r\nx-kept: 1\r\nhost: web.default.svc.cluster.local\r\n\r\n"
    );
}

#[tokio::test]
async fn rfc9110_9_2_2_post_is_never_sent_twice() {
    let origin = closing_origin().await;
    let forwarder = Forwarder::default();
    read(send(&forwarder, get(origin.addr())).await).await;
    let error = send(&forwarder, post(origin.addr(), "pay"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    assert!(!error.may_retry());
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn connection_closed_while_idle_fails_no_request() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::default();
    read(send(&forwarder, post(origin.addr(), "1")).await).await;
    origin.cut_connections();
    origin.wait_for_open_connections(0).await;
    // Not even a POST fails: the closed connection is detected before a byte is sent.
    read(send(&forwarder, post(origin.addr(), "2")).await).await;
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn max_lifetime_and_max_requests_retire_connections() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::builder().max_requests(1).build();
    for _ in 0..5 {
        read(send(&forwarder, get(origin.addr())).await).await;
    }
    assert_eq!(origin.connections(), 5);

    let forwarder = Forwarder::builder()
        .max_lifetime(Duration::from_nanos(1))
        .build();
    for _ in 0..5 {
        read(send(&forwarder, get(origin.addr())).await).await;
    }
    assert_eq!(origin.connections(), 10);
}

#[tokio::test(start_paused = true)]
async fn idle_timeout_closes_connections() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::builder()
        .idle_timeout(Duration::from_secs(3))
        .build();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        read(send(&forwarder, to(origin.addr(), protocol, get(origin.addr()))).await).await;
    }
    // Paused time advances while all tasks wait.
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn drained_upstream_keeps_no_connection() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::default();
    let pool = forwarder.pool(&Upstream::new(origin.addr()));
    read(send(&forwarder, get(origin.addr())).await).await;
    let under_way = send(&forwarder, get(origin.addr())).await;
    pool.drain();
    read(under_way).await;
    origin.wait_for_open_connections(0).await;
    read(send(&forwarder, get(origin.addr())).await).await;
    assert_eq!(pool.idle(), 1);
}
