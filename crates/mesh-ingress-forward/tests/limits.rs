//! Limits on connections and requests, and the requests beyond them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh_ingress_core::{Body, Error, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, ForwarderBuilder, UpstreamPool};
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;
use mesh_ingress_testkit::{Behaviour, Gate, Origin};
use support::{Reply, at, begin, gated, get, poll_once, read, read_all, send, to};
use tokio::time::Instant;
use tower::Service;

fn bounded(connections: usize) -> ForwarderBuilder {
    Forwarder::builder().max_connections(connections)
}

fn pool(forwarder: &Forwarder, origin: &Origin) -> UpstreamPool {
    forwarder.pool(&Upstream::new(origin.addr()))
}

fn paths(origin: &Origin) -> Vec<String> {
    let requests = origin.requests();
    requests.iter().map(|r| r.uri.path().to_owned()).collect()
}

fn refused(reply: Reply) -> Error {
    let error = reply.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLimitReached);
    assert!(error.may_retry(), "nothing was sent");
    error
}

#[tokio::test]
async fn waiting_requests_are_served_in_order() {
    for connections in [1, 2] {
        let gate = Gate::new();
        let origin = gated(&gate).await;
        let forwarder = bounded(connections).build();
        let pool = pool(&forwarder, &origin);
        let mut waiting = Vec::new();
        for n in 0..20 {
            waiting.push(begin(&forwarder, at(&format!("/{n}"), get(origin.addr()))).await);
        }
        // Requests with a dial of their own wait, too.
        assert_eq!(pool.waiting(), 20);
        assert_eq!(pool.connections(), connections);
        let opened = async {
            origin.wait_for_requests(connections).await;
            gate.open();
        };
        tokio::join!(opened, read_all(waiting));
        let served: Vec<_> = paths(&origin);
        let arrived: Vec<_> = (0..20).map(|n| format!("/{n}")).collect();
        if connections == 1 {
            assert_eq!(served, arrived);
        } else {
            // Two concurrent requests may overtake each other on the way, but not more.
            for (n, path) in arrived.iter().enumerate() {
                let at = served.iter().position(|other| other == path).unwrap();
                assert!(at.abs_diff(n) <= 1, "{served:?}");
            }
        }
        assert_eq!(origin.connections(), connections as u64);
        assert_eq!((pool.waiting(), pool.idle()), (0, connections));
    }
}

#[tokio::test]
async fn cancelled_waiter_is_skipped_and_not_counted() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    let forwarder = bounded(1).max_waiting(3).build();
    let pool = pool(&forwarder, &origin);
    let first = tokio::spawn(begin(&forwarder, at("/0", get(origin.addr()))).await);
    origin.wait_for_requests(1).await;
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.push(begin(&forwarder, at(&format!("/{n}"), get(origin.addr()))).await);
    }
    assert_eq!(pool.waiting(), 3);
    drop(waiting.remove(1));
    assert_eq!(pool.waiting(), 2);
    // There is room in the queue again.
    waiting.push(begin(&forwarder, at("/4", get(origin.addr()))).await);
    assert_eq!(pool.waiting(), 3);
    gate.open();
    read(first.await.unwrap()).await;
    read_all(waiting).await;
    assert_eq!(paths(&origin), ["/0", "/1", "/3", "/4"]);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn connection_offered_to_a_cancelled_request_serves_the_next() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    let forwarder = bounded(1).build();
    let mut first = begin(&forwarder, at("/0", get(origin.addr()))).await;
    let gone = begin(&forwarder, at("/1", get(origin.addr()))).await;
    let last = begin(&forwarder, at("/2", get(origin.addr()))).await;
    gate.open();
    // Read here, so that the connection is offered to the second request, which is not polled any
    // more.
    let response = poll_fn(|cx| first.as_mut().poll(cx)).await;
    read(response).await;
    drop(gone);
    read(last.await).await;
    assert_eq!(paths(&origin), ["/0", "/2"]);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn queue_timeout_bounds_the_wait() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let forwarder = bounded(1)
            .queue_timeout(Duration::from_secs(3))
            .response_header_timeout(None)
            .build();
        let streams = if protocol == Protocol::Http1 { 1 } else { 100 };
        let request = || to(origin.addr(), protocol, get(origin.addr()));
        let before = origin.requests().len();
        let mut busy: Vec<_> = Vec::new();
        for _ in 0..streams {
            busy.push(tokio::spawn(begin(&forwarder, request()).await));
        }
        origin.wait_for_requests(before + streams).await;
        let begun = Instant::now();
        let error = refused(send(&forwarder, request()).await);
        let waited = begun.elapsed();
        assert!((3.0..3.1).contains(&waited.as_secs_f64()), "{waited:?}");
        let report = error.report().to_string();
        assert!(report.contains("max_connections too low?"), "{report}");
        assert_eq!(origin.requests().len(), before + streams, "{protocol:?}");
        drop(busy);
    }
}

#[tokio::test]
async fn request_beyond_max_waiting_fails_at_once() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    for max_waiting in [0, 2] {
        let forwarder = bounded(2).max_waiting(max_waiting).build();
        let mut begun = Vec::new();
        for _ in 0..2 + max_waiting {
            begun.push(begin(&forwarder, get(origin.addr())).await);
        }
        let mut beyond = Box::pin(send(&forwarder, get(origin.addr())));
        let Poll::Ready(reply) = poll_once(&mut beyond).await else {
            panic!("waits all the same");
        };
        refused(reply);
    }
}

