//! Failures, and their errors.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::error::Error as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Request;
use http_body_util::StreamBody;
use mesh_ingress_core::{Body, BoxError, ErrorKind, ErrorOrigin, Protocol};
use mesh_ingress_forward::{Forwarder, RetryPolicy};
use mesh_ingress_testkit::{Gate, RawOrigin, Step};
use support::{get, send, to};
use tokio::time::Instant;

/// A port without a listener, on an address that no other test uses: another test could listen on a
/// free port of a shared address.
fn closed_port() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 81, high, low);
    let socket = std::net::TcpListener::bind((own, 0)).unwrap();
    socket.local_addr().unwrap()
}

#[tokio::test]
async fn refused() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let addr = closed_port();
        let error = send(&Forwarder::default(), to(addr, protocol, get(addr)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(error.origin(), ErrorOrigin::Upstream);
        assert!(error.may_retry(), "nothing was sent");
        let report = error.report().to_string();
        assert!(report.contains(&addr.to_string()), "{report}");
        assert!(report.contains("ready endpoints"), "{report}");
    }
}

#[tokio::test]
async fn without_an_upstream() {
    let request = Request::get("/").body(Body::empty()).unwrap();
    let error = send(&Forwarder::default(), request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProxyConfigurationError);
    assert!(
        error
            .source()
            .unwrap()
            .to_string()
            .contains("ServiceUpstreamLayer")
    );
}

#[tokio::test]
async fn http2_request_without_an_authority() {
    let request = Request::get("/").body(Body::empty()).unwrap();
    let request = to(closed_port(), Protocol::Http2, request);
    let error = send(&Forwarder::default(), request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpRequestError);
}

async fn reply_to(script: Vec<Step>) -> ErrorKind {
    let origin = RawOrigin::start([script]).await.unwrap();
    let error = send(&Forwarder::default(), get(origin.addr()))
        .await
        .unwrap_err();
    assert!(error.source().is_some());
    error.kind()
}

#[tokio::test]
async fn malformed_responses_have_their_error_types() {
    let close = vec![Step::ReadHead, Step::Close];
    assert_eq!(reply_to(close).await, ErrorKind::ConnectionTerminated);
    let reset = vec![Step::ReadHead, Step::Reset];
    assert_eq!(reply_to(reset).await, ErrorKind::ConnectionTerminated);
    let half = vec![Step::ReadHead, Step::send("HTTP/1.1 200"), Step::Close];
    assert_eq!(reply_to(half).await, ErrorKind::ConnectionTerminated);
    let noise = vec![Step::ReadHead, Step::send("SSH-2.0-OpenSSH\r\n\r\n")];
    assert_eq!(reply_to(noise).await, ErrorKind::HttpProtocolError);
    let control = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\nx: \0\r\n\r\n"),
    ];
    assert_eq!(reply_to(control).await, ErrorKind::HttpProtocolError);
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70_000));
    let large = vec![Step::ReadHead, Step::send(large)];
    assert_eq!(
        reply_to(large).await,
        ErrorKind::HttpResponseHeaderSectionSize
    );
    let unasked =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let unasked = vec![Step::ReadHead, Step::send(unasked)];
    assert_eq!(reply_to(unasked).await, ErrorKind::HttpProtocolError);
}

