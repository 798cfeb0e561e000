//! The connections to one upstream.

mod report;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh_ingress_core::{Error, Protocol, Upstream};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::idle::Idle;
use crate::lease::Lease;
use crate::permit::{Open, Permit, Total};
use crate::retry::Budget;
use crate::settings::Settings;
use crate::waiting::{Queue, Turn};
use crate::{dial, h1, h2};

/// The connections to one upstream. Upstreams share nothing, no lock either; only where there is a
/// bound on all connections do they share its count.
///
/// What each request looks at comes first, and is together therefore: where there are a thousand
/// pools, each line of memory that is asked for is one to be waited for.
#[repr(C)]
pub(crate) struct Pool {
    pub(crate) settings: Arc<Settings>,
    /// Counts drains: a connection from before the last one is not used again.
    era: AtomicU64,
    pub(crate) breaker: Option<Arc<Breaker>>,
    total: Arc<Total>,
    idle: Idle,
    pub(crate) queue: Queue,
    /// Its first address.
    pub(crate) addr: SocketAddr,
    /// What the upstream has chosen, where it chooses.
    learned: AtomicU8,
    pub(crate) upstream: Upstream,
    open: Arc<Open>,
    me: Weak<Self>,
    pub(crate) http2: h2::Connections,
    pub(crate) budget: Option<Budget>,
}

const LEARNED_HTTP1: u8 = 1;
const LEARNED_HTTP2: u8 = 2;

impl Pool {
    pub(crate) fn new(
        upstream: Upstream,
        settings: Arc<Settings>,
        total: &Arc<Total>,
    ) -> Arc<Self> {
        let now = Instant::now();
        let accrual = settings.failure_accrual.clone();
        let pool = Arc::new_cyclic(|me| Self {
            breaker: accrual.map(|accrual| Arc::new(Breaker::new(accrual, now))),
            budget: settings
                .retry
                .as_ref()
                .map(|policy| Budget::new(policy, now)),
            addr: upstream.addr(),
            upstream,
            open: Open::new(settings.max_connections),
            idle: Idle::new(settings.shards),
            settings,
            http2: h2::Connections::default(),
            learned: AtomicU8::new(0),
            queue: Queue::default(),
            total: Arc::clone(total),
            era: AtomicU64::new(0),
            me: Weak::clone(me),
        });
        total.register(&pool);
        pool
    }

    /// Has the processor fetch what a request looks at here, if it is not at hand: at once, and not
    /// piece by piece between locks, each of which is waited for.
    #[inline]
    pub(crate) fn fetch(&self) {
        black_box((self.era.load(Ordering::Relaxed), self.queue.is_empty()));
    }

    /// What can be used at once. Nobody jumps the queue.
    pub(crate) fn take(&self) -> Option<Lease> {
        if !self.queue.is_empty() {
            return None;
        }
        self.find(h1::Connection::use_from)
    }

    /// `found` is told of a connection of HTTP/1.1, and the time.
    fn find(&self, found: impl FnOnce(&mut h1::Connection, Instant)) -> Option<Lease> {
        let idle = &self.idle;
        let idle = idle.take(self.settings.reuse, |idle, now| self.is_good(idle, now));
        if let Some((mut connection, now)) = idle {
            found(&mut connection, now);
            return Some(Lease::Http1(connection));
        }
        if self.shares() {
            return self.http2.take().map(Lease::Http2);
        }
        None
    }

    /// Gives a lease to whoever waits longest, or keeps it for the next request.
    pub(crate) fn hand(&self, lease: Lease) {
        let lease = match self.queue.is_empty() {
            true => Err(lease),
            false => self.queue.give(lease),
        };
        match lease {
            Ok(()) => {}
            Err(Lease::Http1(connection)) => self.keep(connection),
            // Its connection is known already; given back, the stream serves whoever comes.
            Err(Lease::Http2(stream)) => drop(stream),
        }
    }

    /// Takes back a connection whose exchange is complete; closes it if there is any doubt.
    pub(crate) fn release(&self, mut connection: Box<h1::Connection>) {
        let now = Instant::now();
        // Who waits gets what is known to be good. What nobody waits for is looked at when it is
        // taken, and once is enough.
        let good = if self.queue.is_empty() {
            connection.is_worth_keeping(now)
        } else {
            connection.is_usable(now)
        };
        if good && connection.era() == self.era() {
            connection.park(now);
            // Where all upstreams share a bound, those who wait for longest come first.
            if !self.queue.is_empty() && self.total.is_owed(&self.me, self.queue.oldest()) {
                return;
            }
            self.hand(Lease::Http1(connection));
        }
    }

    /// Keeps a connection until it is used, or too old.
    fn keep(&self, connection: Box<h1::Connection>) {
        let kept = self
            .idle
            .keep(connection, self.settings.max_idle, || self.era());
        if !kept {
            return;
        }
        // Somebody may have begun to wait since the queue was looked at.
        if !self.queue.is_empty() {
            self.serve();
        }
        self.make_way();
    }

    /// Closes idle connections for other upstreams that wait for room.
    pub(crate) fn make_way(&self) {
        while self.total.is_owed(&self.me, None) {
            if !self.close_one_idle() {
                // Ends a little later, and then there is room.
                self.http2.close_one_idle();
                return;
            }
        }
    }

    /// Gives what is idle to those who wait.
    pub(crate) fn serve(&self) {
        match self.queue.serve(|| self.find(|_, _| {})) {
            Some(Lease::Http1(connection)) => self.keep(connection),
            Some(Lease::Http2(stream)) => drop(stream),
            None => {}
        }
    }

