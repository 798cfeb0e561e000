//! A reference to a Kubernetes Service.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::name::{LabelRule, check_label};
use crate::{ClusterDomain, ParseError, Vhost};

/// A port of a Service, by number or by its name in `spec.ports[].name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServicePort {
    /// The *service* port (`spec.ports[].port`), not the pods' `targetPort`.
    Number(NonZeroU16),
    /// The name of a service port. Cluster DNS has its number (an SRV record).
    Name(Box<str>),
}

impl ServicePort {
    /// The port number, if it is known without DNS.
    #[must_use]
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Number(number) => Some(number.get()),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for ServicePort {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        parse_port(input).map_err(|reason| ParseError::new("service port", input, reason))
    }
}

/// A Kubernetes Service and one of its ports, written `name.namespace:port`.
///
/// The name follows RFC 1035 and the namespace RFC 1123, as the API server has them; the port is a
/// number from 1 to 65535 or a port name. `Display` writes the same form back.
///
/// ```
/// use mesh_ingress_core::{ServicePort, ServiceRef};
///
/// let by_name: ServiceRef = "web.default:http".parse()?;
/// assert_eq!(by_name.name(), "web");
/// assert_eq!(by_name.namespace(), "default");
/// assert_eq!(by_name.port(), &ServicePort::Name("http".into()));
/// assert_eq!(by_name.to_string(), "web.default:http");
/// # Ok::<(), mesh_ingress_core::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceRef {
    name: Box<str>,
    namespace: Box<str>,
    port: ServicePort,
}

impl ServiceRef {
    /// A reference from its parts, as an Ingress has them.
    ///
    /// # Errors
    /// When the name is no RFC 1035 label or the namespace no RFC 1123 label.
    pub fn new(name: &str, namespace: &str, port: ServicePort) -> Result<Self, ParseError> {
        Self::checked(name, namespace, port).map_err(|reason| {
            ParseError::new("service reference", &format!("{name}.{namespace}"), reason)
        })
    }

    /// The Service's `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Service's `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service port.
    #[must_use]
    pub fn port(&self) -> &ServicePort {
        &self.port
    }

    /// The vhost of the Service: `name.namespace.svc.<domain>`, without port and trailing dot.
    ///
    /// Every Istio version accepts this spelling from every namespace. (Older versions also list
    /// `host:port`, newer ones ignore the port; short names work in one namespace only.)
    #[must_use]
    pub fn vhost(&self, domain: &ClusterDomain) -> Vhost {
        Vhost::of_service(&self.fqdn(domain))
    }

    /// The name to query in cluster DNS: absolute, with the trailing dot, so that an `ndots:5` search
    /// list is never used.
    #[must_use]
    pub fn dns_name(&self, domain: &ClusterDomain) -> String {
        self.fqdn(domain) + "."
    }

    /// The SRV name of a named port, `_port._tcp.name.namespace.svc.<domain>.`, or `None` for a
    /// port given by number (Kubernetes DNS specification §2.3.2).
    #[must_use]
    pub fn srv_name(&self, domain: &ClusterDomain) -> Option<String> {
        match &self.port {
            ServicePort::Number(_) => None,
            ServicePort::Name(port) => Some(format!("_{port}._tcp.{}.", self.fqdn(domain))),
        }
    }

    fn fqdn(&self, domain: &ClusterDomain) -> String {
        format!("{}.{}.svc.{domain}", self.name, self.namespace)
    }

    fn checked(name: &str, namespace: &str, port: ServicePort) -> Result<Self, String> {
        check_label("service name", name, LabelRule::Rfc1035)?;
        check_label("namespace", namespace, LabelRule::Rfc1123)?;
        Ok(Self {
            name: name.into(),
            namespace: namespace.into(),
            port,
        })
    }
}

impl FromStr for ServiceRef {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        parse(input).map_err(|reason| ParseError::new("service reference", input, reason))
    }
}

