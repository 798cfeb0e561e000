//! Timeouts: each of them, and none where they are off.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/pod.rs"]
mod pod;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_ingress_core::{Body, BoxError, Error, ErrorKind, Protocol};
use mesh_ingress_forward::{Forwarder, ForwarderBuilder};
use mesh_ingress_testkit::{Behaviour, Gate, Origin, RawOrigin, Step};
use pod::Pod;
use support::{Waiting, at, begin, get, post, read, send, to};
use tokio::task::JoinSet;
use tokio::time::Instant;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const HOUR: Duration = Duration::from_secs(3600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Without any timeout.
fn without_timeouts() -> ForwarderBuilder {
    Forwarder::builder()
        .queue_timeout(None)
        .connect_timeout(None)
        .response_header_timeout(None)
        .request_body_timeout(None)
        .body_idle_timeout(None)
        .request_timeout(None)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Checks that it fails after `seconds`.
async fn fails_after(seconds: f64, what: impl Future<Output = Error>) -> Error {
    let begun = Instant::now();
    let error = what.await;
    let took = begun.elapsed().as_secs_f64();
    assert!(
        (seconds..seconds + 0.2).contains(&took),
        "{took}: {error:?}"
    );
    error
}

async fn refusal(forwarder: &Forwarder, request: Request<Body>) -> Error {
    send(forwarder, request).await.unwrap_err()
}

async fn broken(forwarder: &Forwarder, request: Request<Body>) -> Error {
    let response = send(forwarder, request).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    *error.downcast::<Error>().unwrap()
}

/// A body of `pieces` frames, with a `pause` before each.
fn trickle(pieces: usize, pause: Duration) -> Body {
    let frames = stream::iter(0..pieces).then(move |_| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"drop")))
    });
    Body::new(StreamBody::new(frames))
}

/// A body that stalls after its first frame.
fn begun() -> Body {
    let first = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"first")))]);
    Body::new(StreamBody::new(first.chain(stream::pending())))
}

fn endless() -> Body {
    let piece = || Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[b'x'; 100_000])));
    Body::new(StreamBody::new(stream::repeat_with(piece)))
}

fn upload(addr: SocketAddr, protocol: Protocol, body: Body) -> Request<Body> {
    to(addr, protocol, post(addr, body))
}

