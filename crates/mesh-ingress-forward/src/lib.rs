//! A connection-pooling HTTP forwarder made for ClusterIPs.
//!
//! # Why another client
//!
//! General HTTP clients take the address to dial from the request's URI, keep one HTTP/2 connection
//! per host, and keep a connection for as long as it works. A mesh-aware gateway needs the opposite
//! of each. It dials the ClusterIP from DNS ([`Upstream`]) while `Host` / `:authority` name the
//! Service; it opens more HTTP/2 connections when the streams of one are used up; and it retires
//! connections after a while, because kube-proxy balances *per connection*, so that a pool without
//! a maximum age pins one pod.
//!
//! # How
//!
//! [`Forwarder`] is a [`tower_service::Service`]. It connects to the [`Upstream`] in the request's
//! extensions, which `ServiceUpstreamLayer` (or you) put there:
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
//! # Guarantees
//!
//! * HTTP/1.1 is written and read by the task of the request itself, not by a task of the
//!   connection: a request costs no cross-task wake-up. A connection goes back to the pool when
//!   request *and* response are complete and well-formed; any doubt closes it.
//! * Bodies and trailers stream with back-pressure both ways. A server that owns its socket can
//!   have large bodies spliced by the kernel, without a copy:
//!   [`SpliceBody`](mesh_ingress_io::splice::SpliceBody).
//! * Hop-by-hop fields are not forwarded (RFC 9110 §7.6.1), and a connection is upgraded only after
//!   a validated `101`.
//! * A request is sent again only if no upstream can have acted on it, or if it is safe (RFC 9110
//!   §9.2.1), has no body, and nothing was received on a reused connection.
//! * A dropped response future or body closes or resets the exchange with the upstream at once.
//!
//! # WebSockets and other upgrades
//!
//! The server must offer them. hyper's servers do with `with_upgrades` for HTTP/1.1 and
//! `enable_connect_protocol` for HTTP/2, and axum does both. Any other server puts an
//! [`OnUpgrade`](mesh_ingress_io::upgrade::OnUpgrade) into the request's extensions.
//!
//! | the client asks with | the upstream speaks | the forwarder |
//! |---|---|---|
//! | `Upgrade` to any protocol but `h2c` | HTTP/1.1 | asks for the same; only a `101` to that protocol opens the tunnel |
//! | `Upgrade: websocket` | HTTP/2 | sends an extended `CONNECT` (RFC 8441) if the upstream offers it, else as above |
//! | extended `CONNECT` for `websocket` | HTTP/2 | sends the same if the upstream offers it, else as below |
//! | extended `CONNECT` for `websocket` | HTTP/1.1 | sends a `GET` with a key of its own, and answers `200` after a valid `101` |
//! | extended `CONNECT` for another protocol | | answers 501 |
//! | plain `CONNECT` | | answers 405 |
//!
//! * A request that HTTP/2 cannot express, or that the upstream does not offer on HTTP/2, goes over
//!   HTTP/1.1 to the same address. So it fails with 502 if the upstream speaks only HTTP/2 without
//!   extended `CONNECT`.
//! * A refusal is an ordinary response, and its connection is reused. A `101` without a request for
//!   it, to another protocol, or without the right `Sec-WebSocket-Accept` is a 502, and its
//!   connection is closed.
//! * A tunnel forwards the end of one side and stays open for the other, for as long as
//!   [`tunnel_half_closed_timeout`](ForwarderBuilder::tunnel_half_closed_timeout) allows.
//! * A tunnel that does not end on both sides (a reset, no traffic for
//!   [`tunnel_idle_timeout`](ForwarderBuilder::tunnel_idle_timeout), or
//!   [`close_tunnels`](Forwarder::close_tunnels)) resets the upstream's connection and drops the
//!   client's. An [`OnUpgrade`](mesh_ingress_io::upgrade::OnUpgrade) connection is reset by that,
//!   too; others if the server's transport resets on drop. hyper ends an HTTP/2 stream before it
//!   resets it, and reads a client's `RST_STREAM` with `CANCEL` as an end; the tunnel finds out
//!   within a second.
//! * Tunnels count as [connections](Forwarder::connections), not as requests in flight. A server's
//!   graceful shutdown does not wait for them: wait for [`Forwarder::tunnels_closed`].
//!
//! # Modules
//!
//! Each module uses only those above it:
//!
//! | module | has |
//! |---|---|
//! | `error` | failures, as error types of RFC 9209 |
//! | `body` | request bodies: progress, `Expect: 100-continue` |
//! | `retry` | which requests may be retried: policy, budget, replay of bodies |
//! | `breaker` | the circuit breaker of an upstream |
//! | `connect` | opening a byte stream: TCP, TLS |
//! | `settings` | all settings |
//! | `conn` | one HTTP/1.1 or HTTP/2 connection, and the exchanges on it |
//! | `pool` | the connections to one upstream: idle, queued for, limited, dialed |
//! | `upgrade` | upgrade requests, WebSocket in both protocols, tunnels |
//! | `exchange` | one request and its response: attempts, timeouts, response body |
//! | `forwarder` | the public service |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod breaker;
mod conn;
mod connect;
mod error;
mod exchange;
mod forwarder;
mod pool;
mod retry;
mod settings;
mod upgrade;

pub use self::breaker::{FailureAccrual, FailureAccrualBuilder};
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use self::connect::{TlsClient, TlsClientBuilder, TlsConfigError, TlsVersion};
pub use self::exchange::{ResponseBody, ResponseFuture};
pub use self::forwarder::{Forwarder, ForwarderBuilder, UpstreamPool};
pub use self::retry::{RetryPolicy, RetryPolicyBuilder};
pub use self::settings::Reuse;
pub use self::upgrade::is_extended_connect;

#[doc(no_inline)]
pub use mesh_ingress_core::{InvalidSetting, Protocol, Tls, Upstream};

#[cfg(all(doctest, feature = "tls-ring"))]
#[doc = include_str!("../README.md")]
struct Readme;
