//! Shared by the tests against a real name server.
#![allow(dead_code, clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_ingress_core::Error;
use mesh_ingress_resolve::{ClusterDns, ClusterDnsBuilder, Watch};
use mesh_ingress_testkit::{DnsServer, Transport};

pub(crate) const WEB: &str = "web.default.svc.cluster.local.";
pub(crate) const IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
pub(crate) const IP2: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 8);
pub(crate) const IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);

/// A name server that knows `web.default`.
pub(crate) async fn server() -> DnsServer {
    let server = DnsServer::start().await.unwrap();
    server.set_a(WEB, [IP]);
    server
}

/// Asks one name server.
pub(crate) fn asking(server: &DnsServer) -> ClusterDnsBuilder {
    ClusterDns::builder().nameserver(server.addr())
}

pub(crate) fn watch(dns: &ClusterDns, service: &str) -> Watch {
    dns.watch(&service.parse().unwrap())
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| addr(text)).collect()
}

/// The queries so far, sorted: A and AAAA go out together.
pub(crate) fn queries(server: &DnsServer) -> Vec<(String, String)> {
    let mut queries: Vec<_> = server
        .queries()
        .into_iter()
        .map(|query| (query.name, query.record_type))
        .collect();
    queries.sort();
    queries
}

pub(crate) fn transports(server: &DnsServer) -> Vec<Transport> {
    let queries = server.queries();
    queries.iter().map(|query| query.transport).collect()
}

pub(crate) async fn error(watch: &Watch) -> Error {
    watch.ready().await.unwrap_err()
}

pub(crate) fn report(error: &Error) -> String {
    error.report().to_string()
}

/// Moves the clock ahead and lets it run on: what was due in between is due now. Works on the
/// current-thread runtime only.
pub(crate) async fn warp(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

/// Until this many lookups have failed, the last of them to its end.
pub(crate) async fn failures(dns: &ClusterDns, count: u64) {
    while dns.counters().failures < count {
        tokio::task::yield_now().await;
    }
}

/// Until this many lookups have come to their end. The clock must not be moved in the middle of one:
/// it would time out.
pub(crate) async fn refreshes(dns: &ClusterDns, count: u64) {
    while dns.counters().refreshes < count {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A port where nothing listens, of an address that no other test has: a port that is free now may
/// be taken in a moment.
pub(crate) fn closed_port() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 82, high, low);
    let socket = UdpSocket::bind((own, 0)).unwrap();
    socket.local_addr().unwrap()
}

/// A name server that takes questions and never answers.
pub(crate) struct Silent(UdpSocket);

impl Silent {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// How many datagrams have come since the last call.
    pub(crate) fn count(&self) -> usize {
        let mut buf = [0; 512];
        std::iter::from_fn(|| self.0.recv(&mut buf).ok()).count()
    }
}

/// A directory that goes away.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mesh-ingress-resolve-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A `nameserver` line for a server on any port.
pub(crate) fn nameserver_line(server: &DnsServer) -> String {
    format!(
        "nameserver [{}]:{}\n",
        server.addr().ip(),
        server.addr().port()
    )
}
