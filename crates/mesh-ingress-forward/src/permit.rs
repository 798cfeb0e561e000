//! How many connections may be open, to one upstream and to all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

use crate::pool::Pool;

/// A number of open connections and its bound.
#[derive(Debug)]
struct Count {
    open: AtomicUsize,
    max: Option<usize>,
}

impl Count {
    fn new(max: Option<usize>) -> Self {
        let open = AtomicUsize::new(0);
        Self { open, max }
    }

    fn enter(&self) -> bool {
        let max = self.max.unwrap_or(usize::MAX);
        // Sequentially consistent, here and in `leave`: whoever fails to enter says that it waits
        // and then looks again, whoever leaves looks afterwards for those who wait.
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                (open < max).then_some(open + 1)
            })
            .is_ok()
    }

    fn leave(&self) {
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

/// The connections of a forwarder, over all upstreams.
#[derive(Debug)]
pub(crate) struct Total {
    count: Count,
    /// All pools, known only where there is a bound: one may have to close for another.
    pools: Mutex<Vec<Weak<Pool>>>,
    /// Those that wait for the bound, each once.
    hungry: Mutex<VecDeque<Weak<Pool>>>,
    /// How many of them there are.
    hungry_len: AtomicUsize,
}

impl Total {
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self {
            count: Count::new(max),
            pools: Mutex::default(),
            hungry: Mutex::default(),
            hungry_len: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.len()
    }

    pub(crate) fn register(&self, pool: &Arc<Pool>) {
        if self.count.max.is_some() {
            let mut pools = lock(&self.pools);
            pools.retain(|pool| pool.strong_count() > 0);
            pools.push(Arc::downgrade(pool));
        }
    }

    /// Whether there is room for one more connection, if need be made by closing an idle one.
    pub(crate) fn make_room(&self) -> bool {
        !self.count.is_full() || self.evict()
    }

    /// Closes one idle connection of any upstream; whether it is closed already.
    fn evict(&self) -> bool {
        if self.evict_http1() {
            return true;
        }
        // One of HTTP/2 ends when its driver has seen that it may: then there is room.
        self.pools().any(|pool| pool.http2.close_one_idle());
        false
    }

    fn evict_http1(&self) -> bool {
        self.pools().any(|pool| pool.close_one_idle())
    }

    /// All pools. Not locked while a connection is closed: that looks for others who wait.
    fn pools(&self) -> impl Iterator<Item = Arc<Pool>> + use<> {
        let pools = lock(&self.pools).clone();
        pools.into_iter().filter_map(|pool| pool.upgrade())
    }

    /// Counts one more connection, if need be for an idle one that is closed for it.
    fn enter(&self) -> bool {
        loop {
            if self.count.enter() {
                return true;
            }
            if !self.evict() {
                return false;
            }
        }
    }

    /// Has `pool` told when there is room; whether there is already.
    pub(crate) fn wait(&self, pool: &Weak<Pool>) -> bool {
        {
            let mut hungry = lock(&self.hungry);
            if !hungry.iter().any(|other| other.ptr_eq(pool)) {
                hungry.push_back(Weak::clone(pool));
            }
            self.hungry_len.store(hungry.len(), Ordering::SeqCst);
        }
        // Whoever left, or became idle, before that has not seen that we wait.
        !self.count.is_full() || self.evict_http1()
    }

    /// Whether somebody else than `pool` waits for room, and for longer than `since`.
    pub(crate) fn is_owed(&self, pool: &Weak<Pool>, since: Option<Instant>) -> bool {
        if self.hungry_len.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let hungry = lock(&self.hungry).clone();
        let others = hungry.iter().filter(|other| !other.ptr_eq(pool));
        others
            .filter_map(Weak::upgrade)
            .filter_map(|other| other.short_since())
            .any(|other| since.is_none_or(|since| other < since))
    }

    fn leave(&self) {
        self.count.leave();
        while self.hungry_len.load(Ordering::SeqCst) > 0 && !self.count.is_full() {
            if let Some(pool) = self.next_hungry() {
                pool.dial_for_waiting();
            }
        }
    }

    /// Whose turn it is: where somebody waits for longest. It asks again if that is not enough.
    fn next_hungry(&self) -> Option<Arc<Pool>> {
        // Their queues are looked at outside of the lock.
        let hungry = lock(&self.hungry).clone();
        let longest = hungry
            .iter()
            .filter_map(Weak::upgrade)
            .filter_map(|pool| Some((pool.short_since()?, pool)))
            .min_by_key(|(since, _)| *since);
        // The others have found what they wanted, or are gone.
        let next = match longest {
            Some((_, pool)) => Arc::downgrade(&pool),
            None => Weak::clone(hungry.front()?),
        };
        let mut hungry = lock(&self.hungry);
        hungry.retain(|other| !other.ptr_eq(&next));
        self.hungry_len.store(hungry.len(), Ordering::SeqCst);
        next.upgrade()
    }
}

/// The right to one open connection: held by the connection, or by what it has become.
#[derive(Debug)]
pub(crate) struct Permit {
    open: Arc<Open>,
    total: Arc<Total>,
    pool: Weak<Pool>,
}

/// The connections of one upstream.
#[derive(Debug)]
pub(crate) struct Open(Count);

impl Open {
    pub(crate) fn new(max: Option<usize>) -> Arc<Self> {
        Arc::new(Self(Count::new(max)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// The right to one more connection of `pool`.
    pub(crate) fn enter(self: &Arc<Self>, total: &Arc<Total>, pool: Weak<Pool>) -> Option<Permit> {
        if !self.0.enter() {
            return None;
        }
        if !total.enter() {
            self.0.leave();
            return None;
        }
        Some(Permit {
            open: Arc::clone(self),
            total: Arc::clone(total),
            pool,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.0.leave();
        if let Some(pool) = self.pool.upgrade() {
            pool.dial_for_waiting();
        }
        self.total.leave();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Lists that are whole at every point where a panic could strike.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
