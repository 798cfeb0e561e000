//! The DNS question for a service, prepared once.

use hickory_net::proto::rr::Name;
use mesh_ingress_core::{ClusterDomain, ServiceRef};

#[derive(Debug)]
pub(super) struct Question {
    pub(super) service: ServiceRef,
    /// The name of the service: absolute. The root if its parts are too long for a name.
    pub(super) name: Name,
    pub(super) port: Port,
}

#[derive(Debug)]
pub(super) enum Port {
    Number(u16),
    /// The name whose SRV record has the number; the root likewise.
    Named(Name),
}

impl Question {
    pub(super) fn new(service: &ServiceRef, domain: &ClusterDomain) -> Self {
        let port = match service.port().number() {
            Some(number) => Port::Number(number),
            None => Port::Named(absolute(&service.srv_name(domain).unwrap_or_default())),
        };
        Self {
            service: service.clone(),
            name: absolute(&service.dns_name(domain)),
            port,
        }
    }
}

fn absolute(text: &str) -> Name {
    // Each label is checked, but not what they add up to.
    Name::from_ascii(text).unwrap_or_else(|_| Name::root())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_absolute() {
        let domain = ClusterDomain::default();
        let by_name = Question::new(&"web.default:http".parse().unwrap(), &domain);
        assert!(by_name.name.is_fqdn());
        assert_eq!(by_name.name.to_string(), "web.default.svc.cluster.local.");
        let Port::Named(srv) = by_name.port else {
            panic!("{by_name:?}")
        };
        assert!(srv.is_fqdn());
        assert_eq!(srv.to_string(), "_http._tcp.web.default.svc.cluster.local.");
        let by_number = Question::new(&"web.default:80".parse().unwrap(), &domain);
        assert!(matches!(by_number.port, Port::Number(80)));
    }

    #[test]
    fn too_long_to_be_a_name() {
        let label = "a".repeat(63);
        let domain = ClusterDomain::default();
        // "_" and 63 more make a label of 64 (RFC 1035 §2.3.4: 63 at most).
        let service: ServiceRef = format!("web.default:{label}").parse().unwrap();
        let question = Question::new(&service, &domain);
        assert!(!question.name.is_root());
        assert!(matches!(question.port, Port::Named(srv) if srv.is_root()));
        // All labels at their longest are a name still.
        let service: ServiceRef = format!("{label}.{label}:80").parse().unwrap();
        let domain = format!("{0}.{0}", "b".repeat(59)).parse().unwrap();
        assert!(!Question::new(&service, &domain).name.is_root());
    }
}
