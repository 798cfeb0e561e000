//! The pools of a forwarder, one for each upstream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mesh_ingress_core::Upstream;
use tokio::time::Instant;

use super::Pool;
use super::limits::TotalLimit;
use crate::settings::Settings;

/// All pools of a forwarder. A pool is created with the first request to its upstream, and removed
/// when it has no connections and is not in use.
#[derive(Debug)]
pub(crate) struct PoolSet {
    pub(crate) settings: Arc<Settings>,
    pools: ArcSwap<HashMap<Upstream, Arc<Pool>>>,
    /// Held while a pool is added or removed, never during a lookup.
    changing: Mutex<()>,
    total: Arc<TotalLimit<Pool>>,
}

impl PoolSet {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            total: Arc::new(TotalLimit::new(settings.max_connections_total)),
            settings: Arc::new(settings),
            pools: ArcSwap::default(),
            changing: Mutex::default(),
        }
    }

    /// The pool of an upstream.
    pub(crate) fn get(&self, upstream: &Upstream) -> Arc<Pool> {
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

    /// Open connections to all upstreams, upgraded ones included.
    pub(crate) fn connections(&self) -> usize {
        self.total.len()
    }

    /// Closes connections that are too old, and removes unused pools.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut unused = false;
        for pool in self.pools.load().values() {
            pool.sweep(now);
            unused |= pool.is_empty() && Arc::strong_count(pool) == 1;
        }
        if unused {
            let _changing = self.changing();
            let mut pools = HashMap::clone(&self.pools.load());
            // The old map holds each pool once more until it is replaced.
            pools.retain(|_, pool| !(pool.is_empty() && Arc::strong_count(pool) <= 2));
            self.pools.store(Arc::new(pools));
        }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
