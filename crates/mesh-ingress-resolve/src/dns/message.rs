//! Reading answers: only Internet records whose owner is the name in question count.

use std::net::IpAddr;

use hickory_net::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_net::proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Where an alias points, and for how long.
pub(super) fn alias<'a>(records: &'a [Record], owner: &Name) -> Option<(&'a Name, u32)> {
    of(records, owner).find_map(|record| match &record.data {
        RData::CNAME(CNAME(target)) => Some((target, record.ttl)),
        _ => None,
    })
}

/// The addresses of a type that a name has, each once, and the shortest TTL among them.
pub(super) fn addresses(
    records: &[Record],
    owner: &Name,
    record_type: RecordType,
) -> (Vec<IpAddr>, u32) {
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    for record in of(records, owner) {
        let address = match &record.data {
            RData::A(A(address)) if record_type == RecordType::A => IpAddr::V4(*address),
            RData::AAAA(AAAA(address)) if record_type == RecordType::AAAA => IpAddr::V6(*address),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        addresses.push(address);
    }
    addresses.sort_unstable();
    addresses.dedup();
    (addresses, ttl)
}

/// Port and target of the SRV records of a name with the best priority, and their shortest TTL.
///
/// A target of "." says that the service is not there (RFC 2782). Weights are left aside: cluster
/// DNS gives all the same.
pub(super) fn services<'a>(records: &'a [Record], owner: &Name) -> (Vec<(u16, &'a Name)>, u32) {
    let mut found: Vec<(&SRV, u32)> = of(records, owner)
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some((srv, record.ttl)),
            _ => None,
        })
        .filter(|(srv, _)| srv.port != 0 && !srv.target.is_root())
        .collect();
    let best = found.iter().map(|(srv, _)| srv.priority).min();
    found.retain(|(srv, _)| Some(srv.priority) == best);
    let ttl = found.iter().map(|(_, ttl)| *ttl).min().unwrap_or(u32::MAX);
    let mut services: Vec<_> = found
        .iter()
        .map(|(srv, _)| (srv.port, &srv.target))
        .collect();
    services.sort_unstable();
    services.dedup();
    (services, ttl)
}

fn of<'a>(records: &'a [Record], owner: &Name) -> impl Iterator<Item = &'a Record> {
    records
        .iter()
        .filter(move |record| record.name == *owner && record.dns_class == DNSClass::IN)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        let address = A(Ipv4Addr::new(10, 0, 0, last));
        Record::from_rdata(name(owner), ttl, RData::A(address))
    }

    fn srv(priority: u16, port: u16, target: &str) -> Record {
        let srv = SRV::new(priority, 100, port, name(target));
        Record::from_rdata(name("_http._tcp.web."), 30, RData::SRV(srv))
    }

    #[test]
    fn records_of_other_names_do_not_count() {
        let records = [
            a("web.", 30, 1),
            a("evil.", 1, 2),
            a("WEB.", 20, 3),
            a("web.", 30, 1),
        ];
        let (found, ttl) = addresses(&records, &name("web."), RecordType::A);
        let expected: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 3].into()];
        assert_eq!(found, expected);
        assert_eq!(ttl, 20);
        assert!(
            addresses(&records, &name("web."), RecordType::AAAA)
                .0
                .is_empty()
        );
        assert_eq!(alias(&records, &name("web.")), None);
    }

    #[test]
    fn only_the_best_priority_and_real_targets() {
        let records = [
            srv(10, 81, "web."),
            srv(0, 80, "web."),
            srv(0, 80, "web."),
            srv(0, 0, "web."),
            srv(0, 80, "."),
        ];
        let (found, ttl) = services(&records, &name("_http._tcp.web."));
        assert_eq!(found, [(80, &name("web."))]);
        assert_eq!(ttl, 30);
        assert!(services(&records, &name("_grpc._tcp.web.")).0.is_empty());
    }
}
