//! The forwarder: a tower service over the pools of all upstreams.

mod builder;
mod maintenance;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error, Protocol, Upstream};
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;
use tower_service::Service;

pub use self::builder::ForwarderBuilder;
use crate::body::RequestBody;
use crate::error::ForwardError;
use crate::exchange::{ResponseBody, ResponseFuture, Shared, is_grpc};
use crate::pool::Pool;
use crate::settings::Settings;

/// Sends requests over pooled connections, each to the [`Upstream`] in its extensions.
///
/// Cheap to clone; clones share the connections. A connection belongs to the runtime that opened
/// it: share a forwarder among runtimes only if all of them live equally long. See the [crate
/// documentation](crate).
///
/// # Errors
///
/// The service's error is [`mesh_ingress_core::Error`]; its kind is one of
/// `connection_refused`, `connection_timeout`, `destination_ip_unroutable`,
/// `connection_terminated`, `http_response_timeout`, `http_protocol_error`,
/// `http_response_header_section_size`, `http_upgrade_failed`, `http_request_error` (the client's
/// body was cut off), `proxy_configuration_error` (no `Upstream` on the request) or
/// `proxy_internal_error` (out of sockets).
#[derive(Debug)]
pub struct Forwarder {
    shared: Arc<Shared>,
    /// The permit that `poll_ready` has acquired for the next request.
    ready: Option<OwnedSemaphorePermit>,
    in_flight: Option<PollSemaphore>,
}

impl Clone for Forwarder {
    fn clone(&self) -> Self {
        // The permit stays with the clone that has acquired it.
        Self::share(Arc::clone(&self.shared))
    }
}

impl Forwarder {
    /// A builder with defaults.
    pub fn builder() -> ForwarderBuilder {
        ForwarderBuilder::default()
    }

    fn new(settings: Settings) -> Self {
        Self::share(Arc::new(Shared::new(settings)))
    }

    fn share(shared: Arc<Shared>) -> Self {
        let in_flight = shared.in_flight.clone().map(PollSemaphore::new);
        Self {
            shared,
            ready: None,
            in_flight,
        }
    }

    /// The pool of one upstream, to send requests without a lookup for each.
    #[must_use]
    pub fn pool(&self, upstream: &Upstream) -> UpstreamPool {
        let pools = &self.shared.pools;
        let of = |protocol| pools.get(&upstream.clone().protocol(protocol));
        let (pool, http2) = match upstream.http_protocol() {
            Protocol::SameAsClient => (of(Protocol::Http1), Some(of(Protocol::Http2))),
            _ => (pools.get(upstream), None),
        };
        UpstreamPool {
            pool,
            http2,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether there is a TLS profile of this name: see `ForwarderBuilder::tls_profile`. Finds a
    /// configuration error before the first request fails with it.
    #[must_use]
    pub fn has_tls_profile(&self, name: &str) -> bool {
        self.shared.pools.settings.connect.has_tls_profile(name)
    }

    /// How many connections are open, to all upstreams, upgraded ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.pools.connections()
    }

    /// How many upgraded connections (WebSocket) are open.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.shared.tunnels.len()
    }

    /// Cuts off all upgraded connections, now and in future. A server's graceful shutdown does not
    /// wait for them: call this at the end of its grace period.
    pub fn close_tunnels(&self) {
        self.shared.tunnels.close();
    }

    /// Resolves when no upgraded connection is open any more.
    pub async fn tunnels_closed(&self) {
        self.shared.tunnels.closed().await;
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl<B> Service<Request<B>> for Forwarder
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(in_flight) = &mut self.in_flight
            && self.ready.is_none()
        {
            // `None` only for a closed semaphore, and this one is never closed.
            self.ready = ready!(in_flight.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        let Some(upstream) = request.extensions_mut().remove::<Upstream>() else {
            return ResponseFuture::failed(ForwardError::NoUpstream.into_error());
        };
        let options = hop_by_hop::strip(request.headers_mut());
        let permit = self.ready.take();
        self.pool(&upstream)
            .send_with(permit, request, None, &options)
    }
}

/// The connections to one upstream. Made by [`Forwarder::pool`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct UpstreamPool {
    pool: Arc<Pool>,
    /// The pool for HTTP/2, if the client's protocol decides.
    http2: Option<Arc<Pool>>,
    shared: Arc<Shared>,
}

impl UpstreamPool {
    /// The upstream it connects to.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.pool.upstream
    }

    /// Sends a request whose hop-by-hop fields are [stripped](hop_by_hop::strip) already; `options`
    /// is the content of these fields.
    pub fn send<B>(&self, request: Request<B>, options: &ConnectionOptions) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_with(None, request, None, options)
    }

    /// The same as [`send`](Self::send), with more fields. The request must not have any of them
    /// itself: that is not checked. HTTP/1.1 copies their bytes, without a header map.
    // Hidden: the facade calls it with fields that it has removed from the request. Elsewhere, a
    // field that is in both would be sent twice.
    #[doc(hidden)]
    pub fn send_prepared<B>(
        &self,
        request: Request<B>,
        extra_headers: PreparedFields,
        options: &ConnectionOptions,
    ) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_with(None, request, Some(extra_headers), options)
    }

    fn send_with<B>(
        &self,
        permit: Option<OwnedSemaphorePermit>,
        request: Request<B>,
        extra_headers: Option<PreparedFields>,
        options: &ConnectionOptions,
    ) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let shared = &self.shared;
        maintenance::ensure_running(shared);
        let permit = permit.map_or_else(|| shared.in_flight_permit(), |permit| Ok(Some(permit)));
        let permit = match permit {
            Ok(permit) => permit,
            Err(error) => return ResponseFuture::failed(error),
        };
        let pool = match &self.http2 {
            Some(http2) if wants_http2(&request) => http2,
            _ => &self.pool,
        };
        pool.prefetch();
        let request = request.map(RequestBody::new);
        ResponseFuture::send(pool, shared, request, extra_headers, options, permit)
    }

    /// Opens connections until `count` are ready, so that the first requests do not wait for a
    /// handshake. A connection of HTTP/2 counts as one.
    ///
    /// # Errors
    ///
    /// That of the first connection that fails.
    pub async fn warm_up(&self, count: usize) -> Result<(), Error> {
        maintenance::ensure_running(&self.shared);
        self.pool.warm_up(count).await
    }

    /// Closes idle connections now, and each other connection after its exchange, because the
    /// upstream has moved. Later requests open new connections.
    pub fn drain(&self) {
        for pool in self.pools() {
            pool.drain();
        }
    }

    /// Idle HTTP/1.1 connections at this moment.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.pools().map(|pool| pool.idle_len()).sum()
    }

    /// Connections that are open or being opened at this moment, upgraded ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pools().map(|pool| pool.open_len()).sum()
    }

    /// Requests that wait for a connection at this moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pools().map(|pool| pool.queue.len()).sum()
    }

    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.pool).chain(&self.http2)
    }
}

/// Whether a request came over HTTP/2, or must be sent over it.
fn wants_http2<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 || is_grpc(request.headers())
}
