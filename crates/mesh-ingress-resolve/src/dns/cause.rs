//! Failures of a lookup, with messages that name the likely cause.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_net::proto::op::ResponseCode;
use hickory_net::proto::rr::Name;
use mesh_ingress_core::{ErrorKind, ServiceRef};
use thiserror::Error;

use crate::ResolveError;

/// A lookup without an address.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) error: ResolveError,
    /// How many addresses the policy refused.
    pub(super) prohibited: usize,
}

/// Whether the previous answer still holds after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// No server answered: the previous answer is the best there is.
    Unavailable,
    /// The name does not exist any more. Believed when two answers in a row say so.
    Absent { ttl: Option<Duration> },
    /// The name now has addresses that may not be used.
    Forbidden,
}

#[derive(Debug, Error)]
pub(super) enum Cause {
    #[error(
        "{name} does not exist (NXDOMAIN): is the Service's name, its namespace and the cluster \
         domain right?"
    )]
    NoName { name: Name },
    #[error(
        "{name} has no {types} record (NODATA): is it a Service of the other IP family, or a \
         headless one without ready pods?"
    )]
    NoData { name: Name, types: &'static str },
    #[error(
        "{name} has no SRV record: does the Service exist, and has it a TCP port of that name? \
         (spec.ports[].name, not the number and not the pods' port)"
    )]
    NoPort { name: Name },
    #[error(
        "{name} resolves to {}, which the address policy refuses",
        Join(addresses)
    )]
    Prohibited { name: Name, addresses: Vec<IpAddr> },
    #[error(
        "{name} is headless (clusterIP: None), it resolves to the addresses of {count} pods; a \
         mesh expects a ClusterIP: give it one, or set the headless policy to spread"
    )]
    Headless { name: Name, count: usize },
    #[error(
        "{name} is an alias of {target} (a Service of type ExternalName?), and the policy does not \
         follow aliases there"
    )]
    ExternalName { name: Name, target: Name },
    #[error("{name} is an alias of {target}, which says nothing about its port: give it by number")]
    AliasedPort { name: Name, target: Name },
    #[error("{service} is too long to be a DNS name (RFC 1035 §2.3.4)")]
    NotAName { service: ServiceRef },
    #[error("{name} leads over too many aliases: do they run in a circle?")]
    TooManyAliases { name: Name },
    #[error("the SRV record of {name} points to {target}, which is not of that Service")]
    ForeignTarget { name: Name, target: Name },
    #[error("the SRV records of {service} have different ports and bring no addresses along")]
    PortsDiffer { service: ServiceRef },
    #[error("{} for {name}: {servers}", servers.heading())]
    Unavailable {
        name: Name,
        #[source]
        servers: Arc<Unavailable>,
    },
}

/// Why no name server gave a usable answer.
#[derive(Debug)]
pub(super) struct Unavailable(pub(super) Vec<(SocketAddr, ServerFault)>);

/// How one name server failed.
#[derive(Clone, Debug)]
pub(super) enum ServerFault {
    Io(Arc<io::Error>),
    TimedOut(Duration),
    Code(ResponseCode),
    Odd(String),
}

impl Failure {
    pub(super) fn absent(cause: Cause, ttl: Option<Duration>) -> Self {
        Self::new(Class::Absent { ttl }, ErrorKind::DnsError, cause)
    }

    pub(super) fn forbidden(cause: Cause) -> Self {
        let (kind, prohibited) = match &cause {
            Cause::Prohibited { addresses, .. } => {
                (ErrorKind::DestinationIpProhibited, addresses.len())
            }
            _ => (ErrorKind::DnsError, 0),
        };
        Self {
            prohibited,
            ..Self::new(Class::Forbidden, kind, cause)
        }
    }

