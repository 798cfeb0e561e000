//! The connections to one upstream.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_ingress_core::Upstream;
use tokio::time::Instant;

use crate::h1;
use crate::h2;
use crate::settings::Settings;
use crate::shard;

/// Boxed: a connection is large, and moves from owner to owner.
type Idle = Vec<Box<h1::Connection>>;

/// The connections to one upstream. Upstreams share nothing, no lock either.
pub(crate) struct Pool {
    pub(crate) upstream: Upstream,
    pub(crate) settings: Arc<Settings>,
    /// Idle connections by the thread that opened them: it serves them best, and where each thread
    /// has a runtime of its own, only that one is woken by them. Within a shard the connection used
    /// last is on top and used next, so that the others can grow old.
    shards: Box<[Mutex<Idle>]>,
    /// How many there are in all shards.
    idle: AtomicUsize,
    pub(crate) http2: h2::Connections,
    draining: AtomicBool,
}

impl Pool {
    pub(crate) fn new(upstream: Upstream, settings: Arc<Settings>) -> Self {
        let shards = (0..settings.shards.get()).map(|_| Mutex::default());
        Self {
            upstream,
            shards: shards.collect(),
            settings,
            idle: AtomicUsize::new(0),
            http2: h2::Connections::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// An idle HTTP/1.1 connection that is still good: one of this thread, or else of another, so
    /// that few requests share few connections whatever thread serves them.
    pub(crate) fn take_idle(&self) -> Option<Box<h1::Connection>> {
        if self.idle.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now = Instant::now();
        let own = shard::of_this_thread();
        (0..self.shards.len()).find_map(|next| self.take_from(own + next, now))
    }

    fn take_from(&self, shard: usize, now: Instant) -> Option<Box<h1::Connection>> {
        loop {
            // The lock is not held while the connection is looked at.
            let mut connection = self.shard(shard).pop()?;
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if !self.is_stale(&connection, now) && connection.is_usable(now) {
                return Some(connection);
            }
        }
    }

    /// Takes back a connection whose exchange is complete; closes it if there is any doubt.
    pub(crate) fn release(&self, mut connection: Box<h1::Connection>) {
        let now = Instant::now();
        if self.is_draining() || !connection.is_usable(now) {
            return;
        }
        connection.park(now);
        // Counted first: two that come at once must not both be the last one allowed.
        if self.idle.fetch_add(1, Ordering::Relaxed) >= self.settings.max_idle {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut shard = self.shard(connection.home());
        // Whoever drains sets the flag before it takes the lock: looked at again under the lock,
        // no connection slips in behind its back.
        if self.is_draining() {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        } else {
            shard.push(connection);
        }
    }

    /// Closes what is idle, and whatever is given back from now on. Exchanges go on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for shard in 0..self.shards.len() {
            let closed = std::mem::take(&mut *self.shard(shard));
            self.idle.fetch_sub(closed.len(), Ordering::Relaxed);
        }
        self.http2.drain();
    }

    /// Undoes [`drain`](Self::drain): the address is in use again.
    pub(crate) fn revive(&self) {
        self.draining.store(false, Ordering::SeqCst);
    }

    /// Closes connections that are too old, idle for too long, or closed by the upstream.
    pub(crate) fn sweep(&self, now: Instant) {
        for shard in 0..self.shards.len() {
            // Looked at outside the lock; requests that come meanwhile find less at worst.
            let mut swept = std::mem::take(&mut *self.shard(shard));
            let before = swept.len();
            swept.retain_mut(|connection| {
                !self.is_stale(connection, now) && connection.is_usable(now)
            });
            let mut idle = self.shard(shard);
            if self.is_draining() {
                swept.clear();
            }
            self.idle.fetch_sub(before - swept.len(), Ordering::Relaxed);
            // Those given back meanwhile are younger: they stay on top.
            swept.append(&mut idle);
            *idle = swept;
        }
        self.http2.sweep(now, self.settings.idle_timeout);
    }

    /// Whether nothing is kept open.
    pub(crate) fn is_empty(&self) -> bool {
        self.idle_len() == 0 && self.http2.is_empty()
    }

    /// Idle HTTP/1.1 connections.
    pub(crate) fn idle_len(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn is_stale(&self, connection: &h1::Connection, now: Instant) -> bool {
        self.settings
            .idle_timeout
            .is_some_and(|timeout| connection.idle_for(now) >= timeout)
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Idle> {
        let shard = &self.shards[shard % self.shards.len()];
        // The list is consistent at every point where a panic could strike.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("upstream", &self.upstream)
            .field("idle", &self.idle_len())
            .field("draining", &self.is_draining())
            .finish_non_exhaustive()
    }
}
