//! Requests for the tests.
#![allow(dead_code)]

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use mesh_ingress_core::{Body, Error, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, ResponseBody};
use mesh_ingress_testkit::{Behaviour, Gate, Origin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

pub(crate) type Reply = Result<Response<ResponseBody>, Error>;

/// Sets the upstream of a request.
pub(crate) fn to<B>(addr: SocketAddr, protocol: Protocol, mut request: Request<B>) -> Request<B> {
    let upstream = Upstream::new(addr).protocol(protocol);
    request.extensions_mut().insert(upstream);
    request
}

pub(crate) fn get(addr: SocketAddr) -> Request<Body> {
    let request = Request::get("http://web.default.svc.cluster.local/").body(Body::empty());
    to(addr, Protocol::Http1, request.unwrap())
}

pub(crate) fn post(addr: SocketAddr, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("http://web.default.svc.cluster.local/").body(body.into());
    to(addr, Protocol::Http1, request.unwrap())
}

pub(crate) async fn send(forwarder: &Forwarder, request: Request<Body>) -> Reply {
    forwarder.clone().oneshot(request).await
}

/// An origin that answers when the gate opens.
pub(crate) async fn gated(gate: &Gate) -> Origin {
    let behaviour = Behaviour::Gated(gate.clone());
    Origin::builder()
        .behaviour(behaviour)
        .start()
        .await
        .unwrap()
}

/// The body and trailers of a response that must be complete.
pub(crate) async fn read(reply: Reply) -> (Bytes, Option<HeaderMap>) {
    let collected = reply.unwrap().into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

/// The value of one line of the origin's echo.
pub(crate) fn echoed<'a>(body: &'a Bytes, name: &str) -> &'a str {
    let text = std::str::from_utf8(body).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// A request in flight, polled by the test.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Begins a request. On return it has a connection or waits for one.
pub(crate) async fn begin(forwarder: &Forwarder, request: Request<Body>) -> Waiting {
    let forwarder = forwarder.clone();
    let mut waiting: Waiting = Box::pin(async move { forwarder.oneshot(request).await });
    let polled = poll_once(&mut waiting).await;
    assert!(polled.is_pending(), "{polled:?}");
    waiting
}

/// Reads all responses concurrently.
pub(crate) async fn read_all(waiting: Vec<Waiting>) {
    join_all(waiting.into_iter().map(|waiting| async {
        read(waiting.await).await;
    }))
    .await;
}

/// Polls once; the request must be ready.
pub(crate) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

/// The same request for another path.
pub(crate) fn at(path: &str, mut request: Request<Body>) -> Request<Body> {
    let uri = format!("http://web.default.svc.cluster.local{path}");
    *request.uri_mut() = uri.parse().unwrap();
    request
}

/// Lets other tasks run until a condition holds. It must come to hold by itself: no task is woken
/// for that.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let looked = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    let timeout = Duration::from_secs(10);
    let started = std::time::Instant::now();
    let mut looked = std::pin::pin!(looked);
    poll_fn(|cx| {
        assert!(started.elapsed() < timeout, "never: {what}");
        looked.as_mut().poll(cx)
    })
    .await;
}

/// A listener with room for only one connection beyond the accepted ones.
pub(crate) fn narrow_listener() -> (std::net::TcpListener, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Fills the queue of a narrow listener: a SYN to it gets no answer from now on.
pub(crate) fn fill(addr: SocketAddr) -> Vec<std::net::TcpStream> {
    let timeout = Duration::from_millis(200);
    std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&addr, timeout).ok()).collect()
}

/// The next connection of a std listener: tokio's would accept them all at once.
pub(crate) async fn accept(listener: &std::net::TcpListener) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true).unwrap();
                return TcpStream::from_std(stream).unwrap();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Answers requests without a body until the connection ends, and returns their paths.
pub(crate) async fn answer(mut stream: TcpStream) -> Vec<String> {
    let mut paths = Vec::new();
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(std::mem::take(&mut head)).unwrap();
            paths.push(head.split(' ').nth(1).unwrap().to_owned());
            let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(ok).await.unwrap();
        }
    }
    paths
}

/// One address for several pods, as with kube-proxy: each connection leads to the next pod.
pub(crate) async fn balance(pods: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for pod in pods.into_iter().cycle() {
            let Ok((mut client, _)) = listener.accept().await else {
                return;
            };
            connections.spawn(async move {
                let mut pod = TcpStream::connect(pod).await.unwrap();
                // The kernel's clock runs although the test's is paused: nothing may wait for it.
                pod.set_nodelay(true).unwrap();
                client.set_nodelay(true).unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
            });
            while connections.try_join_next().is_some() {}
        }
    });
    addr
}

/// Advances a paused clock by a millisecond at a time. By itself it jumps to the next timer
/// whenever the runtime polls for I/O, even if there is some: then time would run ahead of the
/// sockets.
pub(crate) fn fine_clock() {
    tokio::spawn(async {
        let mut millis = tokio::time::interval(Duration::from_millis(1));
        loop {
            millis.tick().await;
        }
    });
}

/// A seed that a failure reports, and that `SEED` sets.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    seed
}
