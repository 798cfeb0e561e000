//! How connections are opened, chosen and retired.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use mesh_ingress_core::{ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, Reuse, UpstreamPool};
use mesh_ingress_testkit::{Gate, Origin, RawOrigin, Step};
use support::{at, begin, gated, get, read, read_all, send, to, until};
use tokio::time::Instant;

/// A single list of idle connections is stored differently from several.
const SHARDS: [NonZeroUsize; 2] = [NonZeroUsize::MIN, NonZeroUsize::MIN.saturating_add(1)];

fn pool(forwarder: &Forwarder, origin: &Origin) -> UpstreamPool {
    forwarder.pool(&Upstream::new(origin.addr()))
}

/// The connection of the origin that served each of `count` requests, one after another.
async fn connections_of(forwarder: &Forwarder, origin: &Origin, count: usize) -> Vec<String> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let reply = send(forwarder, get(origin.addr())).await;
        let connection = reply.as_ref().unwrap().headers()["x-connection"].clone();
        connections.push(connection.to_str().unwrap().to_owned());
        read(reply).await;
    }
    connections
}

/// Opens `count` connections with as many concurrent requests.
async fn open(forwarder: &Forwarder, origin: &Origin, gate: &Gate, count: usize) {
    let mut waiting = Vec::new();
    for _ in 0..count {
        waiting.push(begin(forwarder, get(origin.addr())).await);
    }
    let opened = async {
        origin.wait_for_connections(count as u64).await;
        gate.open();
    };
    tokio::join!(opened, read_all(waiting));
}

#[tokio::test]
async fn hanging_connect_delays_only_its_request() {
    let (listener, addr) = support::narrow_listener();
    let forwarder = Forwarder::builder().connect_timeout(None).build();
    let pool = forwarder.pool(&Upstream::new(addr));
    // One connection is accepted; further ones hang.
    let busy = begin(&forwarder, get(addr)).await;
    let accepted = support::accept(&listener).await;
    until("one connection is made", || pool.waiting() == 0).await;
    let _queued = support::fill(addr);
    let first = begin(&forwarder, at("/1", get(addr))).await;
    let second = begin(&forwarder, at("/2", get(addr))).await;
    until("both dial", || pool.connections() == 3).await;
    assert_eq!(pool.waiting(), 2);

    // A connection that becomes free serves the request that waits longest.
    let origin = tokio::spawn(support::answer(accepted));
    read(busy.await).await;
    read_all(vec![first, second]).await;
    assert_eq!(pool.waiting(), 0);
    pool.drain();
    let served = origin.await.unwrap();
    assert_eq!(served, ["/", "/1", "/2"]);
}

#[tokio::test]
async fn hanging_handshake_is_hedged_by_another_connection() {
    let never = Gate::new();
    let silent = RawOrigin::start([vec![Step::Hold(never)]]).await.unwrap();
    let good = Origin::start().await.unwrap();
    // Behind one address: the first connection leads to the hanging server, the next to the other.
    let addr = support::balance(vec![silent.addr(), good.addr()]).await;
    let forwarder = Forwarder::default();
    let begun = Instant::now();
    let request = || to(addr, Protocol::Http2, get(addr));
    let waiting = vec![
        begin(&forwarder, request()).await,
        begin(&forwarder, request()).await,
    ];
    // One connection would serve both, but its handshake hangs.
    read_all(waiting).await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(good.connections(), 1);
}

#[tokio::test]
async fn warm_up_opens_the_missing_connections() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gate = Gate::new();
        let origin = gated(&gate).await;
        let forwarder = Forwarder::default();
        let pool = forwarder.pool(&Upstream::new(origin.addr()).protocol(protocol));
        pool.warm_up(3).await.unwrap();
        // Connections that are ready already count.
        pool.warm_up(2).await.unwrap();
        origin.wait_for_connections(3).await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let request = to(origin.addr(), protocol, get(origin.addr()));
            waiting.push(begin(&forwarder, request).await);
        }
        let opened = async {
            origin.wait_for_requests(3).await;
            gate.open();
        };
        tokio::join!(opened, read_all(waiting));
        assert_eq!(origin.connections(), 3, "{protocol:?}");
    }
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr: SocketAddr = nobody.local_addr().unwrap();
    drop(nobody);
    let pool = Forwarder::default().pool(&Upstream::new(addr));
    let error = pool.warm_up(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(pool.connections(), 0);
}

#[tokio::test]
async fn warm_up_respects_the_limits() {
    let origin = Origin::start().await.unwrap();
    for forwarder in [
        Forwarder::builder().max_connections(2),
        Forwarder::builder().max_idle(2).shards(SHARDS[0]),
        Forwarder::builder().max_idle(2).shards(SHARDS[1]),
    ] {
        let before = origin.connections();
        let forwarder = forwarder.build();
        let pool = pool(&forwarder, &origin);
        pool.warm_up(5).await.unwrap();
        assert_eq!((pool.idle(), pool.connections()), (2, 2));
        origin.wait_for_connections(before + 2).await;
        assert_eq!(origin.connections(), before + 2);
    }
}

