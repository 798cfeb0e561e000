//! A mock name server, for tests in virtual time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_net::proto::op::{Message, OpCode, ResponseCode};
use hickory_net::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_net::proto::rr::{Name, RData, Record, RecordType};
use tokio::time::Instant;

use super::builder::Settings;
use super::cause::{ServerFault, Unavailable};
use super::client::{DnsQuery, Fault};
use super::{Headless, IpFamilies};
use crate::AddressPolicy;

/// The answer to a type of question, and its delay.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Records(Vec<Record>),
    WithAdditionals(Vec<Record>, Vec<Record>),
    NoName,
    NoData,
    ServFail,
    Silence,
    Late(Duration, Box<Reply>),
}

/// Answers by record type and name, and keeps a log.
#[derive(Debug, Default)]
pub(super) struct MockNameServer {
    replies: Mutex<HashMap<(RecordType, Option<Name>), Reply>>,
    queries: Mutex<Vec<ReceivedQuery>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReceivedQuery {
    pub(super) at: Instant,
    pub(super) name: String,
    pub(super) record_type: RecordType,
}

impl MockNameServer {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Answers every question of a type.
    pub(super) fn reply(&self, record_type: RecordType, reply: Reply) {
        lock(&self.replies).insert((record_type, None), reply);
    }

    /// Answers questions of a type for one name.
    pub(super) fn reply_for(&self, name: &str, record_type: RecordType, reply: Reply) {
        lock(&self.replies).insert((record_type, Some(absolute(name))), reply);
    }

    pub(super) fn queries(&self) -> Vec<ReceivedQuery> {
        lock(&self.queries).clone()
    }

    pub(super) fn forget_queries(&self) {
        lock(&self.queries).clear();
    }
}

impl DnsQuery for MockNameServer {
    async fn query(&self, name: &Name, record_type: RecordType) -> Result<Message, Fault> {
        lock(&self.queries).push(ReceivedQuery {
            at: Instant::now(),
            name: name.to_string(),
            record_type,
        });
        let mut reply = {
            let replies = lock(&self.replies);
            replies
                .get(&(record_type, Some(name.clone())))
                .or_else(|| replies.get(&(record_type, None)))
                .cloned()
                .unwrap_or(Reply::NoData)
        };
        loop {
            reply = match reply {
                Reply::Late(delay, reply) => {
                    tokio::time::sleep(delay).await;
                    *reply
                }
                Reply::Records(records) => return Ok(message(records, [])),
                Reply::WithAdditionals(answers, additionals) => {
                    return Ok(message(answers, additionals));
                }
                Reply::NoName => {
                    return Err(Fault::NoName {
                        ttl: Some(secs(30)),
                    });
                }
                Reply::NoData => {
                    return Err(Fault::NoData {
                        ttl: Some(secs(30)),
                    });
                }
                Reply::ServFail => return Err(fault(ServerFault::Code(ResponseCode::ServFail))),
                Reply::Silence => {
                    tokio::time::sleep(secs(1)).await;
                    return Err(fault(ServerFault::TimedOut(secs(1))));
                }
            };
        }
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        domain: "cluster.local".parse().unwrap(),
        policy: AddressPolicy::default(),
        families: IpFamilies::V4,
        headless: Headless::Refuse,
        external: Vec::new(),
        min_ttl: secs(5),
        max_ttl: secs(60),
        max_stale: secs(600),
        resolve_timeout: secs(2),
    }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn absolute(name: &str) -> Name {
    let name = Name::from_ascii(name).unwrap();
    assert!(name.is_fqdn());
    name
}

pub(super) const WEB: &str = "web.default.svc.cluster.local.";

/// An address record of `web.default`.
pub(super) fn record(ttl: u32, address: &str) -> Record {
    record_of(WEB, ttl, address)
}

pub(super) fn record_of(owner: &str, ttl: u32, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(absolute(owner), ttl, data)
}

pub(super) fn alias_record(owner: &str, target: &str) -> Record {
    Record::from_rdata(absolute(owner), 30, RData::CNAME(CNAME(absolute(target))))
}

pub(super) fn srv_record(port: u16, target: &str) -> Record {
    let srv = SRV::new(0, 100, port, absolute(target));
    Record::from_rdata(absolute(&format!("_http._tcp.{WEB}")), 30, RData::SRV(srv))
}

pub(super) fn replies(ttl: u32, addresses: &[&str]) -> Reply {
    Reply::Records(
        addresses
            .iter()
            .map(|address| record(ttl, address))
            .collect(),
    )
}

pub(super) fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

fn message(
    answers: impl IntoIterator<Item = Record>,
    additionals: impl IntoIterator<Item = Record>,
) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.answers.extend(answers);
    message.additionals.extend(additionals);
    message
}

fn fault(fault: ServerFault) -> Fault {
    let server = SocketAddr::from(([10, 96, 0, 10], 53));
    Fault::Unavailable(Arc::new(Unavailable(vec![(server, fault)])))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
