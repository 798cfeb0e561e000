//! Open tunnels: how they end, and how they are counted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use mesh_ingress_core::{ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Behaviour, Closed, Gate, Origin, RawOrigin, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::front::{Front, ends, expect, extended_connect, failed, head, opened, soon};
use crate::http2::Http2Origin;
use crate::support::{get, read, send};
use crate::{handshake, switching};

/// A tunnel from an HTTP/1.1 client to an origin that continues with these steps.
async fn open(forwarder: &Forwarder, steps: Vec<Step>) -> (RawOrigin, Front, TcpStream) {
    let begin = vec![Step::ReadHead, Step::send(switching(""))];
    let origin = RawOrigin::start([[begin, steps].concat()]).await.unwrap();
    let front = Front::start(forwarder, origin.addr(), Protocol::Http1).await;
    let client = connect(&front).await;
    (origin, front, client)
}

async fn connect(front: &Front) -> TcpStream {
    let mut client = front.send(handshake()).await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 101 "), "{reply}");
    client
}

async fn echo() -> Origin {
    let origin = Origin::builder().behaviour(Behaviour::UpgradeEcho);
    origin.start().await.unwrap()
}

async fn none_is_left(forwarder: &Forwarder) {
    soon(forwarder.tunnels_closed()).await;
    assert_eq!((forwarder.tunnels(), forwarder.connections()), (0, 0));
}

#[tokio::test]
async fn half_close_of_the_client_leaves_the_other_direction_open() {
    let forwarder = Forwarder::default();
    let steps = vec![Step::ReadToEnd, Step::send("last words")];
    let (origin, _front, mut client) = open(&forwarder, steps).await;
    client.write_all(b"bye").await.unwrap();
    client.shutdown().await.unwrap();
    expect(&mut client, b"last words").await;
    ends(&mut client).await;
    assert_eq!(soon(origin.wait_for_closed(0)).await, Closed::ByClient);
    assert!(origin.received(0).ends_with(b"bye"));
    none_is_left(&forwarder).await;
}

#[tokio::test]
async fn half_close_of_the_origin_leaves_the_other_direction_open() {
    let forwarder = Forwarder::default();
    let steps = vec![Step::send("last words"), Step::CloseWrite];
    let (origin, _front, mut client) = open(&forwarder, steps).await;
    expect(&mut client, b"last words").await;
    ends(&mut client).await;
    client.write_all(b"still here").await.unwrap();
    soon(origin.wait_for_received(0, |bytes| bytes.ends_with(b"still here"))).await;
    assert_eq!(forwarder.tunnels(), 1);
    client.shutdown().await.unwrap();
    assert_eq!(soon(origin.wait_for_closed(0)).await, Closed::ByClient);
    none_is_left(&forwarder).await;
}

#[tokio::test]
async fn reset_of_the_client_resets_the_origin() {
    let forwarder = Forwarder::default();
    let (origin, _front, client) = open(&forwarder, vec![Step::ReadToEnd]).await;
    client.set_zero_linger().unwrap();
    drop(client);
    let closed = soon(origin.wait_for_closed(0)).await;
    assert_eq!(closed, Closed::Broken(io::ErrorKind::ConnectionReset));
    none_is_left(&forwarder).await;
}

#[tokio::test]
async fn reset_of_the_origin_closes_the_client() {
    let forwarder = Forwarder::default();
    let (_origin, _front, mut client) = open(&forwarder, vec![Step::Reset]).await;
    // The client's connection is reset only if the server's socket resets on drop; this one does
    // not.
    ends(&mut client).await;
    none_is_left(&forwarder).await;
}

#[tokio::test]
async fn stream_dropped_by_the_client_ends_the_origins_connection() {
    let origin = echo().await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.http2().await;
    let asking = client.send_request(extended_connect("websocket"));
    let mut tunnel = opened(soon(asking).await.unwrap()).await;
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.flush().await.unwrap();
    expect(&mut tunnel, b"hello").await;
    drop(tunnel);
    soon(origin.wait_for_open_connections(0)).await;
    none_is_left(&forwarder).await;
}

