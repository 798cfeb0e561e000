//! Races: an upstream that closes during a request, and a client that cancels.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/pod.rs"]
mod pod;
mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mesh_ingress_core::{Body, BoxError, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, Reuse};
use mesh_ingress_testkit::Origin;
use pod::{Connection, Pod};
use support::{at, begin, get, poll_once, post, read, send, to, until};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

const REQUESTS: usize = 50_000;
const CLIENTS: usize = 20;
const CANCELS: usize = 1_000;

/// The requests that the origin has received.
#[derive(Debug, Default)]
struct Seen {
    /// How often each `POST` was received.
    posts: Vec<AtomicU32>,
    closed_upon: AtomicUsize,
    closed_after: AtomicUsize,
}

/// Closes at random, but answers the first request of each connection, which a client that opens
/// one may rely on.
async fn serve_and_close(mut connection: Connection, seen: Arc<Seen>, seed: u64) {
    let mut rng = Rng::with_seed(seed ^ connection.number as u64);
    let mut first = true;
    loop {
        let Some(head) = connection.head().await else {
            return;
        };
        if head.method() == "POST" {
            let id: usize = head.path()[1..].parse().unwrap();
            // The client cannot know whether it was processed.
            seen.posts[id].fetch_add(1, Ordering::SeqCst);
        }
        if !first && rng.u32(0..100) < 4 {
            seen.closed_upon.fetch_add(1, Ordering::SeqCst);
            if rng.bool() {
                connection.reset();
            }
            return;
        }
        first = false;
        if connection.body(&head).await.is_none() {
            return;
        }
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if connection.send(ok).await.is_none() {
            return;
        }
        if rng.u32(0..100) < 8 {
            seen.closed_after.fetch_add(1, Ordering::SeqCst);
            // At once, or when the next request may be in flight.
            for _ in 0..rng.usize(0..10) {
                yield_now().await;
            }
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rfc9110_9_2_2_get_survives_the_keep_alive_race_and_post_is_not_repeated() {
    let seed = support::seed();
    let seen = Arc::new(Seen {
        posts: (0..REQUESTS).map(|_| AtomicU32::new(0)).collect(),
        ..Seen::default()
    });
    let origin = Pod::start({
        let seen = Arc::clone(&seen);
        move |connection| serve_and_close(connection, Arc::clone(&seen), seed)
    })
    .await;
    let addr = origin.addr();
    // In turn, so that each connection is idle for a while.
    let forwarder = Forwarder::builder().reuse(Reuse::RoundRobin).build();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (forwarder, seen) = (forwarder.clone(), Arc::clone(&seen));
        let mut rng = Rng::with_seed(seed.wrapping_add(client as u64));
        clients.spawn(async move {
            let mut failed = 0;
            for id in (client..REQUESTS).step_by(CLIENTS) {
                if rng.bool() {
                    let (body, _) = read(send(&forwarder, get(addr)).await).await;
                    assert_eq!(body, "ok");
                    continue;
                }
                let body = if rng.bool() { "pay" } else { "" };
                let request = at(&format!("/{id}"), post(addr, body));
                let came = match send(&forwarder, request).await {
                    Ok(response) => {
                        read(Ok(response)).await;
                        1..=1
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::ConnectionTerminated, "{error:?}");
                        failed += 1;
                        0..=1
                    }
                };
                let times = seen.posts[id].load(Ordering::SeqCst);
                assert!(came.contains(&times), "POST {id} came {times} times");
            }
            failed
        });
    }
    let mut failed = 0;
    while let Some(client) = clients.join_next().await {
        failed += client.unwrap();
    }
    assert!(
        seen.posts
            .iter()
            .all(|times| times.load(Ordering::SeqCst) <= 1)
    );
    // The race did happen, and only requests that must not be repeated failed.
    let upon = seen.closed_upon.load(Ordering::SeqCst);
    let after = seen.closed_after.load(Ordering::SeqCst);
    println!("closed upon {upon}, after {after}; {failed} POSTs failed");
    assert!(upon > 500 && after > 500);
    assert!(failed < upon + after);
}

/// Counts the requests that an origin works on.
struct Working(watch::Sender<usize>);

impl Working {
    fn new(working: &watch::Sender<usize>) -> Self {
        working.send_modify(|count| *count += 1);
        Self(working.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

async fn answer(request: Request<Body>, working: watch::Sender<usize>) -> Response<Body> {
    match request.uri().path() {
        "/head" => {
            let _working = Working::new(&working);
            std::future::pending::<()>().await;
        }
        "/upload" => {
            let mut body = request.into_body();
            let _first = body.frame().await;
            let _working = Working::new(&working);
            let _ = body.collect().await;
        }
        "/body" => {
            let working = Working::new(&working);
            let frames = stream::repeat_with(move || {
                let _working = &working;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 10_000])))
            });
            return Response::new(Body::new(StreamBody::new(frames)));
        }
        _ => {}
    }
    Response::new(Body::from("ok"))
}

/// An origin, and the number of requests in progress.
struct Worker {
    origin: Origin,
    working: watch::Receiver<usize>,
    protocol: Protocol,
}

