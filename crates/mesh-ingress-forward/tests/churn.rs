//! A pool under all kinds of load at once loses no connection, no permit and no wake-up.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/pod.rs"]
mod pod;
mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures_util::future::poll_fn;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::{Body, BoxError, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, Reuse};
use pod::{Connection, Meter, Pod};
use support::{send, to, until};
use tokio::task::{JoinSet, yield_now};

const REQUESTS: usize = 100_000;
const CLIENTS: usize = 40;

async fn pause(rng: &mut Rng) {
    for _ in 0..rng.usize(0..4) {
        yield_now().await;
    }
}

/// Serves HTTP/1.1, sometimes with failures.
async fn serve(mut connection: Connection, seed: u64) {
    let mut rng = Rng::with_seed(seed ^ connection.number as u64);
    loop {
        let Some(head) = connection.head().await else {
            return;
        };
        let fate = rng.u32(0..100);
        match fate {
            0..2 => return connection.reset(),
            2..4 => return,
            4..6 => {
                // Without reading the body: the start of the next request is unknown.
                let early = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
                let _ = connection.send(early).await;
                return;
            }
            _ => {}
        }
        if connection.body(&head).await.is_none() {
            return;
        }
        let answered = match fate {
            6..9 => {
                let half = "HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\nhalf";
                let _ = connection.send(half).await;
                pause(&mut rng).await;
                if rng.bool() {
                    connection.reset();
                }
                return;
            }
            9..12 => {
                let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
                let _ = connection.send(last).await;
                return;
            }
            12..25 => {
                pause(&mut rng).await;
                slowly(&mut connection, &mut rng).await
            }
            25..30 => {
                let large = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n{:20000}",
                    ""
                );
                connection.send(large).await
            }
            30..33 => connection.send("HTTP/1.1 204 No Content\r\n\r\n").await,
            _ => {
                let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                connection.send(ok).await
            }
        };
        // Some connections are closed just afterwards.
        if answered.is_none() || rng.u32(0..100) < 3 {
            return;
        }
    }
}

async fn slowly(connection: &mut Connection, rng: &mut Rng) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    connection.send(head).await?;
    for _ in 0..rng.usize(0..5) {
        connection.send("4\r\nslow\r\n").await?;
        pause(rng).await;
    }
    connection.send("0\r\n\r\n").await
}

fn frame() -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from_static(b"body")))
}

