//! From a service to its addresses.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hickory_net::proto::op::Message;
use hickory_net::proto::rr::{Name, RecordType};

use super::builder::Settings;
use super::cause::{Cause, Failure, Unavailable};
use super::client::{DnsQuery, Fault};
use super::message::{addresses, alias, services};
use super::question::{Port, Question};
use super::{Headless, IpFamilies};
use crate::ResolveError;

/// For how long the second family is waited for when the first is there (RFC 8305 §3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How many aliases are followed, one after the other.
const MOST_ALIASES: usize = 8;

/// The result of a lookup: at least one address that the policy accepts.
#[derive(Debug)]
pub(super) struct Found {
    /// IPv6 first.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) ttl: Duration,
    /// How many addresses the policy refused.
    pub(super) prohibited: usize,
    /// The family about which nothing is known, for want of an answer.
    pub(super) unknown: Option<Unknown>,
}

#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) is_v6: bool,
    /// `None` while the answer may still come.
    pub(super) error: Option<ResolveError>,
}

/// The addresses of one family.
#[derive(Debug)]
struct Addresses {
    found: Vec<IpAddr>,
    ttl: u32,
}

/// Why there are none.
#[derive(Debug)]
enum Miss {
    NoName { name: Name, ttl: Option<Duration> },
    NoData { ttl: Option<Duration> },
    Unavailable(Arc<Unavailable>),
    Forbidden(Failure),
}

type Family = Result<Addresses, Miss>;

/// Looks a service up. `early` is called if one family is there and the other takes its time.
pub(super) async fn look_up<A: DnsQuery>(
    client: &A,
    question: &Question,
    settings: &Settings,
    early: &mut (dyn FnMut(Found) + Send),
) -> Result<Found, Failure> {
    let is_too_long =
        question.name.is_root() || matches!(&question.port, Port::Named(srv) if srv.is_root());
    if is_too_long {
        return Err(Failure::forbidden(Cause::NotAName {
            service: question.service.clone(),
        }));
    }
    match &question.port {
        Port::Number(port) => {
            by_name(client, &question.name, *port, u32::MAX, settings, early).await
        }
        Port::Named(srv) => by_port_name(client, question, srv, settings, early).await,
    }
}

async fn by_port_name<A: DnsQuery>(
    client: &A,
    question: &Question,
    srv: &Name,
    settings: &Settings,
    early: &mut (dyn FnMut(Found) + Send),
) -> Result<Found, Failure> {
    let no_port = |ttl| Failure::absent(Cause::NoPort { name: srv.clone() }, ttl);
    let answer = match client.query(srv, RecordType::SRV).await {
        Ok(answer) => answer,
        Err(Fault::NoName { ttl } | Fault::NoData { ttl }) => return Err(no_port(ttl)),
        Err(Fault::Unavailable(servers)) => return Err(Failure::unavailable(srv, &servers)),
    };
    if let Some((target, _)) = alias(&answer.answers, srv) {
        check_alias(srv, target, settings)?;
        return Err(Failure::forbidden(Cause::AliasedPort {
            name: srv.clone(),
            target: target.clone(),
        }));
    }
    let (services, ttl) = services(&answer.answers, srv);
    if services.is_empty() {
        return Err(no_port(None));
    }
    if let Some((_, target)) = services
        .iter()
        .find(|(_, target)| !question.name.zone_of(target))
    {
        return Err(Failure::forbidden(Cause::ForeignTarget {
            name: srv.clone(),
            target: (*target).clone(),
        }));
    }
    // The target of a Service is the Service, that of a headless one are its pods: here even one
    // pod can be told from a ClusterIP.
    if settings.headless == Headless::Refuse
        && services.iter().any(|(_, target)| **target != question.name)
    {
        return Err(Failure::forbidden(Cause::Headless {
            name: question.name.clone(),
            count: services.len(),
        }));
    }
    if let Some(brought) = brought_along(&answer, &services, ttl, settings) {
        return brought.checked(&question.name, settings);
    }
    // The Service's own name has the addresses of all its pods, too.
    match services.first() {
        Some((port, _)) if services.iter().all(|(other, _)| other == port) => {
            by_name(client, &question.name, *port, ttl, settings, early).await
        }
        _ => Err(Failure::forbidden(Cause::PortsDiffer {
            service: question.service.clone(),
        })),
    }
}