/// hyper reads `RST_STREAM` with `CANCEL` as an end of the client's bytes. The tunnel finds out
/// that the client does not read either while the origin may still send.
#[tokio::test]
async fn rfc8441_5_stream_reset_by_the_client_resets_the_origin() {
    let origin = Http2Origin::silent().await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr, Protocol::Http2).await;
    for reason in [h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR] {
        let stream = TcpStream::connect(front.http2).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let hello = Request::head("http://front/hello").body(()).unwrap();
        soon(client.send_request(hello, true).unwrap().0)
            .await
            .unwrap();
        let mut request = extended_connect("websocket").map(drop);
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut stream) = client.send_request(request, false).unwrap();
        let response = soon(response).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(forwarder.tunnels(), 1);
        stream.send_reset(reason);
        // Long before the timeout of a half-closed tunnel.
        soon(forwarder.tunnels_closed()).await;
    }
}

#[tokio::test]
async fn idle_tunnels_are_reset() {
    let timeout = Duration::from_millis(50);
    let idle = Forwarder::builder().tunnel_idle_timeout(timeout).build();
    let (origin, _front, mut client) = open(&idle, vec![Step::ReadToEnd]).await;
    ends(&mut client).await;
    let closed = soon(origin.wait_for_closed(0)).await;
    assert_eq!(closed, Closed::Broken(io::ErrorKind::ConnectionReset));
    none_is_left(&idle).await;

    // One side has ended, and the other sends nothing.
    let half = Forwarder::builder()
        .tunnel_half_closed_timeout(timeout)
        .build();
    let (origin, _front, mut client) =
        open(&half, vec![Step::ReadToEnd, Step::Hold(Gate::new())]).await;
    assert_eq!(half.tunnels(), 1);
    client.shutdown().await.unwrap();
    ends(&mut client).await;
    none_is_left(&half).await;
    drop(origin);
}

#[tokio::test]
async fn tunnels_count_as_connections() {
    let origin = echo().await;
    let forwarder = Forwarder::builder()
        .max_connections(1)
        .queue_timeout(Duration::from_millis(50))
        .build();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let pool = forwarder.pool(&Upstream::new(origin.addr()).protocol(Protocol::Http1));
    let mut client = connect(&front).await;
    assert_eq!((forwarder.tunnels(), forwarder.connections()), (1, 1));
    assert_eq!((pool.connections(), pool.idle()), (1, 0));
    let mut second = front.send(handshake()).await;
    let reply = head(&mut second).await;
    assert_eq!(
        failed(&reply).1,
        ErrorKind::ConnectionLimitReached.as_str(),
        "{reply}"
    );

    // The permit of a tunnel is released when both sides have ended.
    client.shutdown().await.unwrap();
    ends(&mut client).await;
    none_is_left(&forwarder).await;
    origin.set_behaviour(Behaviour::Drain);
    let (body, _) = read(send(&forwarder, get(origin.addr())).await).await;
    assert_eq!(body, "0");
    assert_eq!((pool.connections(), pool.idle()), (1, 1));
}

#[tokio::test]
async fn waiting_request_is_served_when_a_tunnel_ends() {
    let origin = echo().await;
    let forwarder = Forwarder::builder().max_connections_total(1).build();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let pool = forwarder.pool(&Upstream::new(origin.addr()).protocol(Protocol::Http1));
    let client = connect(&front).await;
    let mut second = std::pin::pin!(connect(&front));
    while pool.waiting() == 0 {
        tokio::select! {
            biased;
            _ = &mut second => panic!("there is no room"),
            () = tokio::task::yield_now() => {}
        }
    }
    client.set_zero_linger().unwrap();
    drop(client);
    let mut second = second.await;
    second.write_all(b"mine").await.unwrap();
    expect(&mut second, b"mine").await;
}

