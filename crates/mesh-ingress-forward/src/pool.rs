//! The connections to one upstream: idle ones, the queue for them, and dials under way.
//!
//! | module | has |
//! |---|---|
//! | `idle` | idle HTTP/1.1 connections, in shards |
//! | `http2` | HTTP/2 connections, each used by many requests |
//! | `queue` | requests that wait, and the dials under way for them |
//! | `limits` | how many connections may be open |
//! | `dial` | opening connections |
//! | `checkout` | a request's way to a connection |
//! | `release` | connections and streams that come back |
//! | `set` | the pools of all upstreams |

mod checkout;
mod dial;
mod http2;
mod idle;
mod limits;
mod queue;
mod release;
mod set;
mod stats;

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh_ingress_core::{Error, Protocol, Upstream};
use tokio::runtime::Handle;
use tokio::time::Instant;

pub(crate) use self::checkout::Checkout;
use self::http2::Http2Connections;
use self::idle::Idle;
use self::limits::{LimitedPool, Permit, PoolLimit, TotalLimit};
use self::queue::{Queue, Waiter};
pub(crate) use self::set::PoolSet;
use crate::breaker::Breaker;
use crate::conn::http1;
use crate::conn::http2::Stream;
use crate::retry::Budget;
use crate::settings::Settings;

/// An HTTP/1.1 connection with the right to be open.
pub(crate) type Http1Connection = http1::Connection<Permit<Pool>>;

/// A connection that one request may be sent on: its own, or a stream of a shared one.
pub(crate) enum PooledConnection {
    Http1(Box<Http1Connection>),
    Http2(Stream<Pool>),
}

/// The connections to one upstream. Pools share nothing, and no lock either; only a limit on all
/// connections has a counter that they share.
///
/// The fields that each request reads come first, in as few cache lines as possible: with a
/// thousand pools, each line comes from memory.
#[repr(C)]
pub(crate) struct Pool {
    pub(crate) settings: Arc<Settings>,
    /// Incremented by a drain: a connection of an older generation is not reused.
    generation: AtomicU64,
    pub(crate) breaker: Option<Arc<Breaker>>,
    total: Arc<TotalLimit<Self>>,
    idle: Idle,
    pub(crate) queue: Queue<PooledConnection>,
    /// The upstream's first address.
    pub(crate) addr: SocketAddr,
    /// The protocol that the upstream chose by ALPN.
    negotiated: AtomicU8,
    pub(crate) upstream: Upstream,
    limit: Arc<PoolLimit>,
    this: Weak<Self>,
    http2: Http2Connections,
    pub(crate) budget: Option<Budget>,
}

const NEGOTIATED_HTTP1: u8 = 1;
const NEGOTIATED_HTTP2: u8 = 2;

impl Pool {
    fn new(
        upstream: Upstream,
        settings: Arc<Settings>,
        total: &Arc<TotalLimit<Self>>,
    ) -> Arc<Self> {
        let now = Instant::now();
        let accrual = settings.failure_accrual.clone();
        let pool = Arc::new_cyclic(|this| Self {
            breaker: accrual.map(|accrual| Arc::new(Breaker::new(accrual, now))),
            budget: settings
                .retry
                .as_ref()
                .map(|policy| Budget::new(policy, now)),
            addr: upstream.addr(),
            upstream,
            limit: PoolLimit::new(settings.max_connections),
            idle: Idle::new(settings.shards),
            settings,
            http2: Http2Connections::default(),
            negotiated: AtomicU8::new(0),
            queue: Queue::default(),
            total: Arc::clone(total),
            generation: AtomicU64::new(0),
            this: Weak::clone(this),
        });
        total.register(&pool);
        pool
    }

    /// Loads the cache lines that a request reads in the pool, all at once and not one after the
    /// other between locks.
    #[inline]
    pub(crate) fn prefetch(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        black_box((generation, self.queue.is_empty()));
    }

    /// A connection that can be used at once. None if requests wait: these come first.
    pub(crate) fn take(&self) -> Option<PooledConnection> {
        if !self.queue.is_empty() {
            return None;
        }
        self.find(http1::Connection::use_from)
    }

