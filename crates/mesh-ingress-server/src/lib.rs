//! An HTTP/1.1 and HTTP/2 server for proxies, generic over a tower service.
//!
//! # Why another server
//!
//! hyper's server gives each connection a buffer, each HTTP/2 stream a task, and copies every byte of a body
//! through memory. This one is built for a proxy: idle connections hold no buffer, one task drives a
//! connection with all its streams, and a response body that comes from a socket passes to the client in
//! the kernel ([`splice`](mesh_ingress_io::splice)). The gateway `mesh-ingress` is served by it, and an
//! embedder gets the same at the same cost.
//!
//! # How
//!
//! ```no_run
//! use mesh_ingress_server::{Downstream, RequestBody, Server};
//! use std::convert::Infallible;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = tower::service_fn(|request: http::Request<RequestBody>| async move {
//!     let client = request.extensions().get::<Downstream>().map(|client| client.peer);
//!     Ok::<_, Infallible>(http::Response::new(format!("hello, {client:?}")))
//! });
//! Server::bind("127.0.0.1:8080".parse()?)?.serve(service).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | to | use |
//! |---|---|
//! | serve a `MeshIngress`, an `axum::Router` or any other [service](HttpService) | [`Server::serve`] |
//! | run a thread a core, with sockets of its own | [`ServerBuilder::workers`] |
//! | make the service from what is known of the client | [`Server::serve_with`] |
//! | accept connections yourself | [`ConnectionServer`] |
//! | stop without losing a request | [`drain`], [`Serve::with_graceful_shutdown`] |
//! | know the client | the request extension [`Downstream`] |
//! | switch protocols | the request extension [`OnUpgrade`](mesh_ingress_io::upgrade::OnUpgrade) |
//!
//! # What it promises
//!
//! * Requests are read strictly: what two parsers could read differently is refused with 400 before it is
//!   parsed ([`RequestGuard`](mesh_ingress_headers::guard::RequestGuard)).
//! * Bodies stream with back-pressure both ways, trailers included. A client that waits for `100 Continue`
//!   gets it when the service polls the body.
//! * A slow head, a stalled reader, a silent or an idle client, a flood of resets or of empty frames: each
//!   has a bound of its own, and ends that client's connection or stream only.
//! * HTTP/2 is spoken with prior knowledge, with WebSockets over it (RFC 8441). Over TLS, ALPN is
//!   not needed: the first bytes decide.
//!
//! A header section may have 64 KiB; one of HTTP/1 may have 100 fields.
//!
//! Log events are `tracing` events: what a client does wrong at `debug`, what the operator should know at
//! `warn`.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod body;
mod client;
mod connection;
pub mod drain;
mod http1;
mod http2;
mod linger;
mod listener;
mod report;
mod server;
mod service;
mod write_timeout;

pub use self::body::RequestBody;
pub use self::connection::ConnectionServer;
pub use self::listener::BindError;
pub use self::server::{Serve, ServeError, Server, ServerBuilder};
pub use self::service::HttpService;

#[doc(no_inline)]
pub use mesh_ingress_core::Downstream;
#[doc(no_inline)]
pub use mesh_ingress_io::Conn;

/// Bound of the header section of a request.
const MAX_HEADER_BYTES: usize = 64 * 1024;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