#[tokio::test]
async fn shutdown_waits_for_tunnels_or_closes_them() {
    let forwarder = Forwarder::default();
    let (origin, front, mut client) = open(&forwarder, vec![Step::ReadToEnd]).await;
    let mut second = connect(&front).await;
    assert_eq!(forwarder.tunnels(), 2);
    let mut closed = tokio::spawn({
        let forwarder = forwarder.clone();
        async move { forwarder.tunnels_closed().await }
    });
    client.shutdown().await.unwrap();
    ends(&mut client).await;
    assert!(!closed.is_finished());
    tokio::select! {
        biased;
        _ = &mut closed => panic!("one is open"),
        () = tokio::task::yield_now() => {}
    }
    forwarder.close_tunnels();
    soon(closed).await.unwrap();
    assert_eq!((forwarder.tunnels(), forwarder.connections()), (0, 0));
    ends(&mut second).await;
    let cut = Closed::Broken(io::ErrorKind::ConnectionReset);
    assert_eq!(soon(origin.wait_for_closed(0)).await, Closed::ByClient);
    assert_eq!(soon(origin.wait_for_closed(1)).await, cut);
}

#[tokio::test]
async fn upgraded_connections_are_not_drained_with_the_pool() {
    let origin = echo().await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = connect(&front).await;
    forwarder.pool(&Upstream::new(origin.addr())).drain();
    client.write_all(b"still here").await.unwrap();
    expect(&mut client, b"still here").await;
}

const TUNNELS: usize = 1000;
const AT_ONCE: usize = 50;

/// Opens a tunnel and breaks it, in one of several ways.
async fn break_one(nth: usize, http1: SocketAddr) {
    let mut client = TcpStream::connect(http1).await.unwrap();
    client.write_all(handshake().as_bytes()).await.unwrap();
    if nth.is_multiple_of(5) {
        // Without waiting for the answer.
        client.set_zero_linger().unwrap();
        return;
    }
    assert!(head(&mut client).await.starts_with("http/1.1 101 "));
    match nth % 5 {
        1 => client.set_zero_linger().unwrap(),
        2 => {
            client.write_all(&[b'x'; 100_000]).await.unwrap();
            client.set_zero_linger().unwrap();
        }
        3 => {
            client.write_all(b"hello").await.unwrap();
            expect(&mut client, b"hello").await;
        }
        _ => {
            client.shutdown().await.unwrap();
            ends(&mut client).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_broken_tunnels_leave_nothing() {
    let origin = echo().await;
    let forwarder = Forwarder::builder().max_connections(AT_ONCE).build();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut clients = JoinSet::new();
    for nth in 0..TUNNELS {
        if clients.len() == AT_ONCE {
            soon(clients.join_next()).await.unwrap().unwrap();
        }
        clients.spawn(break_one(nth, front.http1));
    }
    soon(clients.join_all()).await;
    soon(origin.wait_for_open_connections(0)).await;
    none_is_left(&forwarder).await;
    let pool = forwarder.pool(&Upstream::new(origin.addr()).protocol(Protocol::Http1));
    assert_eq!((pool.connections(), pool.waiting()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_broken_streams_leave_nothing() {
    let origin = echo().await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let client = front.http2().await;
    let mut clients = JoinSet::new();
    for nth in 0..TUNNELS {
        if clients.len() == AT_ONCE {
            soon(clients.join_next()).await.unwrap().unwrap();
        }
        let mut client = client.clone();
        clients.spawn(async move {
            let asking = client.send_request(extended_connect("websocket"));
            if nth.is_multiple_of(4) {
                // Cancelled at some point.
                tokio::select! {
                    biased;
                    () = tokio::task::yield_now() => {}
                    _ = asking => {}
                }
                return;
            }
            let mut tunnel = opened(soon(asking).await.unwrap()).await;
            if nth % 4 == 1 {
                tunnel.write_all(b"hello").await.unwrap();
                tunnel.flush().await.unwrap();
                tunnel.read_u8().await.unwrap();
            }
        });
    }
    soon(clients.join_all()).await;
    drop(client);
    soon(origin.wait_for_open_connections(0)).await;
    none_is_left(&forwarder).await;
}
