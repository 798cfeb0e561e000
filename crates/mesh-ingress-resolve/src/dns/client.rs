//! One question to the name servers.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::cause::{ServerFault, Unavailable};
use super::servers::Servers;
use super::state::Stats;
use super::transport::ConnectedUdp;

/// Whoever answers questions: the name servers, or a script in a test.
pub(super) trait Ask: fmt::Debug + Send + Sync + 'static {
    /// Asks for the records of a type that a name has. An answer is not empty, but may hold an
    /// alias only.
    fn ask(
        &self,
        name: &Name,
        record_type: RecordType,
    ) -> impl Future<Output = Result<Message, Fault>> + Send;
}

/// Why a question has no answer with records in it.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// NXDOMAIN: there is no such name, whatever the type (RFC 8020).
    NoName { ttl: Option<Duration> },
    /// There is such a name, without records of that type.
    NoData { ttl: Option<Duration> },
    /// Nobody could say.
    Unavailable(Arc<Unavailable>),
}

/// Asks the name servers, one after the other.
///
/// Hickory sends, repeats, matches answers to questions and turns to TCP. Its resolver is not used:
/// that would follow aliases before we could refuse to, and answer some names by itself.
#[derive(Debug)]
pub(super) struct Client {
    servers: Servers,
    timeout: Duration,
    stats: Arc<Stats>,
}

impl Client {
    pub(super) fn new(servers: Servers, timeout: Duration, stats: Arc<Stats>) -> Self {
        Self {
            servers,
            timeout,
            stats,
        }
    }

    async fn ask_one(&self, server: SocketAddr, query: Query) -> Result<Message, NetError> {
        self.stats.queries.add(1);
        // A pool of its own for each question: no connection outlives the task that asks, whichever
        // runtime that runs in, and UDP has a fresh port for each question in any case.
        let pool = pool(server, self.timeout)?;
        let answer = pool.lookup(query, DnsRequestOptions::default());
        match tokio::time::timeout(self.timeout, answer.first_answer()).await {
            Ok(answer) => answer.map(DnsResponse::into_message),
            Err(_) => Err(NetError::Timeout),
        }
    }
}

impl Ask for Client {
    async fn ask(&self, name: &Name, record_type: RecordType) -> Result<Message, Fault> {
        self.servers.reload();
        let query = Query::query(name.clone(), record_type);
        let mut faults = Vec::new();
        for (index, server) in self.servers.in_order() {
            let fault = match self.ask_one(server, query.clone()).await {
                Ok(message) => {
                    self.servers.answered(index);
                    return Ok(message);
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                    self.servers.answered(index);
                    let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
                    return Err(match none.response_code {
                        ResponseCode::NXDomain => Fault::NoName { ttl },
                        _ => Fault::NoData { ttl },
                    });
                }
                Err(NetError::Dns(DnsError::ResponseCode(code))) => ServerFault::Code(code),
                Err(NetError::Io(error)) => ServerFault::Io(error),
                Err(NetError::Timeout) => ServerFault::TimedOut(self.timeout),
                Err(error) => ServerFault::Odd(error.to_string()),
            };
            tracing::debug!(%name, %record_type, %server, ?fault, "a name server is of no use");
            faults.push((server, fault));
        }
        Err(Fault::Unavailable(Arc::new(Unavailable(faults))))
    }
}

fn pool(server: SocketAddr, timeout: Duration) -> Result<NameServerPool<ConnectedUdp>, NetError> {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    udp.port = server.port();
    tcp.port = server.port();
    // UDP first, TCP when the answer is truncated.
    let config = NameServerConfig::new(server.ip(), true, vec![udp, tcp]);
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.num_concurrent_reqs = 1;
    let context = PoolContext::new(options, TlsConfig::new()?);
    Ok(NameServerPool::from_config(
        [config],
        Arc::new(context),
        ConnectedUdp::to(server),
    ))
}
