//! The forwarder: a tower service over pools, one an upstream.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error, Protocol, Upstream};
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody};
use crate::error::Failure;
use crate::future::ResponseFuture;
use crate::maintenance;
use crate::permit::Total;
use crate::pool::Pool;
use crate::settings::{ForwarderBuilder, Settings};
use crate::tunnel::Tunnels;

/// Sends requests to where their [`Upstream`] extension says, over pooled connections.
///
/// Cheap to clone; clones share the connections. A connection belongs to the runtime that opened it:
/// share a forwarder among runtimes only if none of them ends while another goes on. See the
/// [crate documentation](crate).
///
/// # Errors
///
/// The service's error is [`mesh_ingress_core::Error`]; its kind is one of
/// `connection_refused`, `connection_timeout`, `destination_ip_unroutable`,
/// `connection_terminated`, `http_response_timeout`, `http_protocol_error`,
/// `http_response_header_section_size`, `http_upgrade_failed`, `http_request_error` (the client's
/// body broke off), `proxy_configuration_error` (no `Upstream` on the request) or
/// `proxy_internal_error` (out of sockets).
#[derive(Debug)]
pub struct Forwarder {
    shared: Arc<Shared>,
    /// A place that `poll_ready` has found, and what it is looking for one with.
    ready: Option<OwnedSemaphorePermit>,
    places: Option<PollSemaphore>,
}

impl Clone for Forwarder {
    fn clone(&self) -> Self {
        // A place belongs to whoever has waited for it.
        Self::share(Arc::clone(&self.shared))
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    settings: Arc<Settings>,
    pools: ArcSwap<HashMap<Upstream, Arc<Pool>>>,
    /// Held while an upstream is added or removed, never while one is looked up.
    changing: Mutex<()>,
    total: Arc<Total>,
    in_flight: Option<Arc<Semaphore>>,
    pub(crate) tunnels: Tunnels,
    pub(crate) maintained: AtomicBool,
}

impl Forwarder {
    /// A builder with defaults.
    pub fn builder() -> ForwarderBuilder {
        ForwarderBuilder::default()
    }

    pub(crate) fn new(settings: Settings) -> Self {
        let max_in_flight = settings.max_in_flight;
        Self::share(Arc::new(Shared {
            total: Arc::new(Total::new(settings.max_connections_total)),
            in_flight: max_in_flight
                .map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)))),
            tunnels: Tunnels::new(settings.tunnels),
            settings: Arc::new(settings),
            pools: ArcSwap::default(),
            changing: Mutex::default(),
            maintained: AtomicBool::new(false),
        }))
    }

    fn share(shared: Arc<Shared>) -> Self {
        let ready = None;
        let places = shared.in_flight.clone().map(PollSemaphore::new);
        Self {
            shared,
            ready,
            places,
        }
    }

    /// The connections to one upstream, to send requests without looking them up each time.
    #[must_use]
    pub fn pool(&self, upstream: &Upstream) -> UpstreamPool {
        let of = |protocol| self.shared.pool(&upstream.clone().protocol(protocol));
        let (pool, http2) = match upstream.http_protocol() {
            Protocol::SameAsClient => (of(Protocol::Http1), Some(of(Protocol::Http2))),
            _ => (self.shared.pool(upstream), None),
        };
        UpstreamPool {
            pool,
            http2,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether TLS can be spoken as this profile says: see
    /// `ForwarderBuilder::tls_profile`. To find out early what would
    /// otherwise fail with the first request.
    #[must_use]
    pub fn has_tls_profile(&self, name: &str) -> bool {
        self.shared.settings.has_tls_profile(name)
    }

    /// How many connections are open, to all upstreams, upgraded ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.total.len()
    }

    /// How many upgraded connections (WebSocket) are open.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.shared.tunnels.len()
    }

    /// Cuts upgraded connections off now, those to come included. A server's graceful shutdown
    /// forgets them once they are upgraded: call this when the grace period is over.
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

