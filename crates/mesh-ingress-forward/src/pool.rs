//! The connections to one upstream.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_ingress_core::Upstream;
use tokio::time::Instant;

use crate::h1;
use crate::h2;
use crate::settings::Settings;

/// Boxed: a connection is large, and moves from owner to owner.
type Idle = Vec<Box<h1::Connection>>;

/// The connections to one upstream. Upstreams share nothing, no lock either.
pub(crate) struct Pool {
    pub(crate) upstream: Upstream,
    pub(crate) settings: Arc<Settings>,
    /// The connection used last is on top and used next, so that the others can grow old.
    idle: Mutex<Idle>,
    pub(crate) http2: h2::Connections,
    draining: AtomicBool,
}

impl Pool {
    pub(crate) fn new(upstream: Upstream, settings: Arc<Settings>) -> Self {
        Self {
            upstream,
            settings,
            idle: Mutex::default(),
            http2: h2::Connections::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// An idle HTTP/1.1 connection that is still good.
    pub(crate) fn take_idle(&self) -> Option<Box<h1::Connection>> {
        let mut now = None;
        loop {
            // The lock is not held while the connection is looked at.
            let mut connection = self.idle().pop()?;
            let now = *now.get_or_insert_with(Instant::now);
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
        let mut idle = self.idle();
        // Whoever drains sets the flag before it takes the lock: looked at again under the lock,
        // no connection slips in behind its back.
        if idle.len() < self.settings.max_idle && !self.is_draining() {
            idle.push(connection);
        }
    }

    /// Closes what is idle, and whatever is given back from now on. Exchanges go on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
        self.http2.drain();
    }

    /// Undoes [`drain`](Self::drain): the address is in use again.
    pub(crate) fn revive(&self) {
        self.draining.store(false, Ordering::SeqCst);
    }

    /// Closes connections that are too old, idle for too long, or closed by the upstream.
    pub(crate) fn sweep(&self, now: Instant) {
        // Looked at outside the lock; requests that come meanwhile find the pool empty at worst.
        let mut swept = std::mem::take(&mut *self.idle());
        swept.retain_mut(|connection| !self.is_stale(connection, now) && connection.is_usable(now));
        let mut idle = self.idle();
        // Those given back meanwhile are younger: they stay on top.
        swept.append(&mut idle);
        if self.is_draining() {
            swept.clear();
        }
        let excess = swept.len().saturating_sub(self.settings.max_idle);
        swept.drain(..excess);
        *idle = swept;
        drop(idle);
        self.http2.sweep(now, self.settings.idle_timeout);
    }

    /// Whether nothing is kept open.
    pub(crate) fn is_empty(&self) -> bool {
        self.idle().is_empty() && self.http2.is_empty()
    }

    /// Idle HTTP/1.1 connections.
    pub(crate) fn idle_len(&self) -> usize {
        self.idle().len()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn is_stale(&self, connection: &h1::Connection, now: Instant) -> bool {
        self.settings
            .idle_timeout
            .is_some_and(|timeout| connection.idle_for(now) >= timeout)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // The list is consistent at every point where a panic could strike.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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