fn parse(input: &str) -> Result<ServiceRef, String> {
    let (host, port) = input
        .split_once(':')
        .ok_or("it has no port, expected name.namespace:port such as web.default:80")?;
    let (name, namespace) = host
        .split_once('.')
        .ok_or("it has no namespace, expected name.namespace:port such as web.default:80")?;
    if let Some((namespace, rest)) = namespace.split_once('.') {
        return Err(format!(
            "it has \".{rest}\" after the namespace {namespace:?}; leave the cluster domain out, \
             expected name.namespace:port"
        ));
    }
    ServiceRef::checked(name, namespace, parse_port(port)?)
}

fn parse_port(port: &str) -> Result<ServicePort, String> {
    if port.is_empty() {
        return Err("the port is empty, expected a number or a port name".into());
    }
    if port.bytes().all(|b| b.is_ascii_digit()) {
        // "080" would be a second spelling of the same port, and so of the same Service.
        if port.len() > 1 && port.starts_with('0') {
            return Err(format!("port {port:?} has a leading zero"));
        }
        return match port.parse::<u16>().map(NonZeroU16::new) {
            Ok(Some(number)) => Ok(ServicePort::Number(number)),
            _ => Err(format!("port {port} is not between 1 and 65535")),
        };
    }
    check_label("port name", port, LabelRule::Rfc1123)?;
    Ok(ServicePort::Name(port.into()))
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:{}", self.name, self.namespace, self.port)
    }
}

impl fmt::Debug for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceRef({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_round_trips() {
        for text in [
            "web.default:80",
            "web.default:http",
            "a.b:1",
            "a.1b:65535",
            "web-2.kube-system:grpc-web",
            "web.default:8080-tcp",
        ] {
            assert_eq!(text.parse::<ServiceRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn error_names_the_invalid_part_of_a_reference() {
        for (text, reason) in [
            ("", "it has no port"),
            ("web", "it has no port"),
            ("web:80", "it has no namespace"),
            ("web.default", "it has no port"),
            ("web.default:", "the port is empty"),
            ("web.default:0", "port 0 is not between 1 and 65535"),
            ("web.default:080", "leading zero"),
            ("web.default:65536", "port 65536 is not between"),
            ("web.default:99999999999999999999", "is not between"),
            (".default:80", "the service name is empty"),
            ("web.:80", "the namespace is empty"),
            ("1web.default:80", "begins with a digit"),
            ("-web.default:80", "begins or ends with '-'"),
            ("web-.default:80", "begins or ends with '-'"),
            ("web.-default:80", "namespace \"-default\" begins or ends"),
            ("Web.default:80", "'W' at position 1"),
            ("we_b.default:80", "'_' at position 3"),
            ("wéb.default:80", "'é' at position 2"),
            ("web.default:ht tp", "' ' at position 3"),
            ("web.default:http:80", "':' at position 5"),
            (
                "web.default.svc.cluster.local:80",
                "leave the cluster domain out",
            ),
            ("web.default./etc:80", "leave the cluster domain out"),
            ("web .default:80", "' ' at position 4"),
            ("web.default:-80", "begins or ends with '-'"),
        ] {
            let error = text.parse::<ServiceRef>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        let long = format!("{}.default:80", "a".repeat(64));
        let error = long.parse::<ServiceRef>().unwrap_err().to_string();
        assert!(error.contains("64 characters"), "{error}");
    }

    #[test]
    fn vhost_dns_and_srv_names() {
        let domain: ClusterDomain = "k8s.example".parse().unwrap();
        let by_name: ServiceRef = "web.shop:http".parse().unwrap();
        assert_eq!(by_name.vhost(&domain).as_str(), "web.shop.svc.k8s.example");
        assert_eq!(by_name.dns_name(&domain), "web.shop.svc.k8s.example.");
        assert_eq!(
            by_name.srv_name(&domain).unwrap(),
            "_http._tcp.web.shop.svc.k8s.example."
        );
        let by_number: ServiceRef = "web.shop:80".parse().unwrap();
        assert_eq!(by_number.srv_name(&domain), None);
    }

    #[test]
    fn parts_are_checked_like_text() {
        let port = ServicePort::Number(NonZeroU16::MIN);
        assert!(ServiceRef::new("web", "default", port.clone()).is_ok());
        assert!(ServiceRef::new("web.evil", "default", port.clone()).is_err());
        assert!(ServiceRef::new("web", "svc.evil.com", port).is_err());
    }
}
