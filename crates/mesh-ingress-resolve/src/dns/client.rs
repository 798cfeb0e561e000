//! One question to the name servers.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_net::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Message, Query, ResponseCode,
};
use hickory_net::proto::rr::{Name, RecordType};
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsHandle, DnsRequestSender, FirstAnswer};
use hickory_net::{DnsError, NetError};

use super::cause::{ServerFault, Unavailable};
use super::servers::Servers;
use super::state::Stats;
use super::transport::ConnectedUdp;

/// Answers DNS questions: the name servers, or a mock in tests.
pub(super) trait DnsQuery: fmt::Debug + Send + Sync + 'static {
    /// Asks for the records of a type that a name has. An answer is not empty, but may hold an
    /// alias only.
    fn query(
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
    /// No server gave a usable answer.
    Unavailable(Arc<Unavailable>),
}

/// Asks the name servers, one after the other.
///
/// Hickory encodes, sends, repeats and matches answers to questions. Its resolver is not used: that
/// would follow aliases before we could refuse to, answer some names by itself, and lose why a
/// server could not be reached.
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

    async fn ask_one(&self, server: SocketAddr, query: &Query) -> Result<Message, Refusal> {
        self.stats.queries.add(1);
        match tokio::time::timeout(self.timeout, exchange(server, query, self.timeout)).await {
            Ok(Ok(response)) => DnsError::from_response(response)
                .map(DnsResponse::into_message)
                .map_err(|error| Refusal::of(NetError::Dns(error), self.timeout)),
            Ok(Err(error)) => Err(Refusal::of(error, self.timeout)),
            Err(_) => Err(Refusal::of(NetError::Timeout, self.timeout)),
        }
    }
}

/// One question and its answer. Nothing is kept: each question has a socket of its own in any case,
/// against forged answers, and so nothing outlives the task that asks or its runtime.
async fn exchange(
    server: SocketAddr,
    query: &Query,
    timeout: Duration,
) -> Result<DnsResponse, NetError> {
    let provider = ConnectedUdp::to(server);
    let request = DnsRequest::from_query(query.clone(), DnsRequestOptions::default());
    let answer = UdpClientStream::builder(server, provider.clone())
        .with_timeout(Some(timeout))
        .build()
        .send_message(request.clone())
        .first_answer()
        .await?;
    if !answer.truncation {
        return Ok(answer);
    }
    // RFC 7766 §5. Lives no longer than this function: the provider ends its task.
    let in_full = async {
        let answer = TcpClientStream::exchange(server, None, timeout, None, provider.clone())
            .await?
            .send(request)
            .first_answer()
            .await?;
        if answer.truncation {
            return Err(NetError::Truncated);
        }
        Ok(answer)
    };
    in_full.await.map_err(|error| match error {
        NetError::Timeout => NetError::Timeout,
        error => NetError::Msg(format!("the answer is truncated, and over TCP: {error}")),
    })
}

/// Why one name server is of no use, or why none is needed.
enum Refusal {
    Answer(Fault),
    Server(ServerFault),
}

impl Refusal {
    fn of(error: NetError, timeout: Duration) -> Self {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => {
                let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
                Self::Answer(match none.response_code {
                    ResponseCode::NXDomain => Fault::NoName { ttl },
                    _ => Fault::NoData { ttl },
                })
            }
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Server(ServerFault::Code(code)),
            NetError::Io(error) => Self::Server(ServerFault::Io(error)),
            NetError::Timeout => Self::Server(ServerFault::TimedOut(timeout)),
            error => Self::Server(ServerFault::Odd(error.to_string())),
        }
    }
}

impl DnsQuery for Client {
    async fn query(&self, name: &Name, record_type: RecordType) -> Result<Message, Fault> {
        self.servers.reload();
        let query = Query::query(name.clone(), record_type);
        let mut faults = Vec::new();
        for (index, server) in self.servers.in_order() {
            let fault = match self.ask_one(server, &query).await {
                Ok(message) => {
                    self.servers.answered(index);
                    return Ok(message);
                }
                Err(Refusal::Answer(fault)) => {
                    self.servers.answered(index);
                    return Err(fault);
                }
                Err(Refusal::Server(fault)) => fault,
            };
            tracing::debug!(%name, %record_type, %server, ?fault, "a name server is of no use");
            faults.push((server, fault));
        }
        Err(Fault::Unavailable(Arc::new(Unavailable(faults))))
    }
}
