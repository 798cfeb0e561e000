//! From the bytes of a query to the bytes of an answer.

use std::time::Duration;

use hickory_resolver::proto::op::{
    Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Records, Zone, key};
use super::{DnsQuery, Fault, Shared, Transport};

/// How many aliases are followed; a loop ends there.
const MAX_ALIASES: usize = 8;

/// The largest UDP answer, in bytes, to a client that does not say otherwise (RFC 1035 §2.3.4).
const MIN_UDP: u16 = 512;

/// The length of a header in bytes, the least that can be answered (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// How to answer a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Now(Vec<u8>),
    After(Duration, Vec<u8>),
    Never,
}

/// Logs a query and answers it.
pub(super) fn reply(shared: &Shared, bytes: &[u8], transport: Transport) -> Reply {
    let Ok(request) = Message::from_vec(bytes) else {
        return unreadable(bytes);
    };
    // Answering answers could go round for ever.
    if request.metadata.message_type != MessageType::Query {
        return Reply::Never;
    }
    let mut response = Message::new(
        request.metadata.id,
        MessageType::Response,
        request.metadata.op_code,
    );
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        // RFC 6891 §7: a query with an OPT record is answered with one.
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        response.set_edns(edns);
    }
    let [query] = request.queries.as_slice() else {
        return refuse(response, ResponseCode::FormErr);
    };
    if request.metadata.op_code != OpCode::Query {
        return refuse(response, ResponseCode::NotImp);
    }
    if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY) {
        return refuse(response, ResponseCode::Refused);
    }

    let name = key(&query.name);
    shared.queries.send_modify(|queries| {
        queries.push(DnsQuery {
            name: name.clone(),
            record_type: query.query_type.to_string(),
            transport,
        });
    });
    let zone = shared.zone();
    let mut delay = None;
    match zone.fault_of(&name) {
        None => {}
        Some(Fault::Drop) => return Reply::Never,
        Some(Fault::ServFail) => return refuse(response, ResponseCode::ServFail),
        Some(Fault::Refused) => return refuse(response, ResponseCode::Refused),
        Some(Fault::NxDomain) => {
            absent(&zone, &mut response, &name, ResponseCode::NXDomain);
            return encode(&response);
        }
        Some(Fault::Truncate) if transport == Transport::Udp => {
            return encode(&response.truncate());
        }
        Some(Fault::Truncate) => {}
        Some(Fault::Delay(wait)) => delay = Some(wait),
    }
    if answer(&zone, query, &mut response).is_none() {
        return refuse(response, ResponseCode::ServFail);
    }
    drop(zone);

    let limit = match transport {
        Transport::Udp => usize::from(request.max_payload().max(MIN_UDP)),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let reply = match encode(&response) {
        Reply::Now(bytes) if bytes.len() > limit => encode(&response.truncate()),
        reply => reply,
    };
    match (reply, delay) {
        (Reply::Now(bytes), Some(wait)) => Reply::After(wait, bytes),
        (reply, _) => reply,
    }
}

/// Fills in the answer. `None` when a record holds a name that is none.
fn answer(zone: &Zone, query: &Query, response: &mut Message) -> Option<()> {
    response.metadata.authoritative = true;
    // The question's own spelling, so that case survives (RFC 4343 §4.1).
    let mut owner = query.name.clone();
    let mut name = key(&owner);
    for _ in 0..MAX_ALIASES {
        let Some(records) = zone.get(&name) else {
            if zone.exists(&name) {
                absent(zone, response, &name, ResponseCode::NoError);
            } else if response.answers.is_empty() || zone.domain_of(&name).is_some() {
                absent(zone, response, &name, ResponseCode::NXDomain);
            }
            // Else an alias to a name that is not ours to deny.
            return Some(());
        };
        if let Some(target) = &records.cname
            && !matches!(query.query_type, RecordType::CNAME | RecordType::ANY)
        {
            let target_name = Name::from_ascii(target).ok()?;
            let alias = RData::CNAME(CNAME(target_name.clone()));
            response.add_answer(Record::from_rdata(owner, zone.ttl, alias));
            owner = target_name;
            name.clone_from(target);
            continue;
        }
        let found = data(records, query.query_type)?;
        if found.is_empty() {
            absent(zone, response, &name, ResponseCode::NoError);
        }
        for rdata in found {
            if let RData::SRV(srv) = &rdata
                && zone.srv_additionals
            {
                add_addresses(zone, &srv.target, response);
            }
            response.add_answer(Record::from_rdata(owner.clone(), zone.ttl, rdata));
        }
        return Some(());
    }
    Some(())
}