/// The addresses of all targets, if the answer has them.
fn brought_along(
    answer: &Message,
    services: &[(u16, &Name)],
    ttl: u32,
    settings: &Settings,
) -> Option<Unchecked> {
    let mut all = Unchecked {
        addresses: Vec::new(),
        ttl,
        unknown: None,
    };
    for (port, target) in services {
        let before = all.addresses.len();
        for record_type in types(settings.families) {
            let (found, ttl) = addresses(&answer.additionals, target, *record_type);
            all.ttl = all.ttl.min(ttl);
            all.addresses
                .extend(found.iter().map(|ip| SocketAddr::new(*ip, *port)));
        }
        if all.addresses.len() == before {
            return None;
        }
    }
    Some(all)
}

async fn by_name<A: DnsQuery>(
    client: &A,
    name: &Name,
    port: u16,
    ttl: u32,
    settings: &Settings,
    early: &mut (dyn FnMut(Found) + Send),
) -> Result<Found, Failure> {
    let v4 = family(client, name, RecordType::A, settings);
    let v6 = family(client, name, RecordType::AAAA, settings);
    let (v4, v6) = match settings.families {
        IpFamilies::V4 => (Some(v4.await), None),
        IpFamilies::V6 => (None, Some(v6.await)),
        IpFamilies::Both => {
            let (v4, v6) = both(v4, v6, |v4, v6| {
                let is_v6 = v4.is_some();
                let mut some = Unchecked::of(v4, v6, port, ttl);
                some.unknown = Some(Unknown { is_v6, error: None });
                if let Ok(found) = some.checked(name, settings) {
                    early(found);
                }
            })
            .await;
            (Some(v4), Some(v6))
        }
    };
    let mut all = Unchecked::of(ok(&v4), ok(&v6), port, ttl);
    let misses = [miss(v4), miss(v6)];
    if all.addresses.is_empty() {
        return Err(most_severe(name, settings, misses));
    }
    for (miss, is_v6) in misses.into_iter().zip([false, true]) {
        match miss {
            Some(Miss::Unavailable(servers)) => {
                let error = Failure::unavailable(name, &servers).error;
                all.unknown = Some(Unknown {
                    is_v6,
                    error: Some(error),
                });
            }
            // An alias that is refused is refused in both families.
            Some(Miss::Forbidden(failure)) => return Err(failure),
            _ => {}
        }
    }
    all.checked(name, settings)
}

/// Waits for both families, and tells when one has addresses and the other takes long.
async fn both(
    v4: impl Future<Output = Family>,
    v6: impl Future<Output = Family>,
    tell: impl FnOnce(Option<&Addresses>, Option<&Addresses>),
) -> (Family, Family) {
    match select(pin!(v4), pin!(v6)).await {
        Either::Left((v4, v6)) => {
            let v6 = patiently(v6, v4.as_ref().ok(), |v4| tell(Some(v4), None)).await;
            (v4, v6)
        }
        Either::Right((v6, v4)) => {
            let v4 = patiently(v4, v6.as_ref().ok(), |v6| tell(None, Some(v6))).await;
            (v4, v6)
        }
    }
}

async fn patiently(
    mut second: impl Future<Output = Family> + Unpin,
    first: Option<&Addresses>,
    tell: impl FnOnce(&Addresses),
) -> Family {
    if let Some(first) = first {
        match tokio::time::timeout(RESOLUTION_DELAY, &mut second).await {
            Ok(second) => return second,
            Err(_) => tell(first),
        }
    }
    second.await
}

