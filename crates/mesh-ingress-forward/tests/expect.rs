//! `Expect: 100-continue` (RFC 9110 §10.1.1), and interim responses.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_ingress_core::{Body, BoxError, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Closed, Gate, RawOrigin, Step};
use support::{get, post, read, send, to};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// A body that counts how often it was polled.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicUsize>);

impl Asked {
    fn body(&self) -> Body {
        let asked = Arc::clone(&self.0);
        let frames = futures_util::stream::iter([Bytes::from_static(b"hello")]);
        let frames = futures_util::StreamExt::map(frames, move |data| {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok::<_, BoxError>(Frame::data(data))
        });
        Body::new(StreamBody::new(frames))
    }

    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn expecting(origin: &RawOrigin, body: Body) -> Request<Body> {
    let mut request = post(origin.addr(), body);
    let headers = request.headers_mut();
    headers.insert("expect", HeaderValue::from_static("100-continue"));
    request
}

fn is_head(received: &[u8]) -> bool {
    received.ends_with(b"\r\n\r\n")
}

async fn origin(script: Vec<Step>) -> RawOrigin {
    RawOrigin::start([script]).await.unwrap()
}

fn chunked() -> Step {
    Step::ReadUntil(Bytes::from_static(b"0\r\n\r\n"))
}

#[tokio::test]
async fn rfc9110_10_1_1_body_waits_for_100_continue() {
    let gate = Gate::new();
    let origin = origin(vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send(CONTINUE),
        chunked(),
        Step::send(OK),
    ])
    .await;
    let forwarder = Forwarder::default();
    let asked = Asked::default();
    let request = expecting(&origin, asked.body());
    let sent = tokio::spawn(async move { read(send(&forwarder, request).await).await });
    origin.wait_for_received(0, is_head).await;
    let head = String::from_utf8(origin.received(0)).unwrap();
    assert_eq!(
        head.matches("expect: 100-continue\r\n").count(),
        1,
        "{head}"
    );
    assert_eq!(asked.times(), 0);
    gate.open();
    assert_eq!(sent.await.unwrap().0, "ok");
    assert_eq!(asked.times(), 1);
    assert!(origin.received(0).ends_with(b"5\r\nhello\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn rfc9110_10_1_1_final_status_prevents_the_body() {
    for status in [
        "401 Unauthorized",
        "413 Content Too Large",
        "417 Expectation Failed",
    ] {
        let refusal = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");
        let origin = RawOrigin::start([
            vec![Step::ReadHead, Step::send(refusal)],
            vec![Step::ReadHead, Step::send(OK)],
        ])
        .await
        .unwrap();
        let forwarder = Forwarder::default();
        let asked = Asked::default();
        let response = send(&forwarder, expecting(&origin, asked.body())).await;
        assert_eq!(response.as_ref().unwrap().status().as_str(), &status[..3]);
        assert_eq!(read(response).await.0, "no");
        // It is unknown whether the body follows: the connection cannot be reused.
        assert_eq!(origin.wait_for_closed(0).await, Closed::ByClient);
        assert_eq!(asked.times(), 0);
        assert!(is_head(&origin.received(0)));
        read(send(&forwarder, get(origin.addr())).await).await;
        assert_eq!(origin.connections(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn rfc9110_10_1_1_origin_that_ignores_the_expectation_gets_the_body_after_a_timeout() {
    support::fine_clock();
    let origin = origin(vec![Step::ReadHead, chunked(), Step::send(OK)]).await;
    let asked = Asked::default();
    let begun = Instant::now();
    let request = expecting(&origin, asked.body());
    let (body, _) = read(send(&Forwarder::default(), request).await).await;
    assert_eq!(body, "ok");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn rfc9110_10_1_1_slow_refusal_does_not_release_the_body() {
    support::fine_clock();
    let gate = Gate::new();
    let origin = origin(vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\n"),
        Step::Hold(gate.clone()),
        Step::send("no"),
    ])
    .await;
    let asked = Asked::default();
    let response = send(&Forwarder::default(), expecting(&origin, asked.body())).await;
    let opened = async {
        // Longer than the timeout of the expectation.
        tokio::time::sleep(Duration::from_secs(30)).await;
        gate.open();
    };
    let (body, ()) = tokio::join!(read(response), opened);
    assert_eq!(body.0, "no");
    assert_eq!(asked.times(), 0);
    origin.wait_for_closed(0).await;
    assert!(is_head(&origin.received(0)));
}

#[tokio::test]
async fn expectation_without_a_body_is_not_forwarded() {
    let origin = origin(vec![Step::ReadHead, Step::send(OK)]).await;
    let request = expecting(&origin, Body::empty());
    read(send(&Forwarder::default(), request).await).await;
    let head = String::from_utf8(origin.received(0)).unwrap();
    assert!(!head.contains("expect"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn rfc9110_10_1_1_expectation_of_an_http10_client_is_ignored() {
    support::fine_clock();
    let origin = origin(vec![Step::ReadHead, chunked(), Step::send(OK)]).await;
    let asked = Asked::default();
    let mut request = expecting(&origin, asked.body());
    *request.version_mut() = Version::HTTP_10;
    let begun = Instant::now();
    read(send(&Forwarder::default(), request).await).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    let received = String::from_utf8(origin.received(0)).unwrap();
    assert!(!received.contains("expect"), "{received}");
}

/// Over HTTP/2 the expectation is not sent: the body follows at once.
#[tokio::test]
async fn http2_upstream_gets_the_body_without_expectation() {
    let origin = mesh_ingress_testkit::Origin::start().await.unwrap();
    let mut request = post(origin.addr(), "hello");
    let expect = HeaderValue::from_static("100-continue");
    request.headers_mut().insert("expect", expect);
    let request = to(origin.addr(), Protocol::Http2, request);
    read(send(&Forwarder::default(), request).await).await;
    let request = &origin.requests()[0];
    assert_eq!((request.header("expect"), request.body_len), (None, 5));
}

/// A hyper server with only a forwarder behind it.
async fn gateway(upstream: Upstream) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let forwarder = Forwarder::default();
    let forward = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(upstream.clone());
        tower::ServiceExt::oneshot(forwarder.clone(), request)
    });
    tokio::spawn(async move {
        let serving = hyper::server::conn::http1::Builder::new();
        let _ = serving
            .serve_connection(TokioIo::new(accepted), forward)
            .await;
    });
    client
}

async fn read_head(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !is_head(&head) {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

const HEAD: &[u8] =
    b"POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn rfc9110_10_1_1_end_to_end_expectation_does_not_deadlock() {
    let gate = Gate::new();
    let origin = origin(vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send(CONTINUE),
        Step::ReadBody(5),
        Step::send(OK),
    ])
    .await;
    let mut client = gateway(Upstream::new(origin.addr())).await;
    client.write_all(HEAD).await.unwrap();
    // The client has not sent its body, and the origin has the head.
    origin.wait_for_received(0, is_head).await;
    let mut nothing = [0; 1];
    let early = client.try_read(&mut nothing);
    assert!(
        early.is_err(),
        "100 Continue before that of the origin: {early:?}"
    );
    gate.open();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 100 "));
    client.write_all(b"hello").await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    assert!(origin.received(0).ends_with(b"\r\n\r\nhello"));
}

#[tokio::test]
async fn rfc9110_10_1_1_end_to_end_refusal_replaces_the_100() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    let origin = origin(vec![Step::ReadHead, Step::send(refusal)]).await;
    let mut client = gateway(Upstream::new(origin.addr())).await;
    client.write_all(HEAD).await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 413 "));
    origin.wait_for_closed(0).await;
    assert!(is_head(&origin.received(0)));
}

#[tokio::test]
async fn rfc9110_15_2_interim_responses_are_skipped() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    for interim in [
        early.to_owned(),
        format!("{CONTINUE}{early}{early}"),
        "HTTP/1.1 102 Processing\r\n\r\n".to_owned(),
        "HTTP/1.1 199 Whatever\r\ncontent-length: 5\r\n\r\n".to_owned(),
    ] {
        let answer = vec![Step::ReadHead, Step::send(format!("{interim}{OK}"))];
        let twice = [answer.clone(), answer].concat();
        let origin = origin(twice).await;
        let forwarder = Forwarder::default();
        for _ in 0..2 {
            let response = send(&forwarder, get(origin.addr())).await;
            let head = response.as_ref().unwrap();
            assert_eq!(head.status(), StatusCode::OK, "{interim}");
            // hyper's servers cannot forward it: it is dropped, not mixed into the final response.
            assert!(!head.headers().contains_key("link"), "{interim}");
            assert_eq!(read(response).await.0, "ok");
        }
        assert_eq!(origin.connections(), 1, "{interim}");
    }
}

#[tokio::test]
async fn rfc9110_15_2_endless_interim_responses_are_an_error() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
    let all = early.repeat(20_000);
    let origin = origin(vec![Step::ReadHead, Step::send(all), Step::send(OK)]).await;
    let forwarder = Forwarder::default();
    let error = send(&forwarder, get(origin.addr())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpProtocolError);
    assert!(
        error.report().to_string().contains("without end"),
        "{}",
        error.report()
    );
    assert_eq!(forwarder.connections(), 0);
    // Each request has its own count.
    let few = format!("{}{OK}", early.repeat(1_000));
    let script: Vec<_> = (0..10)
        .flat_map(|_| [Step::ReadHead, Step::send(few.clone())])
        .collect();
    let origin = RawOrigin::start([script]).await.unwrap();
    for _ in 0..10 {
        read(send(&forwarder, get(origin.addr())).await).await;
    }
    assert_eq!(origin.connections(), 1);
}

/// The same without an expectation.
#[tokio::test]
async fn early_final_response_reaches_the_client_during_an_upload() {
    let refusal = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno";
    let origin = origin(vec![Step::ReadHead, Step::send(refusal)]).await;
    let forwarder = Forwarder::default();
    let piece = || Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[b'x'; 10_000])));
    let endless = StreamBody::new(futures_util::stream::repeat_with(piece));
    let request = post(origin.addr(), Body::new(endless));
    let response = send(&forwarder, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "no"
    );
    origin.wait_for_closed(0).await;
    assert_eq!(forwarder.connections(), 0);
}
