//! How many connections may be open, to one upstream and to all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
    /// Those that wait for the bound, the longest waiting first.
    hungry: Mutex<VecDeque<Weak<Pool>>>,
}

impl Total {
    pub(crate) fn new(max: Option<usize>) -> Self {
        Self {
            count: Count::new(max),
            pools: Mutex::default(),
            hungry: Mutex::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count.is_full()
    }

    pub(crate) fn register(&self, pool: &Arc<Pool>) {
        if self.count.max.is_some() {
            let mut pools = lock(&self.pools);
            pools.retain(|pool| pool.strong_count() > 0);
            pools.push(Arc::downgrade(pool));
        }
    }

    /// Closes one idle connection of any upstream.
    fn evict(&self) -> bool {
        // Not locked while a connection is closed: that looks for others who wait.
        let pools = lock(&self.pools).clone();
        pools
            .iter()
            .filter_map(Weak::upgrade)
            .any(|pool| pool.close_one_idle())
    }

    /// Counts one more connection, if need be for an idle one that is closed for it. Otherwise
    /// `pool` is called when there is room.
    fn enter(&self, pool: &Weak<Pool>) -> bool {
        loop {
            if self.count.enter() {
                return true;
            }
            if self.evict() {
                continue;
            }
            lock(&self.hungry).push_back(Weak::clone(pool));
            if self.count.is_full() {
                return false;
            }
            // Left since: nobody may have seen that we wait.
        }
    }

    fn leave(&self) {
        self.count.leave();
        while self.count.max.is_some() {
            let next = lock(&self.hungry).pop_front();
            match next.map(|pool| pool.upgrade()) {
                None => return,
                Some(Some(pool)) if pool.is_wanting() => return pool.dial_for_waiting(),
                // It found what it wanted, or is gone.
                Some(_) => {}
            }
        }
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
        if !total.enter(&pool) {
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