/// Asks for one family, along aliases that may be followed.
async fn family<A: DnsQuery>(
    client: &A,
    name: &Name,
    record_type: RecordType,
    settings: &Settings,
) -> Family {
    let (mut asked, mut ttl, mut steps) = (name.clone(), u32::MAX, 0);
    loop {
        let answer = client
            .query(&asked, record_type)
            .await
            .map_err(|fault| match fault {
                Fault::NoName { ttl } => Miss::NoName {
                    name: asked.clone(),
                    ttl,
                },
                Fault::NoData { ttl } => Miss::NoData { ttl },
                Fault::Unavailable(servers) => Miss::Unavailable(servers),
            })?;
        let mut end = asked.clone();
        while let Some((target, alias_ttl)) = alias(&answer.answers, &end) {
            check_alias(name, target, settings).map_err(Miss::Forbidden)?;
            steps += 1;
            if steps > MOST_ALIASES {
                let cause = Cause::TooManyAliases { name: name.clone() };
                return Err(Miss::Forbidden(Failure::forbidden(cause)));
            }
            ttl = ttl.min(alias_ttl);
            end = target.clone();
        }
        let (found, found_ttl) = addresses(&answer.answers, &end, record_type);
        if !found.is_empty() {
            let ttl = ttl.min(found_ttl);
            return Ok(Addresses { found, ttl });
        }
        if end == asked {
            return Err(Miss::NoData { ttl: None });
        }
        asked = end;
    }
}

fn check_alias(name: &Name, target: &Name, settings: &Settings) -> Result<(), Failure> {
    if settings
        .external
        .iter()
        .any(|domain| domain.zone_of(target))
    {
        return Ok(());
    }
    Err(Failure::forbidden(Cause::ExternalName {
        name: name.clone(),
        target: target.clone(),
    }))
}

fn types(families: IpFamilies) -> &'static [RecordType] {
    match families {
        IpFamilies::V4 => &[RecordType::A],
        IpFamilies::V6 => &[RecordType::AAAA],
        IpFamilies::Both => &[RecordType::AAAA, RecordType::A],
    }
}

fn ok(family: &Option<Family>) -> Option<&Addresses> {
    family.as_ref().and_then(|family| family.as_ref().ok())
}

fn miss(family: Option<Family>) -> Option<Miss> {
    family.and_then(Result::err)
}

/// The failure to report when no family has addresses.
fn most_severe(name: &Name, settings: &Settings, misses: [Option<Miss>; 2]) -> Failure {
    let (mut no_name, mut unavailable, mut shortest) = (None, None, None);
    for miss in misses.into_iter().flatten() {
        match miss {
            Miss::Forbidden(failure) => return failure,
            // NXDOMAIN for one type holds for all (RFC 8020 §2).
            Miss::NoName { name, ttl } => no_name = Some((name, ttl)),
            Miss::Unavailable(servers) => unavailable = Some(servers),
            Miss::NoData { ttl } => shortest = [shortest, ttl].into_iter().flatten().min(),
        }
    }
    if let Some((name, ttl)) = no_name {
        return Failure::absent(Cause::NoName { name }, ttl);
    }
    if let Some(servers) = unavailable {
        return Failure::unavailable(name, &servers);
    }
    let types = match settings.families {
        IpFamilies::V4 => "A",
        IpFamilies::V6 => "AAAA",
        IpFamilies::Both => "A or AAAA",
    };
    let name = name.clone();
    Failure::absent(Cause::NoData { name, types }, shortest)
}

/// Addresses that the policy has not seen yet.
#[derive(Debug)]
struct Unchecked {
    addresses: Vec<SocketAddr>,
    ttl: u32,
    unknown: Option<Unknown>,
}

impl Unchecked {
    fn of(v4: Option<&Addresses>, v6: Option<&Addresses>, port: u16, ttl: u32) -> Self {
        let families = [v6, v4];
        let found = families.iter().copied().flatten();
        Self {
            ttl: found.clone().map(|family| family.ttl).fold(ttl, u32::min),
            addresses: found
                .flat_map(|family| &family.found)
                .map(|ip| SocketAddr::new(*ip, port))
                .collect(),
            unknown: None,
        }
    }

    fn checked(self, name: &Name, settings: &Settings) -> Result<Found, Failure> {
        let (good, bad): (Vec<_>, Vec<_>) = self
            .addresses
            .into_iter()
            .partition(|address| settings.policy.accepts(address.ip()));
        if good.is_empty() {
            return Err(Failure::forbidden(Cause::Prohibited {
                name: name.clone(),
                addresses: bad.iter().map(SocketAddr::ip).collect(),
            }));
        }
        Ok(Found {
            addresses: good,
            ttl: Duration::from_secs(self.ttl.into()),
            prohibited: bad.len(),
            unknown: self.unknown,
        })
    }
}

#[cfg(test)]
mod tests;
