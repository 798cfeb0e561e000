//! Embeddable, mesh-aware reverse proxying: reach each Kubernetes Service *as the mesh expects*.
//!
//! # Why
//!
//! A gateway at the edge of a service mesh that dials pods, or that forwards the public `Host`,
//! takes its traffic out of the mesh: no mTLS, no routing, no telemetry, and no error either.
//! ingress-nginx had two annotations against that, `service-upstream` (connect to the ClusterIP
//! and the service port) and `upstream-vhost` (set `Host` to the service's own name). This crate does
//! both, with a connection pool made for ClusterIPs, as one [`tower_service::Service`] to embed.
//!
//! # How
//!
//! ```no_run
//! use mesh_ingress::{MeshIngress, Route};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = MeshIngress::builder()
//!     .route(Route::host("shop.example.com").path_prefix("/").to("web.default:80".parse()?))
//!     .build()?;                                   // cluster DNS from the system
//! let app = axum::Router::new().fallback_service(mesh);
//! # let _: axum::Router = app;
//! # Ok(())
//! # }
//! ```
//!
//! Its parts are tower layers, to compose by hand: [`UpstreamVhostLayer`], [`ServiceUpstreamLayer`],
//! [`Forwarder`].
//!
//! # What a request goes through
//!
//! client identity ([`Downstream`]) → framing and `Host` checks → hop-by-hop fields off → route →
//! forwarded headers → upstream-vhost → service-upstream → [`Forwarder`] → response. An error
//! becomes an HTTP or gRPC response with a `Proxy-Status` field (RFC 9209).
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `hickory` | yes | `ClusterDns`: cluster DNS through hickory's DNS client. Without it, pass a [`Resolve`] of your own |
//! | `server` | no | [`server`]: `Server::bind(addr)?.serve(mesh).await`, the server that the gateway `mesh-ingress` uses |
//! | `tls` | no | `TlsClient`: TLS and mutual TLS towards backends outside the mesh ([`Backend::tls`]), with rustls and a cryptography provider of your choice |
//! | `tls-ring` | no | `tls`, with ring as the default provider |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod connection;
mod doctor;
mod error;
mod error_log;
mod explain;
mod future;
mod mesh;
mod profile;
mod request;
mod respond;
mod response;
mod table;

pub use self::builder::MeshIngressBuilder;
pub use self::connection::MeshConnection;
pub use self::doctor::{Finding, Health};
pub use self::error::BuildError;
pub use self::explain::{BackendExplanation, Explanation, HeaderChange};
pub use self::future::ResponseFuture;
pub use self::mesh::MeshIngress;
pub use self::profile::Mesh;
pub use self::response::TargetVerdicts;

pub use mesh_ingress_core::{
    Body, BoxError, ClusterDomain, Downstream, Error, ErrorKind, ErrorOrigin, ParseError, Protocol,
    Scheme, ServicePort, ServiceRef, Tls, Upstream, Verdict, Vhost, VhostPolicy,
};
pub use mesh_ingress_forward as forward;
pub use mesh_ingress_forward::{Forwarder, ForwarderBuilder, ResponseBody};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use mesh_ingress_forward::{TlsClient, TlsClientBuilder, TlsConfigError, TlsVersion};
pub use mesh_ingress_headers as headers;
pub use mesh_ingress_resolve as resolve;
#[cfg(feature = "hickory")]
#[cfg_attr(docsrs, doc(cfg(feature = "hickory")))]
pub use mesh_ingress_resolve::ClusterDns;
pub use mesh_ingress_resolve::{AddressPolicy, Resolve, ServiceUpstreamLayer, Watch};
pub use mesh_ingress_route as route;
pub use mesh_ingress_route::{Backend, Route};
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub use mesh_ingress_server as server;
pub use mesh_ingress_vhost::UpstreamVhostLayer;

/// Its programs use what these features bring.
#[cfg(all(doctest, feature = "hickory", feature = "server"))]
#[doc = include_str!("../../../README.md")]
struct RepositoryReadme;

#[cfg(all(doctest, feature = "hickory", feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
