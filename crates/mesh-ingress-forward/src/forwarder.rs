//! The forwarder: a tower service over pools, one an upstream.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error, Upstream};
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use tokio::time::Instant;
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody};
use crate::error::Failure;
use crate::future::ResponseFuture;
use crate::maintenance;
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
#[derive(Clone, Debug)]
pub struct Forwarder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    settings: Arc<Settings>,
    pools: ArcSwap<HashMap<Upstream, Arc<Pool>>>,
    /// Held while an upstream is added or removed, never while one is looked up.
    changing: Mutex<()>,
    tunnels: Tunnels,
    pub(crate) maintained: AtomicBool,
}

impl Forwarder {
    /// A builder with defaults.
    pub fn builder() -> ForwarderBuilder {
        ForwarderBuilder::default()
    }

    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings: Arc::new(settings),
                pools: ArcSwap::default(),
                changing: Mutex::default(),
                tunnels: Tunnels::default(),
                maintained: AtomicBool::new(false),
            }),
        }
    }

    /// The connections to one upstream, to send requests without looking them up each time.
    #[must_use]
    pub fn pool(&self, upstream: &Upstream) -> UpstreamPool {
        UpstreamPool {
            pool: self.shared.pool(upstream),
            shared: Arc::clone(&self.shared),
        }
    }

    /// How many upgraded connections (WebSocket) are open.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.shared.tunnels.len()
    }

    /// Closes upgraded connections now. A server's graceful shutdown forgets them once they are
    /// upgraded: call this when the grace period is over.
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
    fn pool(&self, upstream: &Upstream) -> Arc<Pool> {
        if let Some(pool) = self.pools.load().get(upstream) {
            return Arc::clone(pool);
        }
        let _changing = self.changing();
        let mut pools = HashMap::clone(&self.pools.load());
        let pool = pools.entry(upstream.clone()).or_insert_with(|| {
            let settings = Arc::clone(&self.settings);
            Arc::new(Pool::new(upstream.clone(), settings))
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

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        let Some(upstream) = request.extensions_mut().remove::<Upstream>() else {
            return ResponseFuture::failed(Failure::NoUpstream.into_error());
        };
        let options = hop_by_hop::strip(request.headers_mut());
        self.pool(&upstream).send(request, &options)
    }
}

/// The connections to one upstream. Made by [`Forwarder::pool`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct UpstreamPool {
    pool: Arc<Pool>,
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
        let shared = &self.shared;
        maintenance::ensure(&shared.maintained, || Arc::downgrade(shared));
        ResponseFuture::send(
            Arc::clone(&self.pool),
            shared.tunnels.clone(),
            request.map(RequestBody::new),
            options,
        )
    }

    /// Closes what is idle, and each other connection after its exchange: the upstream is no
    /// longer at this address.
    pub fn drain(&self) {
        self.pool.drain();
    }

    /// Keeps connections again after a [`drain`](Self::drain).
    pub fn revive(&self) {
        self.pool.revive();
    }

    /// Idle HTTP/1.1 connections at this moment.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.pool.idle_len()
    }
}