/// The data a name has of a type.
fn data(records: &Records, wanted: RecordType) -> Option<Vec<RData>> {
    let is = |record_type| wanted == record_type || wanted == RecordType::ANY;
    let mut found = Vec::new();
    if is(RecordType::A) {
        found.extend(records.a.iter().map(|a| RData::A(A(*a))));
    }
    if is(RecordType::AAAA) {
        found.extend(records.aaaa.iter().map(|aaaa| RData::AAAA(AAAA(*aaaa))));
    }
    if is(RecordType::SRV) {
        // CoreDNS shares the weight of 100 out among the targets.
        let weight = 100 / u16::try_from(records.srv.len().max(1)).unwrap_or(100);
        for (port, target) in &records.srv {
            let target = Name::from_ascii(target).ok()?;
            found.push(RData::SRV(SRV::new(0, weight, *port, target)));
        }
    }
    if is(RecordType::CNAME)
        && let Some(target) = &records.cname
    {
        found.push(RData::CNAME(CNAME(Name::from_ascii(target).ok()?)));
    }
    Some(found)
}

fn add_addresses(zone: &Zone, target: &Name, response: &mut Message) {
    let Some(records) = zone.get(&key(target)) else {
        return;
    };
    for record_type in [RecordType::A, RecordType::AAAA] {
        for rdata in data(records, record_type).into_iter().flatten() {
            let record = Record::from_rdata(target.clone(), zone.ttl, rdata);
            // Several ports of one target need its addresses once.
            if !response.additionals.contains(&record) {
                response.add_additional(record);
            }
        }
    }
}

/// Says that something is not there, with the SOA that says for how long (RFC 2308 §2, §5).
fn absent(zone: &Zone, response: &mut Message, name: &str, code: ResponseCode) {
    response.metadata.authoritative = true;
    response.metadata.response_code = code;
    let (apex, mname, rname) = match zone.domain_of(name) {
        Some(domain) => (
            domain.to_owned(),
            format!("ns.dns.{domain}"),
            format!("hostmaster.{domain}"),
        ),
        // As if forwarded: the root denies what is not the cluster's.
        None => (
            ".".to_owned(),
            "a.root-servers.net.".to_owned(),
            "nstld.verisign-grs.com.".to_owned(),
        ),
    };
    let names = [apex, mname, rname].map(Name::from_ascii);
    if let [Ok(apex), Ok(mname), Ok(rname)] = names {
        let soa = SOA::new(mname, rname, 1, 7200, 1800, 86400, zone.negative_ttl);
        response.add_authority(Record::from_rdata(apex, zone.negative_ttl, RData::SOA(soa)));
    }
}

fn refuse(mut response: Message, code: ResponseCode) -> Reply {
    response.answers.clear();
    response.metadata.response_code = code;
    encode(&response)
}

fn encode(response: &Message) -> Reply {
    match response.to_vec() {
        Ok(bytes) => Reply::Now(bytes),
        Err(_) => Reply::Never,
    }
}

/// FORMERR for what has at least a header to take the id from, silence for the rest.
fn unreadable(bytes: &[u8]) -> Reply {
    match bytes {
        [high, low, ..] if bytes.len() >= HEADER => {
            let id = u16::from_be_bytes([*high, *low]);
            encode(&Message::error_msg(
                id,
                OpCode::Query,
                ResponseCode::FormErr,
            ))
        }
        _ => Reply::Never,
    }
}