    /// Finds an idle connection or a free stream. Calls `found` with an HTTP/1.1 connection and the
    /// time.
    fn find(&self, found: impl FnOnce(&mut Http1Connection, Instant)) -> Option<PooledConnection> {
        let idle = &self.idle;
        let idle = idle.take(self.settings.reuse, |idle, now| self.is_good(idle, now));
        if let Some((mut connection, now)) = idle {
            found(&mut connection, now);
            return Some(PooledConnection::Http1(connection));
        }
        if self.is_multiplexed() {
            return self.http2.take().map(PooledConnection::Http2);
        }
        None
    }

    /// Hands a connection to the request that waits longest, or keeps it for the next one.
    fn offer(&self, connection: PooledConnection) {
        let refused = match self.queue.is_empty() {
            true => Err(connection),
            false => self.queue.offer(connection),
        };
        if let Err(connection) = refused {
            self.keep(connection);
        }
    }

    /// Keeps a connection that no request waits for.
    fn keep(&self, connection: PooledConnection) {
        match connection {
            PooledConnection::Http1(connection) => self.keep_http1(connection),
            // The pool has its connection already; the stream is free again.
            PooledConnection::Http2(stream) => drop(stream),
        }
    }

    fn keep_http1(&self, connection: Box<Http1Connection>) {
        let max = self.settings.max_idle;
        if !self.idle.keep(connection, max, || self.generation()) {
            return;
        }
        // A request may have joined the queue since that was checked.
        if !self.queue.is_empty() {
            self.serve();
        }
        self.evict_for_starved();
    }

    /// Closes idle connections for other pools that wait for room.
    fn evict_for_starved(&self) {
        while self.total.other_is_starved(&self.this, None) {
            if !self.idle.close_oldest() {
                // There is room when its driver has ended.
                self.http2.evict();
                return;
            }
        }
    }

    /// Hands idle connections and free streams to waiting requests.
    fn serve(&self) {
        if let Some(connection) = self.queue.serve(|| self.find(|_, _| {})) {
            self.keep(connection);
        }
    }