impl Worker {
    async fn start(protocol: Protocol) -> Self {
        let (sender, working) = watch::channel(0);
        let origin = Origin::builder()
            .handler(move |request| answer(request, sender.clone()))
            // A leaked stream blocks the test at once.
            .max_concurrent_streams(1)
            .record_requests(false);
        Self {
            origin: origin.start().await.unwrap(),
            working,
            protocol,
        }
    }

    fn request(&self, path: &str) -> Request<Body> {
        to(
            self.origin.addr(),
            self.protocol,
            at(path, get(self.origin.addr())),
        )
    }

    async fn works(&self) {
        self.working
            .clone()
            .wait_for(|count| *count == 1)
            .await
            .unwrap();
    }

    /// Within a second of virtual time, nothing is left of the cancelled requests.
    async fn rests(&self, forwarder: &Forwarder) {
        let begun = Instant::now();
        self.working
            .clone()
            .wait_for(|count| *count == 0)
            .await
            .unwrap();
        let (left, open) = match self.protocol {
            // Its connections are still usable.
            Protocol::Http2 => (1, 1),
            _ => (0, 0),
        };
        self.origin.wait_for_open_connections(open).await;
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(forwarder.connections(), left);
    }
}

/// A forwarder whose limits make any leak visible at once.
fn strict() -> Forwarder {
    Forwarder::builder()
        .max_connections(1)
        .max_in_flight(2)
        .max_waiting(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .build()
}

/// A body that stalls after its first frame.
fn begun() -> Body {
    let first = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"first")))]);
    Body::new(StreamBody::new(first.chain(stream::pending())))
}

async fn cancelled_in_the_queue(protocol: Protocol) {
    let worker = Worker::start(protocol).await;
    let forwarder = strict();
    let pool = forwarder.pool(&Upstream::new(worker.origin.addr()).protocol(protocol));
    let mut busy = begin(&forwarder, worker.request("/head")).await;
    tokio::select! {
        reply = &mut busy => panic!("{reply:?}"),
        () = worker.works() => {}
    }
    for _ in 0..CANCELS {
        let waiting = begin(&forwarder, worker.request("/")).await;
        assert_eq!(pool.waiting(), 1);
        drop(waiting);
        assert_eq!(pool.waiting(), 0);
    }
    assert_eq!(pool.connections(), 1);
    drop(busy);
    worker.rests(&forwarder).await;
    read(send(&forwarder, worker.request("/")).await).await;
    assert_eq!(
        worker.origin.connections(),
        if protocol == Protocol::Http2 { 1 } else { 2 }
    );
}

async fn cancelled_while_connecting(protocol: Protocol) {
    // It does not accept connections, or accepts them and does not answer.
    let (_listener, addr) = support::narrow_listener();
    let _queued = support::fill(addr);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = match protocol {
        Protocol::Http2 => silent.local_addr().unwrap(),
        _ => addr,
    };
    let forwarder = strict();
    let pool = forwarder.pool(&Upstream::new(addr).protocol(protocol));
    for n in 0..CANCELS {
        let mut waiting = begin(&forwarder, to(addr, protocol, get(addr))).await;
        for _ in 0..n % 8 {
            yield_now().await;
            assert!(poll_once(&mut waiting).await.is_pending());
        }
        assert_eq!((pool.connections(), pool.waiting()), (1, 1));
        drop(waiting);
        assert_eq!(pool.waiting(), 0);
        until("it is called off", || pool.connections() == 0).await;
    }
}

async fn cancelled_before_the_response(protocol: Protocol, path: &str) {
    let worker = Worker::start(protocol).await;
    let forwarder = strict();
    for _ in 0..CANCELS {
        let mut request = worker.request(path);
        if path == "/upload" {
            *request.method_mut() = http::Method::POST;
            *request.body_mut() = begun();
        }
        tokio::select! {
            reply = send(&forwarder, request) => panic!("{reply:?}"),
            () = worker.works() => {}
        }
        worker.rests(&forwarder).await;
    }
    read(send(&forwarder, worker.request("/")).await).await;
}

async fn cancelled_in_the_response(protocol: Protocol) {
    let worker = Worker::start(protocol).await;
    let forwarder = strict();
    for n in 0..CANCELS {
        let mut body = send(&forwarder, worker.request("/body"))
            .await
            .unwrap()
            .into_body();
        for _ in 0..n % 3 {
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(*worker.working.borrow(), 1);
        drop(body);
        worker.rests(&forwarder).await;
    }
    read(send(&forwarder, worker.request("/")).await).await;
}

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test(start_paused = true)]
async fn thousand_requests_cancelled_in_the_queue_leave_nothing() {
    support::fine_clock();
    for protocol in BOTH {
        cancelled_in_the_queue(protocol).await;
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_cancelled_while_connecting_leave_nothing() {
    support::fine_clock();
    for protocol in BOTH {
        cancelled_while_connecting(protocol).await;
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_cancelled_before_the_head_leave_nothing() {
    support::fine_clock();
    for protocol in BOTH {
        cancelled_before_the_response(protocol, "/head").await;
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_cancelled_while_uploading_leave_nothing() {
    support::fine_clock();
    for protocol in BOTH {
        cancelled_before_the_response(protocol, "/upload").await;
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_cancelled_in_the_response_leave_nothing() {
    support::fine_clock();
    for protocol in BOTH {
        cancelled_in_the_response(protocol).await;
    }
}
