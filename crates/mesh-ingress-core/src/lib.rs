//! The vocabulary of [mesh-ingress](https://docs.rs/mesh-ingress): what every other crate of the
//! house speaks, and nothing that does I/O.
//!
//! | type | says |
//! |---|---|
//! | [`ServiceRef`] | which Kubernetes Service: `web.default:80` |
//! | [`ClusterDomain`] | the zone the cluster's names live in: `cluster.local` |
//! | [`Vhost`] | what `Host` / `:authority` must say for a mesh to route by it |
//! | [`Downstream`] | who asked: a request extension set by whoever accepted the connection |
//! | [`Upstream`] | where to connect: a request extension set by the resolver's layer |
//! | [`Tls`] | whether and how to speak TLS to it |
//! | [`Body`] | a body whose framing survives being passed along |
//! | [`Error`] | what went wrong, in the words of RFC 9209 |
//!
//! ```
//! use mesh_ingress_core::{ClusterDomain, ServiceRef};
//!
//! let web: ServiceRef = "web.default:80".parse()?;
//! let domain = ClusterDomain::default();
//! assert_eq!(web.vhost(&domain).as_str(), "web.default.svc.cluster.local");
//! assert_eq!(web.dns_name(&domain), "web.default.svc.cluster.local.");
//! # Ok::<(), mesh_ingress_core::ParseError>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod cluster_domain;
mod downstream;
mod error;
mod name;
mod service_ref;
mod setting;
mod tls;
mod upstream;
mod verdict;
mod vhost;

pub use self::body::Body;
pub use self::cluster_domain::ClusterDomain;
pub use self::downstream::{Downstream, Scheme};
pub use self::error::{Error, ErrorKind, ErrorOrigin, Report};
pub use self::name::ParseError;
pub use self::service_ref::{ServicePort, ServiceRef};
pub use self::setting::InvalidSetting;
pub use self::tls::Tls;
pub use self::upstream::{Protocol, Upstream};
pub use self::verdict::Verdict;
pub use self::vhost::{Vhost, VhostPolicy};

/// The error type of bodies and of causes: what tower and hyper use, too.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