impl Shared {
    pub(crate) fn pool(&self, upstream: &Upstream) -> Arc<Pool> {
        if let Some(pool) = self.pools.load().get(upstream) {
            return Arc::clone(pool);
        }
        let _changing = self.changing();
        let mut pools = HashMap::clone(&self.pools.load());
        let pool = pools.entry(upstream.clone()).or_insert_with(|| {
            let settings = Arc::clone(&self.settings);
            Pool::new(upstream.clone(), settings, &self.total)
        });
        let pool = Arc::clone(pool);
        self.pools.store(Arc::new(pools));
        pool
    }

    /// Closes what is too old, and forgets upstreams that nobody uses.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut unused = false;
        for pool in self.pools.load().values() {
            pool.sweep(now);
            unused |= is_unused(pool);
        }
        if unused {
            let _changing = self.changing();
            let mut pools = HashMap::clone(&self.pools.load());
            // The old map holds them once more, until it is replaced.
            pools.retain(|_, pool| !(pool.is_empty() && Arc::strong_count(pool) <= 2));
            self.pools.store(Arc::new(pools));
        }
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_unused(pool: &Arc<Pool>) -> bool {
    pool.is_empty() && Arc::strong_count(pool) == 1
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
        if let Some(places) = &mut self.places
            && self.ready.is_none()
        {
            // Never closed: there is always a next.
            self.ready = ready!(places.poll_acquire(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        let Some(upstream) = request.extensions_mut().remove::<Upstream>() else {
            return ResponseFuture::failed(Failure::NoUpstream.into_error());
        };
        let options = hop_by_hop::strip(request.headers_mut());
        let place = self.ready.take();
        self.pool(&upstream)
            .send_with(place, request, None, &options)
    }
}

impl Shared {
    /// A place among the requests in flight, if they are bounded.
    fn place(&self) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let Some(places) = &self.in_flight else {
            return Ok(None);
        };
        let place = Arc::clone(places).try_acquire_owned();
        let max = self.settings.max_in_flight.unwrap_or_default();
        place
            .map(Some)
            .map_err(|_| Failure::InFlight { max }.into_error())
    }
}

/// The connections to one upstream. Made by [`Forwarder::pool`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct UpstreamPool {
    pool: Arc<Pool>,
    /// Where the client's protocol decides: the pool for HTTP/2.
    http2: Option<Arc<Pool>>,
    shared: Arc<Shared>,
}

impl UpstreamPool {
    /// Where it connects to.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.pool.upstream
    }

    /// Sends a request whose hop-by-hop fields are [stripped](hop_by_hop::strip) already, with
    /// what they said.
    pub fn send<B>(&self, request: Request<B>, options: &ConnectionOptions) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_with(None, request, None, options)
    }

    /// The same as [`send`](Self::send), and tells the upstream further fields, none of which the
    /// request may have itself: they are not looked for. HTTP/1 needs no more than their octets.
    pub fn send_prepared<B>(
        &self,
        request: Request<B>,
        further: PreparedFields,
        options: &ConnectionOptions,
    ) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_with(None, request, Some(further), options)
    }

    fn send_with<B>(
        &self,
        place: Option<OwnedSemaphorePermit>,
        request: Request<B>,
        further: Option<PreparedFields>,
        options: &ConnectionOptions,
    ) -> ResponseFuture
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let shared = &self.shared;
        maintenance::ensure(&shared.maintained, || Arc::downgrade(shared));
        let place = match place.map_or_else(|| shared.place(), |place| Ok(Some(place))) {
            Ok(place) => place,
            Err(error) => return ResponseFuture::failed(error),
        };
        let pool = match &self.http2 {
            Some(http2) if wants_http2(&request) => http2,
            _ => &self.pool,
        };
        pool.fetch();
        let request = request.map(RequestBody::new);
        ResponseFuture::send(pool, shared, request, further, options, place)
    }

    /// Opens connections until `count` are ready, for requests to come: the first ones then do not
    /// wait for a handshake. One of HTTP/2 counts like one of HTTP/1.1.
    ///
    /// # Errors
    ///
    /// That of the first connection that fails.
    pub async fn warm_up(&self, count: usize) -> Result<(), Error> {
        let shared = &self.shared;
        maintenance::ensure(&shared.maintained, || Arc::downgrade(shared));
        self.pool.warm_up(count).await
    }

    /// Closes what is idle, and each other connection after its exchange: the upstream has moved.
    /// Requests that still come open new connections.
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
    request.version() == Version::HTTP_2
        || request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