    /// Opens connections for those who wait, as many as there may be.
    pub(crate) fn dial_for_waiting(&self) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        while let Some(runtime) = self.queue.reserve(|waiting| self.wanted(waiting)) {
            match self.permit() {
                Some(permit) => dial::spawn(&me, permit, &runtime),
                None => {
                    self.queue.unreserve();
                    // Whoever left meanwhile saw the reservation and did nothing.
                    if self.open.is_full() || !self.total.wait(&self.me) {
                        return;
                    }
                }
            }
        }
    }

    /// Opens one more connection where many wait for one that takes long.
    pub(crate) fn hedge(&self, after: Duration) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        let recently = self
            .queue
            .last_dial()
            .is_some_and(|at| at.elapsed() < after);
        if recently {
            return;
        }
        // At most one for each who waits, as with HTTP/1.1.
        if let Some(runtime) = self.queue.reserve(|waiting| waiting) {
            match self.permit() {
                Some(permit) => dial::spawn(&me, permit, &runtime),
                None => {
                    self.queue.unreserve();
                    // Whoever offered room meanwhile saw the reservation and went on.
                    self.dial_for_waiting();
                }
            }
        }
    }

    /// Calls off connecting that nobody waits for any more.
    pub(crate) fn call_off(&self) {
        self.queue.call_off(|waiting| self.wanted(waiting));
    }

    /// How many connections are to be opened for so many who wait.
    fn wanted(&self, waiting: usize) -> usize {
        if self.shares() {
            waiting.div_ceil(self.http2.expected_streams())
        } else {
            waiting
        }
    }

    /// How many of those who wait so many dials will serve.
    fn covered(&self, dials: usize) -> usize {
        if self.shares() {
            dials.saturating_mul(self.http2.expected_streams())
        } else {
            dials
        }
    }

    pub(crate) fn is_wanting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A place in the queue; `None` if there is no room for another connection, and too many wait
    /// already.
    pub(crate) fn join(&self, runtime: Handle) -> Option<Turn> {
        // What is idle and was not found is being looked at by the sweep, and comes back at once.
        let room = self.idle_len() > 0 || !self.open.is_full() && self.total.make_room();
        let max = if room {
            usize::MAX
        } else {
            self.settings.max_waiting
        };
        self.queue.join(max, |dials| self.covered(dials), runtime)
    }

    /// The right to one more connection.
    pub(crate) fn permit(&self) -> Option<Permit> {
        self.open.enter(&self.total, Weak::clone(&self.me))
    }

    /// The same, if need be for an idle one that is closed for it.
    pub(crate) fn permit_for_fresh(&self) -> Option<Permit> {
        loop {
            let permit = self.permit();
            if permit.is_some() || !self.close_one_idle() {
                return permit;
            }
        }
    }

    /// Whether there is a bound to its connections.
    pub(crate) fn is_bounded(&self) -> bool {
        let settings = &self.settings;
        settings.max_connections.is_some() || settings.max_connections_total.is_some()
    }

    /// Whether some of those who wait have no connection under way, for lack of a right to it.
    pub(crate) fn is_short(&self) -> bool {
        self.queue
            .short_since(|waiting| self.wanted(waiting))
            .is_some()
    }

    /// Since when somebody waits for room among the connections of all upstreams.
    pub(crate) fn short_since(&self) -> Option<Instant> {
        if self.open.is_full() {
            return None;
        }
        self.queue.short_since(|waiting| self.wanted(waiting))
    }

    /// Whether one connection serves many requests at once.
    pub(crate) fn shares(&self) -> bool {
        match self.upstream.http_protocol() {
            Protocol::Http2 => true,
            Protocol::Alpn => self.learned.load(Ordering::Relaxed) != LEARNED_HTTP1,
            _ => false,
        }
    }

    /// Remembers what the upstream speaks.
    pub(crate) fn learn(&self, protocol: Protocol) {
        let learned = match protocol {
            Protocol::Http2 => LEARNED_HTTP2,
            _ => LEARNED_HTTP1,
        };
        self.learned.store(learned, Ordering::Relaxed);
    }

    /// Opens connections until there are `count`, for requests to come.
    ///
    /// # Errors
    /// That of the first that fails.
    pub(crate) async fn warm_up(self: &Arc<Self>, count: usize) -> Result<(), Error> {
        // Counted once: those that requests take meanwhile, or that the upstream closes, are not
        // opened again.
        let missing = count.saturating_sub(self.ready_len(Instant::now()));
        for _ in 0..missing {
            let full = !self.shares() && self.idle_len() >= self.settings.max_idle;
            let Some(permit) = self.permit().filter(|_| !full) else {
                break;
            };
            let lease = dial::open(self, permit).await?;
            self.hand(lease);
        }
        Ok(())
    }

    fn ready_len(&self, now: Instant) -> usize {
        self.idle_len() + self.http2.ready_len(now)
    }

    /// Closes what is idle, and each other connection after its exchange.
    pub(crate) fn drain(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
        self.idle.clear();
        self.http2.drain();
    }

    /// Closes one idle HTTP/1.1 connection, the one unused for longest; whether there was one.
    pub(crate) fn close_one_idle(&self) -> bool {
        self.idle.close_oldest()
    }

    /// Closes connections that are too old, idle for too long, or closed by the upstream.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_good = |idle: &mut h1::Connection| {
            idle.rest();
            self.is_good(idle, now)
        };
        self.idle.sweep(is_good, || self.era());
        self.http2.sweep(now, self.settings.idle_timeout);
        // While they were looked at, somebody may have found nothing.
        if !self.queue.is_empty() {
            self.serve();
        }
        self.make_way();
    }

    fn is_good(&self, connection: &mut h1::Connection, now: Instant) -> bool {
        let idle = connection.idle_for(now);
        let stale = self.settings.idle_timeout.is_some_and(|max| idle >= max);
        !stale && connection.era() == self.era() && connection.is_usable(now)
    }
}
