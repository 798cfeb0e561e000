//! A fake of cluster DNS.

mod answer;
mod serve;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_ingress_core::{ClusterDomain, ServiceRef};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::zone::{Zone, absolute};
use crate::socket::{Closable, bind_udp_and_tcp};

/// Cluster DNS as a gateway sees it: real UDP and TCP on one port, answering as CoreDNS's
/// `kubernetes` plugin does, with faults on demand and a log of what was asked.
///
/// * Names are absolute and case-insensitive; a trailing dot may be left out when setting them. The
///   case of the question is kept in the answer (RFC 4343 §4.1).
/// * A name without records of the asked type is NODATA, an unknown one NXDOMAIN, both with a SOA
///   that carries the negative TTL (RFC 2308 §2). The parent of a known name exists, too (RFC 8020).
/// * A CNAME is followed inside the server, in the same answer (RFC 1034 §3.6.2). One that points at
///   a name this server does not have is answered alone if the target is outside the cluster domain,
///   and as NXDOMAIN (RFC 6604 §3) if it is inside.
/// * Over UDP an answer longer than the client takes (512 bytes, or what its EDNS says) is
///   truncated with the TC bit, as for a headless Service of many pods.
///
/// Changes take effect with the next query. The server stops when dropped.
///
/// ```
/// use std::net::Ipv4Addr;
/// use mesh_ingress_testkit::{DnsServer, Fault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let dns = DnsServer::start().await?;
/// dns.set_a("web.default.svc.cluster.local", [Ipv4Addr::new(10, 96, 0, 7)]);
/// dns.set_srv("_http._tcp.web.default.svc.cluster.local", 80, "web.default.svc.cluster.local");
/// dns.set_ttl(30);
/// // CoreDNS while its caches are not synced:
/// dns.set_fault(Some(Fault::ServFail));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DnsServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    udp: Closable<UdpSocket>,
    tcp: Closable<TcpListener>,
    _tasks: JoinSet<()>,
}

/// A fault of a [`DnsServer`], injected by a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Answers SERVFAIL, as CoreDNS does until its caches are synced.
    ServFail,
    /// Answers REFUSED.
    Refused,
    /// Answers NXDOMAIN with a SOA, whatever is known.
    NxDomain,
    /// Does not answer. The query is logged.
    Drop,
    /// Over UDP answers nothing but the TC bit; over TCP answers in full.
    Truncate,
    /// Answers rightly, so much later (tokio's time: a test may pause it).
    Delay(Duration),
}

/// One question that reached a [`DnsServer`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DnsQuery {
    /// The name: absolute, lower-case, with the trailing dot.
    pub name: String,
    /// The record type as in zone files: `A`, `AAAA`, `SRV` …
    pub record_type: String,
    /// How it came.
    pub transport: Transport,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// State that the server and its tasks share.
#[derive(Debug)]
struct Shared {
    zone: Mutex<Zone>,
    queries: watch::Sender<Vec<DnsQuery>>,
}

