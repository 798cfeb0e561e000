//! How an origin answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};
use mesh_ingress_core::Body;

use crate::Gate;

/// How an [`Origin`](crate::Origin) answers a request.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Behaviour {
    /// Reads the body and tells what it received, as `text/plain`:
    ///
    /// ```text
    /// origin: web
    /// connection: 1
    /// version: HTTP/1.1
    /// method: GET
    /// target: /cart?id=7
    /// host: web.default.svc.cluster.local
    /// body-length: 0
    ///
    /// accept: */*
    /// x-request-id: 5d9e…
    /// ```
    ///
    /// First the facts, in this order; `host` is `:authority`, or else `Host`, and empty without
    /// both. Then an empty line and all header fields in the order received.
    #[default]
    Echo,
    /// Sends the request's body back while it comes, with its `Content-Type` and trailers.
    EchoBody,
    /// Reads the body and answers its length in bytes, in decimal.
    Drain,
    /// Sends this many bytes, `abc…xyzabc…`, with `Content-Length`, generated while they are sent.
    StreamBytes(u64),
    /// The same without telling the length: chunked on HTTP/1.
    StreamChunked(u64),
    /// Reads the body, sends it back (or `ok\n` if there was none) and then these trailer fields,
    /// announced in `Trailer`, with the `Content-Type` of the request: a unary gRPC echo. On
    /// HTTP/1 a client gets them if it sent `TE: trailers` (RFC 9110 §6.5.1).
    Trailers(HeaderMap),
    /// Answers this status, without a body and without reading the request's.
    Status(StatusCode),
    /// [`Echo`](Self::Echo), once the gate is open.
    Gated(Gate),
    /// Sends the head of the response at once and the body, `ok\n`, once the gate is open.
    GatedBody(Gate),
    /// [`Echo`](Self::Echo), then closes the connection as the protocol has it: `Connection: close`
    /// on HTTP/1, GOAWAY on HTTP/2.
    CloseAfterResponse,
    /// Switches to the protocol of `Upgrade` and sends every byte back until the client closes.
    /// Without `Upgrade`, 426. The key of a WebSocket handshake is answered as RFC 6455 §4.2.2 has
    /// it; the bytes that follow are not looked at.
    UpgradeEcho,
    /// Asks a closure, see [`handler`](Self::handler).
    Custom(Handler),
}

/// A closure that answers requests, made by [`Behaviour::handler`].
#[derive(Clone)]
pub struct Handler(pub(super) Arc<Answer>);

pub(super) type Answer =
    dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync;

impl Behaviour {
    /// Answers with a closure.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use mesh_ingress_core::Body;
    /// use mesh_ingress_testkit::Behaviour;
    ///
    /// let teapot = Behaviour::handler(|_: Request<Body>| async {
    ///     let mut response = Response::new(Body::from("short and stout\n"));
    ///     *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
    ///     response
    /// });
    /// ```
    pub fn handler<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::Custom(Handler(Arc::new(move |request| Box::pin(handler(request)))))
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler(..)")
    }
}