    pub(super) fn unavailable(name: &Name, servers: &Arc<Unavailable>) -> Self {
        let kind = if servers.is_silence() {
            ErrorKind::DnsTimeout
        } else {
            ErrorKind::DnsError
        };
        let cause = Cause::Unavailable {
            name: name.clone(),
            servers: Arc::clone(servers),
        };
        Self::new(Class::Unavailable, kind, cause)
    }

    fn new(class: Class, kind: ErrorKind, cause: Cause) -> Self {
        Self {
            class,
            error: ResolveError::new(kind, cause),
            prohibited: 0,
        }
    }
}

impl Unavailable {
    /// Whether every server timed out.
    fn is_silence(&self) -> bool {
        self.0
            .iter()
            .all(|(_, fault)| matches!(fault, ServerFault::TimedOut(_)))
    }

    fn heading(&self) -> &'static str {
        let spoke = |(_, fault): &(_, ServerFault)| {
            matches!(fault, ServerFault::Code(_) | ServerFault::Odd(_))
        };
        if self.0.iter().any(spoke) {
            "no name server has an answer"
        } else {
            "no name server answered"
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (server, fault)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            match fault {
                ServerFault::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    write!(f, "nothing listens at {server} (connection refused)")?;
                }
                ServerFault::Io(error) => write!(f, "{server} cannot be reached ({error})")?,
                ServerFault::TimedOut(after) => {
                    write!(f, "{server} did not answer within {after:?}")?;
                }
                ServerFault::Code(ResponseCode::ServFail) => write!(
                    f,
                    "{server} answered SERVFAIL (has cluster DNS reached the API server?)"
                )?,
                ServerFault::Code(ResponseCode::Refused) => write!(
                    f,
                    "{server} answered REFUSED (does it serve the zone, and this client?)"
                )?,
                ServerFault::Code(code) => write!(f, "{server} answered {code}")?,
                ServerFault::Odd(what) => {
                    write!(f, "{server} is of no use ({what})")?;
                }
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.iter().find_map(|(_, fault)| match fault {
            ServerFault::Io(error) => Some(&**error as _),
            _ => None,
        })
    }
}

struct Join<'a>(&'a [IpAddr]);

impl fmt::Display for Join<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mesh_ingress_core::Error;

    use super::*;

    fn name() -> Name {
        Name::from_ascii("web.default.svc.cluster.local.").unwrap()
    }

    fn unavailable(faults: Vec<ServerFault>) -> Failure {
        let server = |index: usize| SocketAddr::from(([10, 96, 0, 10], 53 + index as u16));
        let faults = faults
            .into_iter()
            .enumerate()
            .map(|(index, fault)| (server(index), fault))
            .collect();
        Failure::unavailable(&name(), &Arc::new(Unavailable(faults)))
    }

    #[test]
    fn closed_port_is_dns_error_and_named() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let failure = unavailable(vec![ServerFault::Io(Arc::new(refused))]);
        let error = Error::from(failure.error);
        assert_eq!(error.kind(), ErrorKind::DnsError);
        assert!(error.may_retry());
        let report = error.report().to_string();
        assert!(
            report.contains(
                "no name server answered for web.default.svc.cluster.local.: \
                 nothing listens at 10.96.0.10:53 (connection refused)"
            ),
            "{report}"
        );
    }

    #[test]
    fn silence_is_dns_timeout_and_servfail_is_dns_error() {
        let silent = || ServerFault::TimedOut(Duration::from_secs(1));
        let failure = unavailable(vec![silent(), silent()]);
        assert_eq!(failure.error.kind(), ErrorKind::DnsTimeout);
        let failure = unavailable(vec![silent(), ServerFault::Code(ResponseCode::ServFail)]);
        assert_eq!(failure.error.kind(), ErrorKind::DnsError);
        assert_eq!(
            failure.error.to_string(),
            "no name server has an answer for web.default.svc.cluster.local.: \
             10.96.0.10:53 did not answer within 1s; \
             10.96.0.10:54 answered SERVFAIL (has cluster DNS reached the API server?)"
        );
    }
}
