//! How many connections may be open, to one upstream and to all.
//!
//! The limits do not know what a pool is: they call it through [`LimitedPool`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

/// A pool whose connections are limited.
pub(crate) trait LimitedPool {
    /// Closes one idle HTTP/1.1 connection. Returns whether there was one; there is room at once.
    fn evict_http1(&self) -> bool;

    /// Closes one idle HTTP/2 connection. Returns whether there was one; there is room when its
    /// driver has ended.
    fn evict_http2(&self) -> bool;

    /// Opens connections for waiting requests: there may be room.
    fn dial_for_waiting(&self);

    /// Since when a request waits for room among the connections of all upstreams.
    fn starved_since(&self) -> Option<Instant>;
}

/// The number of open connections, and its limit.
#[derive(Debug)]
struct Counter {
    open: AtomicUsize,
    max: Option<usize>,
}

impl Counter {
    fn new(max: Option<usize>) -> Self {
        let open = AtomicUsize::new(0);
        Self { open, max }
    }

    /// Counts one more, if the limit allows.
    fn acquire(&self) -> bool {
        let max = self.max.unwrap_or(usize::MAX);
        // Sequentially consistent, here and in `release`: a pool that fails to acquire registers as
        // starved and then tries again; a connection that closes releases first and then checks for
        // starved pools.
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open < max).then_some(open + 1)
            })
            .is_ok()
    }

    fn release(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_full(&self) -> bool {
        self.max
            .is_some_and(|max| self.open.load(Ordering::SeqCst) >= max)
    }

    fn len(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// The limit on the connections of all pools of a forwarder.
#[derive(Debug)]
pub(crate) struct TotalLimit<P> {
    counter: Counter,
    /// All pools, if there is a limit: one may have to close a connection for another.
    pools: Mutex<Vec<Weak<P>>>,
    /// The pools that wait for room, each once.
    starved: Mutex<VecDeque<Weak<P>>>,
    /// How many these are.
    starved_len: AtomicUsize,
}

impl<P: LimitedPool> TotalLimit<P> {
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self {
            counter: Counter::new(max),
            pools: Mutex::default(),
            starved: Mutex::default(),
            starved_len: AtomicUsize::new(0),
        }
    }

    /// The number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.counter.len()
    }

    pub(super) fn register(&self, pool: &Arc<P>) {
        if self.counter.max.is_some() {
            let mut pools = lock(&self.pools);
            pools.retain(|pool| pool.strong_count() > 0);
            pools.push(Arc::downgrade(pool));
        }
    }

    /// Whether there is room for one more connection, if necessary by closing an idle one.
    pub(super) fn make_room(&self) -> bool {
        !self.counter.is_full() || self.evict()
    }

    /// Closes one idle connection of any pool. Returns whether there is room at once.
    fn evict(&self) -> bool {
        if self.evict_http1() {
            return true;
        }
        self.pools().any(|pool| pool.evict_http2());
        false
    }

    fn evict_http1(&self) -> bool {
        self.pools().any(|pool| pool.evict_http1())
    }

    /// All pools. The list is not locked while a connection is closed, because that looks for
    /// starved pools.
    fn pools(&self) -> impl Iterator<Item = Arc<P>> + use<P> {
        let pools = lock(&self.pools).clone();
        pools.into_iter().filter_map(|pool| pool.upgrade())
    }

    /// Counts one more connection, if necessary by closing an idle one.
    fn acquire(&self) -> bool {
        loop {
            if self.counter.acquire() {
                return true;
            }
            if !self.evict() {
                return false;
            }
        }
    }

    /// Registers `pool` as starved: it is called when there is room. Returns whether there is
    /// already.
    pub(super) fn wait(&self, pool: &Weak<P>) -> bool {
        {
            let mut starved = lock(&self.starved);
            if !starved.iter().any(|other| other.ptr_eq(pool)) {
                starved.push_back(Weak::clone(pool));
            }
            self.starved_len.store(starved.len(), Ordering::SeqCst);
        }
        // A connection that closed or became idle before that has not seen the registration.
        !self.counter.is_full() || self.evict_http1()
    }

    /// Whether another pool than `pool` is starved, and since before `since`.
    pub(super) fn other_is_starved(&self, pool: &Weak<P>, since: Option<Instant>) -> bool {
        if self.starved_len.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let starved = lock(&self.starved).clone();
        let others = starved.iter().filter(|other| !other.ptr_eq(pool));
        others
            .filter_map(Weak::upgrade)
            .filter_map(|other| other.starved_since())
            .any(|other| since.is_none_or(|since| other < since))
    }

    fn release(&self) {
        self.counter.release();
        while self.starved_len.load(Ordering::SeqCst) > 0 && !self.counter.is_full() {
            if let Some(pool) = self.next_starved() {
                pool.dial_for_waiting();
            }
        }
    }

    /// The pool that is starved longest. It registers again if this does not suffice.
    fn next_starved(&self) -> Option<Arc<P>> {
        // Outside of the lock, because this locks the queue of each pool.
        let starved = lock(&self.starved).clone();
        let longest = starved
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|pool| Some((pool.starved_since()?, pool)))
            .min_by_key(|(since, _)| *since);
        // The others have got what they wanted, or are gone.
        let next = match longest {
            Some((_, pool)) => Arc::downgrade(&pool),
            None => Weak::clone(starved.front()?),
        };
        let mut starved = lock(&self.starved);
        starved.retain(|other| !other.ptr_eq(&next));
        self.starved_len.store(starved.len(), Ordering::SeqCst);
        next.upgrade()
    }
}

/// The limit on the connections of one pool.
#[derive(Debug)]
pub(super) struct PoolLimit(Counter);

impl PoolLimit {
    pub(super) fn new(max: Option<usize>) -> Arc<Self> {
        Arc::new(Self(Counter::new(max)))
    }

    /// The number of open connections.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// The right to one more connection of `pool`, if both limits allow.
    pub(super) fn acquire<P: LimitedPool>(
        self: &Arc<Self>,
        total: &Arc<TotalLimit<P>>,
        pool: Weak<P>,
    ) -> Option<Permit<P>> {
        if !self.0.acquire() {
            return None;
        }
        if !total.acquire() {
            self.0.release();
            return None;
        }
        Some(Permit {
            limit: Arc::clone(self),
            total: Arc::clone(total),
            pool,
        })
    }
}

/// The right to one open connection. The connection holds it, and after an upgrade the tunnel.
#[derive(Debug)]
pub(crate) struct Permit<P: LimitedPool> {
    limit: Arc<PoolLimit>,
    total: Arc<TotalLimit<P>>,
    pool: Weak<P>,
}

impl<P: LimitedPool> Drop for Permit<P> {
    fn drop(&mut self) {
        self.limit.0.release();
        if let Some(pool) = self.pool.upgrade() {
            pool.dial_for_waiting();
        }
        self.total.release();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Consistent wherever a panic could happen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