#[tokio::test(start_paused = true)]
async fn silent_origin_times_out() {
    let never = Gate::new();
    let origin = RawOrigin::start([vec![Step::ReadHead, Step::Hold(never)]])
        .await
        .unwrap();
    let forwarder = Forwarder::builder()
        .response_header_timeout(Duration::from_secs(7))
        .build();
    let begun = Instant::now();
    let error = send(&forwarder, get(origin.addr())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout);
    assert!(!error.may_retry());
    let waited = begun.elapsed();
    assert!((7.0..7.5).contains(&waited.as_secs_f64()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn stalled_client_is_an_error_of_the_client() {
    let never = Gate::new();
    let origin = RawOrigin::start([vec![Step::ReadHead, Step::Hold(never)]])
        .await
        .unwrap();
    let forwarder = Forwarder::builder()
        .response_header_timeout(Duration::from_secs(7))
        .build();
    let silent = StreamBody::new(futures_util::stream::pending::<Result<_, BoxError>>());
    let request = Request::post("http://web/")
        .body(Body::new(silent))
        .unwrap();
    let request = to(origin.addr(), Protocol::Http1, request);
    let error = send(&forwarder, request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpRequestError);
    assert_eq!(error.origin(), ErrorOrigin::Client);
    assert_eq!(error.status().unwrap(), http::StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn failed_request_body_is_an_error_of_the_client() {
    let origin = RawOrigin::start([vec![Step::ReadToEnd]]).await.unwrap();
    let frames: [Result<_, BoxError>; 2] = [
        Ok(http_body::Frame::data(bytes::Bytes::from_static(b"half"))),
        Err("the client went away".into()),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = Request::post("http://web/").body(Body::new(body)).unwrap();
    let request = to(origin.addr(), Protocol::Http1, request);
    let error = send(&Forwarder::default(), request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpRequestError);
    assert_eq!(error.origin(), ErrorOrigin::Client);
    // The origin's part must not look like a complete request.
    origin.wait_for_closed(0).await;
    assert!(!origin.received(0).ends_with(b"0\r\n\r\n"));
}

/// A listener whose queue is full: a SYN to it gets no answer.
fn blackhole() -> (std::net::TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    // One connection waits to be accepted, the next one hangs.
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        queued.push(stream);
    }
    (listener, queued, addr)
}

fn to_both(first: SocketAddr, second: SocketAddr) -> Request<Body> {
    let mut request = get(first);
    let upstream = mesh_ingress_core::Upstream::from_addresses([first, second]).unwrap();
    request.extensions_mut().insert(upstream);
    request
}

#[tokio::test]
async fn rfc8305_second_address_serves_if_the_first_fails() {
    let origin = mesh_ingress_testkit::Origin::start().await.unwrap();
    let request = to_both(closed_port(), origin.addr());
    assert!(send(&Forwarder::default(), request).await.is_ok());

    // An address that does not answer is not waited for either.
    let (_listener, _queued, silent) = blackhole();
    let forwarder = Forwarder::builder().connect_timeout(None).build();
    assert!(
        send(&forwarder, to_both(silent, origin.addr()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn connection_that_is_never_accepted_times_out() {
    let (_listener, _queued, silent) = blackhole();
    let forwarder = Forwarder::builder()
        .connect_timeout(Duration::from_millis(50))
        .build();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let error = send(&forwarder, to(silent, protocol, get(silent)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionTimeout);
        assert!(error.may_retry());
    }
}

#[tokio::test(start_paused = true)]
async fn server_without_http2_is_detected_before_a_request_is_sent() {
    let silent = Gate::new();
    let origin = RawOrigin::start([vec![Step::Hold(silent)]]).await.unwrap();
    let request = to(origin.addr(), Protocol::Http2, get(origin.addr()));
    let error = send(&Forwarder::default(), request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionTimeout);
    assert!(error.may_retry());

    let http1 = Step::send("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
    let origin = RawOrigin::start([vec![http1, Step::Close]]).await.unwrap();
    let request = to(origin.addr(), Protocol::Http2, get(origin.addr()));
    let error = send(&Forwarder::default(), request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpProtocolError);
    assert!(error.may_retry());
    assert!(
        error
            .report()
            .to_string()
            .contains("does this port speak h2c")
    );
}

#[tokio::test(start_paused = true)]
async fn origin_that_stops_within_a_body_times_out() {
    use http_body_util::BodyExt as _;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = Gate::new();
        let behaviour = mesh_ingress_testkit::Behaviour::GatedBody(gate);
        let origin = mesh_ingress_testkit::Origin::builder().behaviour(behaviour);
        let origin = origin.start().await.unwrap();
        let forwarder = Forwarder::builder()
            .body_idle_timeout(Duration::from_secs(7))
            .build();
        let response = send(&forwarder, to(origin.addr(), protocol, get(origin.addr()))).await;
        let begun = Instant::now();
        let error = response.unwrap().into_body().collect().await.unwrap_err();
        let error = error.downcast_ref::<mesh_ingress_core::Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReadTimeout);
        let waited = begun.elapsed();
        assert!((6.9..7.5).contains(&waited.as_secs_f64()), "{waited:?}");
    }
}

#[tokio::test]
async fn refused_connection_is_retried_if_configured() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let addr = closed_port();
        let forwarder = Forwarder::builder()
            .connect_retry(Duration::from_secs(4))
            .build();
        let mut waiting = std::pin::pin!(send(&forwarder, to(addr, protocol, get(addr))));
        // Refused at least once before the port is open.
        tokio::select! {
            biased;
            done = &mut waiting => panic!("{done:?}"),
            () = tokio::task::yield_now() => {}
        }
        let _origin = mesh_ingress_testkit::Origin::builder()
            .bind(addr)
            .await
            .unwrap();
        assert!(waiting.await.is_ok(), "{protocol:?}");
    }
}

/// Time is paused: it advances only while all tasks wait.
#[tokio::test(start_paused = true)]
async fn deadline_covers_all_attempts() {
    let silent = || vec![Step::ReadHead];
    let origin = RawOrigin::start([silent(), silent(), silent(), silent()])
        .await
        .unwrap();
    let limit = Duration::from_millis(500);
    let policy = RetryPolicy::builder()
        .attempts(4)
        .per_try_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let forwarder = Forwarder::builder()
        .request_timeout(limit)
        .retry(policy)
        .build();
    let begun = Instant::now();
    let error = send(&forwarder, get(origin.addr())).await.unwrap_err();
    let took = begun.elapsed();
    assert!(took <= limit + Duration::from_millis(1), "{took:?}");
    assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout);
    assert!(origin.connections() > 1, "it was tried again");
}