    /// Opens one more connection beside one that takes long, if many requests wait for that.
    fn hedge(&self, after: Duration) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        let recently = self
            .queue
            .last_dial()
            .is_some_and(|at| at.elapsed() < after);
        if recently {
            return;
        }
        // At most one for each waiting request, as with HTTP/1.1.
        if let Some(runtime) = self.queue.reserve_dial(|waiting| waiting) {
            match self.permit() {
                Some(permit) => dial::spawn(&this, permit, &runtime),
                None => {
                    self.queue.cancel_reservation();
                    // A connection that closed meanwhile saw the reservation, and did not dial.
                    self.dial_for_waiting();
                }
            }
        }
    }

    /// Aborts dials that no request waits for any more.
    fn abort_surplus_dials(&self) {
        self.queue.abort_surplus(|waiting| self.dials_for(waiting));
    }

    /// How many dials a number of waiting requests needs.
    fn dials_for(&self, waiting: usize) -> usize {
        if self.is_multiplexed() {
            waiting.div_ceil(self.http2.expected_streams())
        } else {
            waiting
        }
    }

    /// How many requests a number of dials serves.
    fn served_by(&self, dials: usize) -> usize {
        if self.is_multiplexed() {
            dials.saturating_mul(self.http2.expected_streams())
        } else {
            dials
        }
    }

    /// Joins the queue; `None` if there is no room for another connection and too many requests
    /// wait.
    fn join(&self, runtime: Handle) -> Option<Waiter<PooledConnection>> {
        // Idle connections that the request did not find are being swept, and come back at once.
        let room = self.idle_len() > 0 || !self.limit.is_full() && self.total.make_room();
        let max = if room {
            usize::MAX
        } else {
            self.settings.max_waiting
        };
        self.queue.join(max, |dials| self.served_by(dials), runtime)
    }

    /// The right to open one more connection.
    fn permit(&self) -> Option<Permit<Self>> {
        self.limit.acquire(&self.total, Weak::clone(&self.this))
    }

    /// The same, if necessary by closing an idle connection.
    fn permit_for_fresh(&self) -> Option<Permit<Self>> {
        loop {
            let permit = self.permit();
            if permit.is_some() || !self.idle.close_oldest() {
                return permit;
            }
        }
    }

    /// Whether there is a limit on its connections.
    fn is_limited(&self) -> bool {
        let settings = &self.settings;
        settings.max_connections.is_some() || settings.max_connections_total.is_some()
    }

    /// Whether a request waits without a dial, for lack of room.
    fn is_starved(&self) -> bool {
        let since = self.queue.starved_since(|waiting| self.dials_for(waiting));
        since.is_some()
    }

    /// Whether one connection serves many requests at once.
    pub(crate) fn is_multiplexed(&self) -> bool {
        match self.upstream.http_protocol() {
            Protocol::Http2 => true,
            Protocol::Alpn => self.negotiated.load(Ordering::Relaxed) != NEGOTIATED_HTTP1,
            _ => false,
        }
    }

    /// Remembers the protocol of a new connection.
    fn set_negotiated(&self, protocol: Protocol) {
        let negotiated = match protocol {
            Protocol::Http2 => NEGOTIATED_HTTP2,
            _ => NEGOTIATED_HTTP1,
        };
        self.negotiated.store(negotiated, Ordering::Relaxed);
    }

    /// Opens connections until `count` are ready.
    ///
    /// # Errors
    /// That of the first connection that fails.
    pub(crate) async fn warm_up(self: &Arc<Self>, count: usize) -> Result<(), Error> {
        // Counted once: connections that requests take or the upstream closes meanwhile are not
        // replaced.
        let ready = self.idle_len() + self.http2.ready_len(Instant::now());
        for _ in 0..count.saturating_sub(ready) {
            let full = !self.is_multiplexed() && self.idle_len() >= self.settings.max_idle;
            let Some(permit) = self.permit().filter(|_| !full) else {
                break;
            };
            let connection = dial::open(self, permit).await?;
            self.offer(connection);
        }
        Ok(())
    }

    /// Closes idle connections now, and each other connection after its exchange.
    pub(crate) fn drain(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.idle.clear();
        self.http2.drain();
    }

    /// The number of drains so far.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Closes connections that are too old, idle for too long, or closed by the upstream.
    fn sweep(&self, now: Instant) {
        let is_good = |idle: &mut Http1Connection| {
            idle.shrink();
            self.is_good(idle, now)
        };
        self.idle.sweep(is_good, || self.generation());
        self.http2.sweep(now, self.settings.idle_timeout);
        // During the sweep, a request may have found no idle connection.
        if !self.queue.is_empty() {
            self.serve();
        }
        self.evict_for_starved();
    }

    fn is_good(&self, connection: &mut Http1Connection, now: Instant) -> bool {
        let idle = connection.idle_for(now);
        let stale = self.settings.idle_timeout.is_some_and(|max| idle >= max);
        !stale && connection.generation() == self.generation() && connection.is_usable(now)
    }
}

impl LimitedPool for Pool {
    fn evict_http1(&self) -> bool {
        self.idle.close_oldest()
    }

    fn evict_http2(&self) -> bool {
        self.http2.evict()
    }

    fn dial_for_waiting(&self) {
        let Some(this) = self.this.upgrade() else {
            return;
        };
        while let Some(runtime) = self.queue.reserve_dial(|waiting| self.dials_for(waiting)) {
            match self.permit() {
                Some(permit) => dial::spawn(&this, permit, &runtime),
                None => {
                    self.queue.cancel_reservation();
                    // A connection that closed meanwhile saw the reservation, and did not dial.
                    if self.limit.is_full() || !self.total.wait(&self.this) {
                        return;
                    }
                }
            }
        }
    }

    fn starved_since(&self) -> Option<Instant> {
        if self.limit.is_full() {
            return None;
        }
        self.queue.starved_since(|waiting| self.dials_for(waiting))
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}