/// Serves HTTP/2, and closes the connection now and then.
async fn serve_http2(connection: Connection, seed: u64) {
    let number = connection.number as u64;
    let left = AtomicUsize::new(Rng::with_seed(seed ^ number).usize(1..300));
    let answer = |request: Request<hyper::body::Incoming>| {
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        let mut rng = Rng::with_seed(seed ^ before.unwrap_or_default() as u64);
        async move {
            if rng.u8(..) > 40 {
                let _ = request.into_body().collect().await;
            }
            pause(&mut rng).await;
            let frames = (0..rng.usize(0..4)).map(|_| frame());
            Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
        }
    };
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(6)
        .serve_connection(TokioIo::new(connection), service_fn(answer));
    let mut served = std::pin::pin!(served);
    let mut going = false;
    poll_fn(|cx| {
        if !going && left.load(Ordering::SeqCst) == 0 {
            going = true;
            // Half of them with GOAWAY.
            if number & 1 == 0 {
                return Poll::Ready(());
            }
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// A body in several frames, which may fail.
fn body(rng: &mut Rng) -> Body {
    match rng.u32(0..4) {
        0 => Body::from("small"),
        1 => Body::from(Bytes::from_static(&[b'x'; 20_000])),
        kind => {
            let mut rng = rng.fork();
            let pieces = rng.usize(0..5);
            let breaks = kind == 3 && rng.bool();
            let frames = stream::unfold((pieces, rng), move |(left, mut rng)| async move {
                pause(&mut rng).await;
                let frame: Result<_, BoxError> = match left {
                    0 if breaks => Err("the client went away".into()),
                    0 => return None,
                    _ => Ok(Frame::data(Bytes::from_static(b"piece"))),
                };
                Some((frame, (left.saturating_sub(1), rng)))
            });
            // A stream that failed is not polled again.
            Body::new(StreamBody::new(frames))
        }
    }
}

/// Cancels after this many polls.
async fn within<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    poll_fn(|cx| match left.checked_sub(1) {
        None => Poll::Ready(None),
        Some(rest) => {
            left = rest;
            let polled = future.as_mut().poll(cx).map(Some);
            if left == 0 && polled.is_pending() {
                return Poll::Ready(None);
            }
            polled
        }
    })
    .await
}

/// What a client is doing, for the report of a stall.
type Doing = Arc<Mutex<String>>;

/// One request, which may fail in any way but by a limit.
async fn request(
    forwarder: &Forwarder,
    (addr, protocol): (SocketAddr, Protocol),
    rng: &mut Rng,
    doing: &Doing,
) {
    let say = |what: String| *doing.lock().unwrap() = what;
    let uri = "http://web.default.svc.cluster.local/";
    let request = match rng.u32(0..3) {
        0 => Request::post(uri).body(body(rng)),
        _ => Request::get(uri).body(Body::empty()),
    };
    let request = request.unwrap();
    let method = request.method().clone();
    let request = to(addr, protocol, request);
    say(format!("{method} over {protocol:?} to {addr}: no head yet"));
    // A third are cancelled sooner or later.
    let polls = match rng.u32(0..6) {
        0 => 1,
        1 => rng.usize(2..8),
        _ => usize::MAX,
    };
    let Some(reply) = within(polls, send(forwarder, request)).await else {
        return;
    };
    let mut body = match reply {
        Ok(response) => response.into_body(),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::ConnectionLimitReached, "{error:?}");
            return;
        }
    };
    let frames = match rng.u32(0..5) {
        0 => rng.usize(0..3),
        _ => usize::MAX,
    };
    for frame in 0..frames {
        say(format!(
            "{method} over {protocol:?} to {addr}: frame {frame} of {body:?}"
        ));
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
        if rng.u32(0..8) == 0 {
            pause(rng).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_connection_permit_or_wakeup_is_lost_under_churn() {
    const EACH: usize = 6;
    const ALL: usize = 10;
    let seed = support::seed();
    let all = Meter::default();
    let mut pods = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http1, Protocol::Http2] {
        let each = Meter::default();
        let meters = vec![all.clone(), each.clone()];
        let pod = Pod::metered(
            meters,
            move |connection| -> Pin<Box<dyn Future<Output = ()> + Send>> {
                match protocol {
                    Protocol::Http2 => Box::pin(serve_http2(connection, seed)),
                    _ => Box::pin(serve(connection, seed)),
                }
            },
        );
        pods.push((pod.await, each, protocol));
    }
    let forwarder = Forwarder::builder()
        .max_connections(EACH)
        .max_connections_total(ALL)
        .max_waiting(CLIENTS)
        .max_in_flight(CLIENTS)
        .max_idle(4)
        .max_requests(200)
        .reuse(if seed & 1 == 0 {
            Reuse::Lifo
        } else {
            Reuse::RoundRobin
        })
        .shards(NonZeroUsize::MIN.saturating_add(seed as usize >> 1 & 3))
        // A request that is forgotten waits forever.
        .queue_timeout(None)
        .connect_timeout(None)
        .response_header_timeout(None)
        .request_body_timeout(None)
        .body_idle_timeout(None)
        .build();
    let targets: Arc<[_]> = pods
        .iter()
        .map(|(pod, _, protocol)| (pod.addr(), *protocol))
        .collect();
    let pools: Vec<_> = targets
        .iter()
        .map(|(addr, protocol)| forwarder.pool(&Upstream::new(*addr).protocol(*protocol)))
        .collect();

    let done = Arc::new(AtomicUsize::new(0));
    let doing: Vec<Doing> = (0..CLIENTS).map(|_| Doing::default()).collect();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let done = Arc::clone(&done);
        let forwarder = forwarder.clone();
        let targets = Arc::clone(&targets);
        let doing = Arc::clone(&doing[client]);
        let mut rng = Rng::with_seed(seed.wrapping_add(client as u64));
        clients.spawn(async move {
            for _ in 0..REQUESTS / CLIENTS {
                let target = targets[rng.usize(..targets.len())];
                request(&forwarder, target, &mut rng, &doing).await;
                done.fetch_add(1, Ordering::SeqCst);
            }
            doing.lock().unwrap().clear();
        });
    }
    // A request that waits in vain blocks the others sooner or later: there is no timeout.
    let mut before = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(15), clients.join_next()).await {
            Ok(Some(client)) => client.unwrap(),
            Ok(None) => break,
            Err(_) => {
                let now = done.load(Ordering::SeqCst);
                let waiting: Vec<_> = doing
                    .iter()
                    .map(|doing| doing.lock().unwrap().clone())
                    .collect();
                let waiting: Vec<_> = waiting.iter().filter(|doing| !doing.is_empty()).collect();
                assert!(
                    now > before,
                    "nothing moves after {now}: {waiting:#?} {pools:?}"
                );
                before = now;
            }
        }
    }
    assert_eq!(done.load(Ordering::SeqCst), REQUESTS);

    for (pool, (pod, each, _)) in pools.iter().zip(&pods) {
        assert_eq!(pool.waiting(), 0);
        assert!(each.most() <= EACH, "{} were open", each.most());
        println!("{} connections, {} at once", pod.accepted(), each.most());
        pool.drain();
    }
    // Exactly as many as the limit allows.
    assert_eq!(all.most(), ALL);
    // The remaining connections are closed, and every permit is released.
    until("all is closed", || {
        forwarder.connections() == 0 && pods.iter().all(|(pod, ..)| pod.open() == 0)
    })
    .await;
    // There is room for all connections again.
    for (pool, (pod, _, protocol)) in pools.iter().zip(&pods) {
        assert_eq!((pool.connections(), pool.idle()), (0, 0));
        if *protocol == Protocol::Http1 {
            let before = pod.accepted();
            pool.warm_up(4).await.unwrap();
            assert_eq!(pool.idle(), 4);
            until("they are opened", || pod.accepted() == before + 4).await;
            pool.drain();
        }
    }
}