async fn origin(behaviour: Behaviour) -> Origin {
    Origin::builder()
        .behaviour(behaviour)
        .start()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn response_header_timeout_starts_at_the_end_of_the_request() {
    support::fine_clock();
    for protocol in BOTH {
        let origin = origin(Behaviour::Gated(Gate::new())).await;
        let forwarder = without_timeouts().response_header_timeout(secs(7)).build();
        let request = to(origin.addr(), protocol, get(origin.addr()));
        let error = fails_after(7.0, refusal(&forwarder, request)).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{protocol:?}");
        assert!(!error.may_retry());

        // The twenty seconds of the upload do not count for the origin.
        let slow = upload(origin.addr(), protocol, trickle(4, secs(5)));
        let error = fails_after(27.0, refusal(&forwarder, slow)).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_client_times_out_with_408() {
    support::fine_clock();
    for protocol in BOTH {
        let origin = origin(Behaviour::Drain).await;
        let forwarder = without_timeouts().request_body_timeout(secs(7)).build();
        let request = upload(origin.addr(), protocol, begun());
        let error = fails_after(7.0, refusal(&forwarder, request)).await;
        assert_eq!(error.kind(), ErrorKind::HttpRequestError, "{protocol:?}");
        assert_eq!(error.status(), Some(StatusCode::REQUEST_TIMEOUT));

        // A slow client does not time out.
        let request = upload(origin.addr(), protocol, trickle(5, secs(6)));
        let (body, _) = read(send(&forwarder, request).await).await;
        assert_eq!(body, "20");
    }
}

#[tokio::test(start_paused = true)]
async fn origin_that_does_not_read_a_body_times_out() {
    support::fine_clock();
    for protocol in BOTH {
        let origin = origin(Behaviour::handler(|request: Request<Body>| async move {
            let _held = request;
            std::future::pending::<Response<Body>>().await
        }))
        .await;
        let forwarder = without_timeouts().request_body_timeout(secs(7)).build();
        let begun = Instant::now();
        let request = upload(origin.addr(), protocol, endless());
        let error = send(&forwarder, request).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionWriteTimeout,
            "{protocol:?}"
        );
        // The clock starts when the buffers of the kernel are full.
        assert!(begun.elapsed() >= secs(7));
    }
}

#[tokio::test(start_paused = true)]
async fn body_idle_timeout_allows_slow_bodies() {
    support::fine_clock();
    for protocol in BOTH {
        let never = origin(Behaviour::GatedBody(Gate::new())).await;
        let forwarder = without_timeouts().body_idle_timeout(secs(7)).build();
        let request = to(never.addr(), protocol, get(never.addr()));
        let error = fails_after(7.0, broken(&forwarder, request)).await;
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReadTimeout,
            "{protocol:?}"
        );

        let slow = Behaviour::handler(|_| async { Response::new(trickle(5, secs(6))) });
        let slow = origin(slow).await;
        let request = to(slow.addr(), protocol, get(slow.addr()));
        let (body, _) = read(send(&forwarder, request).await).await;
        assert_eq!(body.len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn body_idle_timeout_stops_while_the_client_does_not_read() {
    support::fine_clock();
    for protocol in BOTH {
        let origin = origin(Behaviour::StreamBytes(10_000_000)).await;
        let forwarder = without_timeouts().body_idle_timeout(secs(7)).build();
        let request = to(origin.addr(), protocol, get(origin.addr()));
        let mut body = send(&forwarder, request).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        tokio::time::advance(secs(60)).await;
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(first.len() + rest.len(), 10_000_000, "{protocol:?}");
    }
}

/// The request timeout applies in the queue, before the head, during the upload and in the body.
#[tokio::test(start_paused = true)]
async fn request_timeout_applies_in_every_phase() {
    support::fine_clock();
    for protocol in BOTH {
        let never = Gate::new();
        let origin = Origin::builder()
            .at("/head", Behaviour::Gated(never.clone()))
            .at("/body", Behaviour::GatedBody(never.clone()))
            .at("/upload", Behaviour::Drain)
            .max_concurrent_streams(1)
            .start()
            .await
            .unwrap();
        let forwarder = without_timeouts()
            .max_connections(1)
            .request_timeout(secs(9))
            .build();
        let request = |path| to(origin.addr(), protocol, at(path, get(origin.addr())));

        let error = fails_after(9.0, refusal(&forwarder, request("/head"))).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{protocol:?}");

        let error = fails_after(9.0, broken(&forwarder, request("/body"))).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{protocol:?}");

        let mut slow = request("/upload");
        *slow.method_mut() = http::Method::POST;
        *slow.body_mut() = trickle(1000, secs(1));
        let error = fails_after(9.0, refusal(&forwarder, slow)).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{protocol:?}");

        // One request holds the only connection, and another waits for it.
        let busy = send(&forwarder, request("/body")).await.unwrap();
        let error = fails_after(9.0, refusal(&forwarder, request("/head"))).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{protocol:?}");
        drop(busy);
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_timeout_only_shortens_the_request_timeout() {
    support::fine_clock();
    let origin = origin(Behaviour::Gated(Gate::new())).await;
    for (limit, client, seconds) in [
        (None, "250m", 0.25),
        (Some(secs(9)), "3S", 3.0),
        (Some(secs(9)), "1H", 9.0),
    ] {
        let forwarder = without_timeouts().request_timeout(limit).build();
        let mut request = upload(origin.addr(), Protocol::Http2, Body::from("message"));
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", HeaderValue::from_static(client));
        let error = fails_after(seconds, refusal(&forwarder, request)).await;
        assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout, "{client}");
    }
    // The upstream gets the timeout, too.
    assert_eq!(origin.requests()[1].header("grpc-timeout"), Some("3S"));
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_includes_the_http2_settings() {
    support::fine_clock();
    // Accepts the connection, reads the preface and does not answer.
    let silent = RawOrigin::start([vec![Step::ReadToEnd]]).await.unwrap();
    let forwarder = without_timeouts().connect_timeout(secs(3)).build();
    let request = to(silent.addr(), Protocol::Http2, get(silent.addr()));
    let error = fails_after(3.0, refusal(&forwarder, request)).await;
    assert_eq!(error.kind(), ErrorKind::ConnectionTimeout);
    assert!(error.may_retry(), "no request was sent");
    let report = error.report().to_string();
    assert!(report.contains("did not begin to speak HTTP/2"), "{report}");
    silent.wait_for_closed(0).await;
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_applies_to_hedged_connects() {
    support::fine_clock();
    for queue in [None, Some(secs(60))] {
        let silent = RawOrigin::start([vec![Step::ReadToEnd]]).await.unwrap();
        let forwarder = without_timeouts()
            .connect_timeout(secs(3))
            .queue_timeout(queue)
            .build();
        let mut waiting = JoinSet::new();
        for _ in 0..10 {
            let request = to(silent.addr(), Protocol::Http2, get(silent.addr()));
            let forwarder = forwarder.clone();
            waiting.spawn(async move { fails_after(3.0, refusal(&forwarder, request)).await });
        }
        while let Some(error) = waiting.join_next().await {
            assert_eq!(error.unwrap().kind(), ErrorKind::ConnectionTimeout);
        }
        // More than one connection was tried.
        assert!(silent.connections() > 1);
    }
}

/// `None` and zero are both off: nothing happens within an hour.
#[tokio::test(start_paused = true)]
async fn disabled_timeouts_never_fire() {
    let zero = Duration::ZERO;
    let zeros = Forwarder::builder()
        .queue_timeout(zero)
        .connect_timeout(zero)
        .response_header_timeout(zero)
        .request_body_timeout(zero)
        .body_idle_timeout(zero)
        .request_timeout(zero)
        .idle_timeout(zero)
        .max_lifetime(zero);
    for builder in [without_timeouts(), zeros] {
        let gate = Gate::new();
        let origin = Origin::builder()
            .at("/head", Behaviour::Gated(gate.clone()))
            .at("/body", Behaviour::GatedBody(gate.clone()))
            .start()
            .await
            .unwrap();
        let forwarder = builder.max_connections(1).build();
        let request = |path| at(path, get(origin.addr()));
        let body = send(&forwarder, request("/body")).await.unwrap();
        let queued: Waiting = begin(&forwarder, request("/head")).await;
        tokio::time::advance(HOUR).await;
        gate.open();
        read(Ok(body)).await;
        gate.close();
        let (reply, ()) = tokio::join!(queued, async {
            origin.wait_for_requests(2).await;
            tokio::time::advance(HOUR).await;
            gate.open();
        });
        read(reply).await;

        // No connection is retired by age or idle time either.
        let before = origin.connections();
        tokio::time::advance(HOUR).await;
        let slow = upload(origin.addr(), Protocol::Http1, trickle(2, HOUR));
        read(send(&forwarder, slow).await).await;
        assert_eq!(origin.connections(), before);
    }
}

/// A pause between two requests of one client must not count for the second, although the timer of
/// a connection outlives its exchanges.
#[tokio::test(start_paused = true)]
async fn timeout_starts_anew_for_each_request() {
    support::fine_clock();
    let pod = Pod::start(|mut connection| async move {
        while let Some(head) = connection.head().await {
            if connection.body(&head).await.is_none() {
                return;
            }
            tokio::time::sleep(secs(5)).await;
            let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            if connection.send(ok).await.is_none() {
                return;
            }
        }
    })
    .await;
    let forwarder = without_timeouts()
        .response_header_timeout(secs(7))
        .request_timeout(secs(8))
        .idle_timeout(None)
        .build();
    for pause in [0, 1, 4, 6, 20] {
        tokio::time::sleep(secs(pause)).await;
        let (body, _) = read(send(&forwarder, get(pod.addr())).await).await;
        assert_eq!(body, "ok");
    }
    assert_eq!(pod.accepted(), 1);
}
