//! The shared types of [mesh-ingress](https://docs.rs/mesh-ingress): request extensions, names and
//! errors that its crates exchange. No I/O.
//!
//! | type | is |
//! |---|---|
//! | [`ServiceRef`] | a Kubernetes Service and its port: `web.default:80` |
//! | [`ClusterDomain`] | the DNS zone of the cluster: `cluster.local` |
//! | [`Vhost`] | the `Host` / `:authority` by which a mesh routes |
//! | [`Downstream`] | the client's connection: a request extension set by the server |
//! | [`Upstream`] | the address to connect to: a request extension set by the resolver's layer |
//! | [`Tls`] | the TLS options of an upstream |
//! | [`Body`] | a body that keeps its framing when it is forwarded |
//! | [`Error`] | an error with the types of RFC 9209 |
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

/// The error type of bodies and causes, as in tower and hyper.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