#[tokio::test]
async fn idle_connection_is_used_with_max_waiting_zero() {
    let origin = Origin::start().await.unwrap();
    let forwarder = bounded(1).max_waiting(0).build();
    for _ in 0..50 {
        read(send(&forwarder, get(origin.addr())).await).await;
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn idle_connections_are_evicted_for_other_upstreams() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = Gate::new();
        gate.open();
        let (old, new) = (gated(&gate).await, gated(&gate).await);
        let forwarder = Forwarder::builder().max_connections_total(2).build();
        let kept = forwarder.pool(&Upstream::new(old.addr()).protocol(protocol));
        kept.warm_up(2).await.unwrap();
        assert_eq!(forwarder.connections(), 2);

        gate.close();
        let first = tokio::spawn(begin(&forwarder, get(new.addr())).await);
        new.wait_for_requests(1).await;
        let second = tokio::spawn(begin(&forwarder, get(new.addr())).await);
        new.wait_for_requests(2).await;
        old.wait_for_open_connections(0).await;
        assert_eq!(forwarder.connections(), 2, "{protocol:?}");
        assert_eq!((kept.connections(), kept.idle()), (0, 0));
        gate.open();
        read(first.await.unwrap()).await;
        read(second.await.unwrap()).await;
    }
}

#[tokio::test]
async fn longest_waiting_request_of_all_upstreams_comes_first() {
    let gate = Gate::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let origin = async |name: &'static str| {
        let (gate, order) = (gate.clone(), Arc::clone(&order));
        let handler = move |request: Request<Body>| {
            let (gate, order) = (gate.clone(), Arc::clone(&order));
            async move {
                let path = request.uri().path().to_owned();
                order.lock().unwrap().push(format!("{name}{path}"));
                gate.opened().await;
                Response::new(Body::from("ok"))
            }
        };
        Origin::builder().handler(handler).start().await.unwrap()
    };
    let (a, b, c) = (origin("a").await, origin("b").await, origin("c").await);
    let forwarder = Forwarder::builder().max_connections_total(1).build();
    let first = tokio::spawn(begin(&forwarder, at("/0", get(a.addr()))).await);
    a.wait_for_requests(1).await;
    let mut waiting = Vec::new();
    let arrivals = [
        (&b, "/1"),
        (&a, "/2"),
        (&c, "/3"),
        (&a, "/4"),
        (&a, "/5"),
        (&b, "/6"),
    ];
    for (origin, path) in arrivals {
        waiting.push(begin(&forwarder, at(path, get(origin.addr()))).await);
    }
    gate.open();
    read(first.await.unwrap()).await;
    read_all(waiting).await;
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["a/0", "b/1", "a/2", "c/3", "a/4", "a/5", "b/6"]);
    // Sequential requests to one upstream share a connection.
    assert_eq!(
        (a.connections(), b.connections(), c.connections()),
        (3, 2, 1)
    );
    assert_eq!(forwarder.connections(), 1);
}

#[tokio::test]
async fn poll_ready_waits_for_an_in_flight_permit() {
    let gate = Gate::new();
    let behaviour = Behaviour::GatedBody(gate.clone());
    let origin = Origin::builder()
        .behaviour(behaviour)
        .start()
        .await
        .unwrap();
    let forwarder = Forwarder::builder().max_in_flight(2).build();
    let mut service = forwarder.clone();
    let mut ready = async || {
        poll_fn(|cx| Poll::Ready(Service::<Request<Body>>::poll_ready(&mut service, cx))).await
    };
    assert!(ready().await.is_ready());
    // A ready service holds a permit, and need not acquire one again.
    assert!(ready().await.is_ready());
    let first = send(&forwarder, get(origin.addr())).await.unwrap();

    let mut third = Box::pin(send(&forwarder, get(origin.addr())));
    assert!(poll_once(&mut third).await.is_pending());
    assert_eq!(origin.requests().len(), 1, "it has not even begun");

    // A request without `poll_ready` is shed.
    let mut request = get(origin.addr());
    request.extensions_mut().remove::<Upstream>();
    let shed = pool(&forwarder, &origin).send(request, &ConnectionOptions::default());
    let error = refused(shed.await);
    assert!(error.report().to_string().contains("in flight"));

    // The permit is held until the end of the body.
    assert!(poll_once(&mut third).await.is_pending());
    gate.open();
    let body = first.into_body().collect().await.unwrap();
    drop(body);
    read(third.await).await;
}

#[tokio::test]
async fn cancelled_request_releases_its_in_flight_permit() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    let forwarder = Forwarder::builder().max_in_flight(1).build();
    for _ in 0..3 {
        let waiting = begin(&forwarder, get(origin.addr())).await;
        let mut next = Box::pin(send(&forwarder, get(origin.addr())));
        assert!(poll_once(&mut next).await.is_pending());
        drop(waiting);
        // This starts the request.
        assert!(poll_once(&mut next).await.is_pending());
        assert_eq!(pool(&forwarder, &origin).waiting(), 1);
    }
    gate.open();
    read(send(&forwarder, get(origin.addr())).await).await;
}
