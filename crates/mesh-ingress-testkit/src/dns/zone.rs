//! The records and faults of the server.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::Name;
use mesh_ingress_core::ClusterDomain;

use super::Fault;

/// CoreDNS's `kubernetes` plugin uses 5 seconds for both.
const DEFAULT_TTL: u32 = 5;

#[derive(Debug)]
pub(super) struct Zone {
    names: HashMap<String, Records>,
    /// The zones this server is the authority for, longest match first when asked.
    domains: Vec<String>,
    name_faults: HashMap<String, Fault>,
    pub(super) fault: Option<Fault>,
    pub(super) ttl: u32,
    pub(super) negative_ttl: u32,
    pub(super) srv_additionals: bool,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) a: Vec<Ipv4Addr>,
    pub(super) aaaa: Vec<Ipv6Addr>,
    /// Port and target.
    pub(super) srv: Vec<(u16, String)>,
    pub(super) cname: Option<String>,
}

impl Zone {
    /// The records of a name, to be set. A CNAME stands alone, so it goes.
    pub(super) fn entry(&mut self, name: &str) -> &mut Records {
        let records = self.names.entry(absolute(name)).or_default();
        records.cname = None;
        records
    }

    pub(super) fn alias(&mut self, name: &str, target: &str) {
        let records = Records {
            cname: Some(absolute(target)),
            ..Records::default()
        };
        self.names.insert(absolute(name), records);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.names.remove(&absolute(name));
    }

    pub(super) fn add_domain(&mut self, domain: &ClusterDomain) {
        let domain = absolute(domain.as_str());
        if !self.domains.contains(&domain) {
            self.domains.push(domain);
        }
    }

    pub(super) fn set_name_fault(&mut self, name: &str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.name_faults.insert(absolute(name), fault),
            None => self.name_faults.remove(&absolute(name)),
        };
    }

    /// The faults by name (absolute, lower-case).
    pub(super) fn fault_of(&self, name: &str) -> Option<Fault> {
        self.name_faults.get(name).copied().or(self.fault)
    }

    /// The records of a name (absolute, lower-case).
    pub(super) fn get(&self, name: &str) -> Option<&Records> {
        self.names.get(name)
    }

    /// Whether a name exists, with records of its own or as a parent of one that has (RFC 8020 §2).
    pub(super) fn exists(&self, name: &str) -> bool {
        self.names.keys().any(|known| is_within(known, name))
    }

    /// The zone that speaks for a name: the longest cluster domain around it, if any.
    pub(super) fn domain_of(&self, name: &str) -> Option<&str> {
        self.domains
            .iter()
            .filter(|domain| is_within(name, domain))
            .max_by_key(|domain| domain.len())
            .map(String::as_str)
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            domains: vec![absolute(ClusterDomain::default().as_str())],
            name_faults: HashMap::new(),
            fault: None,
            ttl: DEFAULT_TTL,
            negative_ttl: DEFAULT_TTL,
            srv_additionals: true,
        }
    }
}

/// A name as it is kept and logged: lower-case, with the trailing dot, escaped as in zone files.
pub(super) fn absolute(name: &str) -> String {
    match Name::from_ascii(name) {
        Ok(name) => key(&name),
        // No such name can be asked for, so what it is filed under does not matter.
        Err(_) => name.to_ascii_lowercase(),
    }
}

pub(super) fn key(name: &Name) -> String {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name.to_ascii()
}

/// Whether `name` is `parent` or below it, both absolute.
fn is_within(name: &str, parent: &str) -> bool {
    match name.strip_suffix(parent) {
        Some(below) => below.is_empty() || below.ends_with('.') || parent == ".",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filed_once() {
        for spelling in ["Web.default", "web.default.", "WEB.DEFAULT."] {
            assert_eq!(absolute(spelling), "web.default.");
        }
        assert_eq!(absolute("_http._tcp.web"), "_http._tcp.web.");
        assert_eq!(absolute("."), ".");
    }

    #[test]
    fn a_parent_exists_and_a_lookalike_does_not() {
        let mut zone = Zone::default();
        zone.entry("web.default.svc.cluster.local");
        assert!(zone.exists("default.svc.cluster.local."));
        assert!(zone.exists("."));
        assert!(!zone.exists("b.default.svc.cluster.local."));
        assert!(!zone.exists("eb.default.svc.cluster.local."));
        assert!(!zone.exists("x.web.default.svc.cluster.local."));
    }
}