#[tokio::test]
async fn lifo_and_round_robin_choose_the_next_connection() {
    let orders = [(Reuse::Lifo, 1), (Reuse::RoundRobin, 3)];
    for ((reuse, distinct), shards) in orders
        .into_iter()
        .flat_map(|order| SHARDS.map(|n| (order, n)))
    {
        let gate = Gate::new();
        let origin = gated(&gate).await;
        let forwarder = Forwarder::builder().reuse(reuse).shards(shards).build();
        open(&forwarder, &origin, &gate, 3).await;
        let served = connections_of(&forwarder, &origin, 9).await;
        let mut count: HashMap<_, usize> = HashMap::new();
        for connection in served {
            *count.entry(connection).or_default() += 1;
        }
        assert_eq!(count.len(), distinct, "{reuse:?}");
        assert!(count.values().all(|&count| count == 9 / distinct));
        assert_eq!(origin.connections(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_unused_under_lifo_are_closed() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    for (reuse, left) in [(Reuse::Lifo, 1), (Reuse::RoundRobin, 3)] {
        gate.close();
        let before = origin.connections();
        let forwarder = Forwarder::builder()
            .reuse(reuse)
            .idle_timeout(Duration::from_secs(4))
            .build();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(begin(&forwarder, get(origin.addr())).await);
        }
        let opened = async {
            origin.wait_for_connections(before + 3).await;
            gate.open();
        };
        tokio::join!(opened, read_all(waiting));
        let pool = pool(&forwarder, &origin);
        // One request per second.
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..8 {
            pace.tick().await;
            read(send(&forwarder, get(origin.addr())).await).await;
        }
        assert_eq!(pool.idle(), left, "{reuse:?}");
        assert_eq!(origin.connections(), before + 3);
        drop(forwarder);
        drop(pool);
        origin.wait_for_open_connections(0).await;
    }
}

#[tokio::test]
async fn max_requests_retires_connections_with_jitter() {
    let origin = Origin::start().await.unwrap();
    let forwarder = Forwarder::builder().max_requests(50).build();
    let served = connections_of(&forwarder, &origin, 600).await;
    let mut count: HashMap<_, usize> = HashMap::new();
    for connection in &served {
        *count.entry(connection).or_default() += 1;
    }
    // The connection in use has served fewer requests.
    count.remove(served.last().unwrap());
    assert!(count.len() >= 11, "{count:?}");
    assert!(
        count.values().all(|count| (45..=50).contains(count)),
        "{count:?}"
    );
    // Eleven draws out of six values: all equal once in 60 million runs.
    let distinct: HashSet<_> = count.values().collect();
    assert!(distinct.len() > 1, "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn max_lifetime_retires_connections_with_jitter() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let origin = Origin::start().await.unwrap();
        let forwarder = Forwarder::builder()
            .max_lifetime(Duration::from_secs(1000))
            .idle_timeout(None)
            .build();
        let pool = forwarder.pool(&Upstream::new(origin.addr()).protocol(protocol));
        pool.warm_up(20).await.unwrap();
        let begun = Instant::now();
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut first = None;
        while origin.open_connections() > 0 {
            seconds.tick().await;
            if origin.open_connections() < 20 {
                first.get_or_insert(begun.elapsed().as_secs_f64());
            }
        }
        // Within the last tenth, with the resolution of the sweep.
        let (first, last) = (first.unwrap(), begun.elapsed().as_secs_f64());
        assert!(first >= 900.0, "{protocol:?}: from {first}");
        assert!(last <= 1003.0, "{protocol:?}: until {last}");
        // Twenty draws out of a hundred values.
        assert!(last - first > 10.0, "{protocol:?}: {first} to {last}");
    }
}

#[tokio::test]
async fn drained_http2_connection_closes_after_its_last_stream() {
    let gate = Gate::new();
    let origin = gated(&gate).await;
    let forwarder = Forwarder::default();
    let pool = forwarder.pool(&Upstream::new(origin.addr()).protocol(Protocol::Http2));
    let request = || to(origin.addr(), Protocol::Http2, get(origin.addr()));
    let under_way = tokio::spawn(begin(&forwarder, request()).await);
    origin.wait_for_requests(1).await;
    pool.drain();
    let next = tokio::spawn(begin(&forwarder, request()).await);
    origin.wait_for_requests(2).await;
    assert_eq!(origin.open_connections(), 2);
    gate.open();
    read(under_way.await.unwrap()).await;
    origin.wait_for_open_connections(1).await;
    read(next.await.unwrap()).await;
    read(send(&forwarder, request()).await).await;
    assert_eq!(origin.connections(), 2);
}
