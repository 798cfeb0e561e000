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
//! * HTTP/1.1 is written and read by the task of the request itself, not in a task of the
//!   connection: a request costs no cross-task wake-up. A connection goes back to the pool when
//!   request *and* response are complete and clean; any doubt closes it.
//! * Bodies stream with back-pressure both ways, trailers included.
//!   A server that owns its socket can have large ones passed on by the kernel, without a copy:
//!   [`SpliceBody`](mesh_ingress_io::splice::SpliceBody).
//! * Hop-by-hop fields never cross (RFC 9110 §7.6.1), upgrades only after a validated `101`.
//! * A request is sent again only if no upstream can have acted on it, or if it is safe
//!   (RFC 9110 §9.2.1), without a body, and nothing came back on a reused connection.
//! * Dropping a response future or body closes or resets the exchange upstream at once.
//!
//! # WebSockets and other upgrades
//!
//! The server must offer them: hyper's `with_upgrades` for HTTP/1.1 (any other server's
//! [`OnUpgrade`](mesh_ingress_io::upgrade::OnUpgrade)), and `enable_connect_protocol` for HTTP/2 (axum does both; for any other server's,
//! [`OnUpgrade`](mesh_ingress_io::upgrade::OnUpgrade) again).
//!
//! | the client asks with | the upstream speaks | what is done |
//! |---|---|---|
//! | `Upgrade` of any protocol but `h2c` | HTTP/1.1 | the same is asked; only a `101` to what was asked opens the tunnel |
//! | `Upgrade: websocket` | HTTP/2 | an extended `CONNECT` (RFC 8441) if the upstream offers it, else as below |
//! | extended `CONNECT` for `websocket` | HTTP/2 | the same is asked if the upstream offers it, else as below |
//! | extended `CONNECT` for `websocket` | HTTP/1.1 | a `GET` with a key of ours; `200` for a `101` that answers it |
//! | extended `CONNECT` for something else | | 501 |
//! | plain `CONNECT` | | 405 |
//!
//! * What HTTP/2 cannot say, or the upstream does not offer on it, is asked over HTTP/1.1, on a
//!   connection to the same address. An upstream that speaks HTTP/2 alone and has no extended
//!   `CONNECT` thus fails with 502.
//! * A refusal is an ordinary response, and its connection is used again. A `101` that nobody
//!   asked for, to another protocol, or without the right `Sec-WebSocket-Accept` is a 502, and its
//!   connection is closed.
//! * In a tunnel an end of one side is passed on while the other goes on, for as long as
//!   [`tunnel_half_closed_timeout`](ForwarderBuilder::tunnel_half_closed_timeout) allows.
//! * A tunnel that does not end on both sides (one is reset, nothing moves for
//!   [`tunnel_idle_timeout`](ForwarderBuilder::tunnel_idle_timeout), it is
//!   [closed](Forwarder::close_tunnels)) resets the upstream's connection, and drops the client's:
//!   that is a reset, too, where it came by [`OnUpgrade`](mesh_ingress_io::upgrade::OnUpgrade) or the server's transport makes one of it
//!   when it is dropped. A stream of hyper's HTTP/2 is ended and then reset, because hyper can do no
//!   other; and a client's `RST_STREAM` with `CANCEL` is taken for an end there first, and found out
//!   within a second.
//! * Tunnels count as [connections](Forwarder::connections), not as requests in flight, and are
//!   forgotten by a server's graceful shutdown: wait for [`Forwarder::tunnels_closed`].
#![cfg_attr(docsrs, feature(doc_cfg))]

mod attempt;
mod body;
#[allow(dead_code)]
mod breaker;
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
pub use self::retry::{RetryPolicy, RetryPolicyBuilder};
pub use self::settings::{ForwarderBuilder, Reuse};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use self::tls::{TlsClient, TlsClientBuilder, TlsConfigError, TlsVersion};
pub use self::upgrade::is_extended_connect;

#[doc(no_inline)]
pub use mesh_ingress_core::{InvalidSetting, Protocol, Tls, Upstream};
