//! In-process fakes of what a mesh-aware gateway talks to, so that a test can prove mesh behaviour
//! with nothing but cargo.
//!
//! | fake | stands for |
//! |---|---|
//! | [`DnsServer`] | cluster DNS (CoreDNS): real UDP and TCP, faults on demand, a log of queries |
//! | [`Origin`] | a pod: HTTP/1.1 and HTTP/2 on one port, echoes and records what it received |
//! | [`RawOrigin`] | a pod that breaks the protocol, byte for byte as scripted |
//! | [`HostRouter`] | a sidecar at a named http port: picks the destination by `Host` |
//! | [`VipRouter`] | ambient, or an unnamed port: picks by the ClusterIP and port |
//!
//! [`http2`] writes and reads single frames, for HTTP/2 peers that break the protocol.
//!
//! Every fake is a real server on a real socket, runs in tasks of the current tokio runtime, and
//! stops when dropped: its port is free as soon as `drop` returns. What happened is *waited for*,
//! never slept for: each log has a `wait_for_…` beside it.
//!
//! ```
//! use mesh_ingress_core::{ClusterDomain, ServiceRef};
//! use mesh_ingress_testkit::DnsServer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let web: ServiceRef = "web.default:80".parse()?;
//! let dns = DnsServer::start().await?;
//! dns.add_service(&web, &ClusterDomain::default(), "10.96.0.7".parse()?);
//! // … point the gateway at dns.addr(), send it a request, then:
//! assert!(dns.queries().is_empty());
//! # Ok(())
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod dns;
mod gate;
pub mod http2;
mod origin;
mod raw;
mod router;
mod server;
mod socket;
mod tasks;

pub use self::dns::{DnsQuery, DnsServer, Fault, Transport};
pub use self::gate::Gate;
pub use self::origin::{Behaviour, BodyEnd, Handler, Origin, OriginBuilder, ReceivedRequest};
pub use self::raw::{Closed, RawOrigin, Step};
pub use self::router::{HostRouter, OutboundPolicy, Outcome, Verdict, VipRouter};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