impl DnsServer {
    /// Starts a server on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts a server on an address, UDP and TCP. The port of a server that was dropped can be
    /// taken again at once, to test how an outage ends.
    ///
    /// # Errors
    /// When the address cannot be bound for both.
    pub async fn start_on(addr: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = bind_udp_and_tcp(addr).await?;
        let addr = udp.local_addr()?;
        let (udp, tcp) = (Closable::new(udp), Closable::new(tcp));
        let shared = Arc::new(Shared {
            zone: Mutex::new(Zone::default()),
            queries: watch::Sender::new(Vec::new()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::udp(udp.clone(), Arc::clone(&shared)));
        tasks.spawn(serve::tcp(tcp.clone(), Arc::clone(&shared)));
        Ok(Self {
            addr,
            shared,
            udp,
            tcp,
            _tasks: tasks,
        })
    }

    /// The address, the same for UDP and TCP.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Replaces the A records of a name. With none, the name exists and has no data.
    pub fn set_a(&self, name: &str, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        self.zone().entry(name).a = addresses.into_iter().collect();
    }

    /// Replaces the AAAA records of a name. With none, the name exists and has no data.
    pub fn set_aaaa(&self, name: &str, addresses: impl IntoIterator<Item = Ipv6Addr>) {
        self.zone().entry(name).aaaa = addresses.into_iter().collect();
    }

    /// Replaces the SRV records of a name by one. Answers carry the target's addresses as
    /// additional records, see [`set_srv_additionals`](Self::set_srv_additionals).
    pub fn set_srv(&self, name: &str, port: u16, target: &str) {
        self.zone().entry(name).srv = vec![(port, absolute(target))];
    }

    /// Adds a SRV record, as a headless Service has one for each pod.
    pub fn add_srv(&self, name: &str, port: u16, target: &str) {
        self.zone().entry(name).srv.push((port, absolute(target)));
    }

    /// Makes a name an alias, as an ExternalName Service is. It replaces all other records of the
    /// name; setting one of those removes it (RFC 1034 §3.6.2).
    pub fn set_cname(&self, name: &str, target: &str) {
        self.zone().alias(name, target);
    }

    /// Forgets a name: it is NXDOMAIN from now on.
    pub fn remove(&self, name: &str) {
        self.zone().remove(name);
    }

    /// Adds the address record of a Service. Give both families in two calls for a dual-stack one.
    pub fn add_service(&self, service: &ServiceRef, domain: &ClusterDomain, cluster_ip: IpAddr) {
        let name = service.dns_name(domain);
        self.zone().add_domain(domain);
        match cluster_ip {
            IpAddr::V4(address) => self.set_a(&name, [address]),
            IpAddr::V6(address) => self.set_aaaa(&name, [address]),
        }
    }

    /// Like [`add_service`](Self::add_service), and tells the number of the Service's named port in
    /// a SRV record. A port given by number has no such record, in a cluster as here.
    pub fn add_service_port(
        &self,
        service: &ServiceRef,
        domain: &ClusterDomain,
        cluster_ip: IpAddr,
        port: u16,
    ) {
        self.add_service(service, domain, cluster_ip);
        if let Some(name) = service.srv_name(domain) {
            self.set_srv(&name, port, &service.dns_name(domain));
        }
    }

    /// Sets the TTL of all records, in seconds; 5 at first, as CoreDNS's `kubernetes` plugin has it.
    pub fn set_ttl(&self, seconds: u32) {
        self.zone().ttl = seconds;
    }

    /// Sets how long an absence may be remembered (the TTL and minimum of the SOA, RFC 2308 §5), in
    /// seconds; 5 at first.
    pub fn set_negative_ttl(&self, seconds: u32) {
        self.zone().negative_ttl = seconds;
    }

    /// Sets whether SRV answers carry the addresses of their targets; they do at first.
    pub fn set_srv_additionals(&self, on: bool) {
        self.zone().srv_additionals = on;
    }

    /// Sets what goes wrong for all names; `None` makes the server well again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.zone().fault = fault;
    }

    /// Sets what goes wrong for one queried name. It goes before the fault for all names.
    pub fn set_name_fault(&self, name: &str, fault: Option<Fault>) {
        self.zone().set_name_fault(name, fault);
    }

    /// Every query since the start or the last [`clear_queries`](Self::clear_queries), in order.
    #[must_use]
    pub fn queries(&self) -> Vec<DnsQuery> {
        self.shared.queries.borrow().clone()
    }

    /// Forgets the queries so far.
    pub fn clear_queries(&self) {
        self.shared.queries.send_modify(Vec::clear);
    }

    /// Waits until at least `count` queries have been logged since the start or the last
    /// [`clear_queries`](Self::clear_queries). Queries are logged before they are answered.
    pub async fn wait_for_queries(&self, count: usize) {
        let mut queries = self.shared.queries.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = queries.wait_for(|queries| queries.len() >= count).await;
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.shared.zone()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.udp.close();
        self.tcp.close();
    }
}

impl Shared {
    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
