//! A connection-pooling HTTP forwarder made for ClusterIPs.
//!
//! # Why another client
//!
//! General HTTP clients take the address to dial from the request's URI, keep one HTTP/2
//! connection a host, and hold a connection for as long as it works. A mesh-aware gateway needs
//! the opposite of each: it dials the ClusterIP that DNS gave ([`Upstream`]) while `Host` /
//! `:authority` say the service's name; it opens more HTTP/2 connections when the streams of one
//! are used up; and it retires connections after a while, because kube-proxy balances *per
//! connection*, so that a pool that never ages pins one pod.
//!
//! # How
//!
//! [`Forwarder`] is a [`tower_service::Service`]. Where to connect comes with the request, as the
//! [`Upstream`] extension that `ServiceUpstreamLayer` (or you) put there:
//!
//! ```no_run
//! use http::Request;
//! use mesh_ingress_core::{Body, Upstream};
//! use mesh_ingress_forward::Forwarder;
//! use tower::ServiceExt;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let forwarder = Forwarder::builder().build();
//! let mut request = Request::get("http://web.default.svc.cluster.local/").body(Body::empty())?;
//! request.extensions_mut().insert(Upstream::new("10.96.0.7:80".parse()?));
//! let response = forwarder.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! * An HTTP/1.1 connection is driven inside the task of the request it serves, not in a task of
//!   its own: a request costs no cross-task wake-up. It goes back to the pool when request *and*
//!   response are complete and clean; any doubt closes it.
//! * Bodies stream with back-pressure both ways, trailers included.
//! * Hop-by-hop fields never cross (RFC 9110 §7.6.1), upgrades only after a validated `101`.
//! * A request is sent again only if no upstream can have acted on it, or if it is safe
//!   (RFC 9110 §9.2.1), without a body, and nothing came back on a reused connection.
//! * Dropping a response future or body closes or resets the exchange upstream at once.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod alarm;
mod attempt;
mod body;
#[allow(dead_code)]
mod breaker;
mod budget;
mod connect;
mod dial;
mod error;
mod exchange;
mod expect;
mod forwarder;
mod future;
mod grpc;
mod h1;
mod h2;
mod idle;
mod lease;
mod maintenance;
mod noticed;
mod overdue;
mod permit;
mod pool;
mod prepare;
mod record;
mod replay;
#[allow(dead_code)]
mod retry;
mod settings;
mod shard;
mod stream;
mod tls;
mod tunnel;
mod upgrade;
mod waiting;
mod websocket;

pub use self::body::{RequestBody, ResponseBody};
pub use self::breaker::{FailureAccrual, FailureAccrualBuilder};
pub use self::forwarder::{Forwarder, UpstreamPool};
pub use self::future::ResponseFuture;
pub use self::retry::{InvalidSetting, RetryPolicy, RetryPolicyBuilder};
pub use self::settings::{ForwarderBuilder, Reuse};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use self::tls::{TlsClient, TlsClientBuilder, TlsConfigError, TlsVersion};
pub use self::upgrade::is_extended_connect;

#[doc(no_inline)]
pub use mesh_ingress_core::{Protocol, Tls, Upstream};
