//! The HTTP/1.1 connections that nobody uses at this moment.

mod list;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::list::List;
use crate::settings::Reuse;
use crate::{h1, shard};

/// Connections are in boxes: they are large, and move from owner to owner.
type Connections = List<Box<h1::Connection>>;

/// Idle connections by the thread that opened them: it serves them best, and where each thread has
/// a runtime of its own, only that one is woken by them.
///
/// No lock is held while a connection is looked at, or closed: that reads from its socket, and
/// gives a right back that others wait for.
#[derive(Debug)]
pub(crate) struct Idle {
    /// The only list, if there is one: inline, beside what else a request looks at.
    one: Mutex<Connections>,
    /// How many there are, those included that are looked at just now.
    len: AtomicUsize,
    several: Option<Box<Several>>,
}

#[derive(Debug)]
struct Several {
    shards: Box<[Apart<Mutex<Connections>>]>,
    len: Apart<AtomicUsize>,
}

/// Something that shares no cache line with anything else: each thread writes to its own shard for
/// every request, and another core would have to wait for what it only reads beside it. Two lines,
/// because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl Idle {
    pub(crate) fn new(shards: NonZeroUsize) -> Self {
        let several = (shards.get() > 1).then(|| {
            let shards = (0..shards.get()).map(|_| Apart::default());
            Box::new(Several {
                shards: shards.collect(),
                len: Apart::default(),
            })
        });
        Self {
            one: Mutex::default(),
            len: AtomicUsize::new(0),
            several,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count().load(Ordering::SeqCst)
    }

    /// How many there are in all shards, those included that are looked at just now.
    fn count(&self) -> &AtomicUsize {
        match &self.several {
            None => &self.len,
            Some(several) => &several.len.0,
        }
    }

    fn shards(&self) -> usize {
        match &self.several {
            None => 1,
            Some(several) => several.shards.len(),
        }
    }

    /// One that `is_good`: of this thread, or else of another, so that few requests share few
    /// connections whatever thread serves them; and the time. The others are closed.
    pub(crate) fn take(
        &self,
        reuse: Reuse,
        mut is_good: impl FnMut(&mut h1::Connection, Instant) -> bool,
    ) -> Option<(Box<h1::Connection>, Instant)> {
        if self.len() == 0 {
            return None;
        }
        let now = Instant::now();
        let mut is_good = |connection: &mut h1::Connection| is_good(connection, now);
        let own = shard::of_this_thread();
        let found =
            (0..self.shards()).find_map(|next| self.take_from(own + next, reuse, &mut is_good))?;
        Some((found, now))
    }

    fn take_from(
        &self,
        shard: usize,
        reuse: Reuse,
        is_good: &mut impl FnMut(&mut h1::Connection) -> bool,
    ) -> Option<Box<h1::Connection>> {
        loop {
            let mut connection = {
                let mut idle = self.shard(shard);
                match reuse {
                    Reuse::Lifo => idle.pop_newest(),
                    Reuse::RoundRobin => idle.pop_oldest(),
                }?
            };
            self.count().fetch_sub(1, Ordering::Relaxed);
            if is_good(&mut connection) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection, unless there are `max` already or it is of another era than `era` says;
    /// whether it was kept.
    pub(crate) fn keep(
        &self,
        connection: Box<h1::Connection>,
        max: usize,
        era: impl FnOnce() -> u64,
    ) -> bool {
        // Counted first: two that come at once must not both be the last one allowed.
        if self.count().fetch_add(1, Ordering::SeqCst) >= max {
            self.count().fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        let mut shard = self.shard(connection.home());
        // Whoever drains says so before it takes the lock: looked at again under the lock, no
        // connection slips in behind its back.
        if connection.era() == era() {
            shard.push(connection);
            return true;
        }
        drop(shard);
        self.count().fetch_sub(1, Ordering::SeqCst);
        false
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        for shard in 0..self.shards() {
            let closed = std::mem::take(&mut *self.shard(shard));
            self.count().fetch_sub(closed.len(), Ordering::SeqCst);
        }
    }

    /// Closes the one unused for longest; whether there was one.
    pub(crate) fn close_oldest(&self) -> bool {
        let now = Instant::now();
        let unused_for = |shard: usize| -> Option<(Duration, usize)> {
            let idle = self.shard(shard);
            idle.oldest().map(|oldest| (oldest.idle_for(now), shard))
        };
        // Another may have taken it meanwhile; then there may be others.
        while let Some((_, shard)) = (0..self.shards()).filter_map(unused_for).max() {
            let oldest = self.shard(shard).pop_oldest();
            if oldest.is_some() {
                self.count().fetch_sub(1, Ordering::SeqCst);
                return true;
            }
        }
        false
    }

    /// Closes those that are not good, and all that are of another era than `era` says.
    pub(crate) fn sweep(
        &self,
        mut is_good: impl FnMut(&mut h1::Connection) -> bool,
        era: impl Fn() -> u64,
    ) {
        for shard in 0..self.shards() {
            // Requests that come meanwhile find less at worst.
            let mut swept = std::mem::take(&mut *self.shard(shard));
            let before = swept.len();
            swept.retain(|connection| is_good(connection));
            let mut idle = self.shard(shard);
            // Drained while they were looked at; see `keep`.
            let drained = if swept.oldest().is_some_and(|first| first.era() != era()) {
                std::mem::take(&mut swept)
            } else {
                Connections::default()
            };
            self.count()
                .fetch_sub(before - swept.len(), Ordering::SeqCst);
            // Those given back meanwhile are younger: they stay at the back.
            idle.put_before(swept);
            drop(idle);
            drop(drained);
        }
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Connections> {
        let list = match &self.several {
            None => &self.one,
            Some(several) => &several.shards[shard % several.shards.len()].0,
        };
        // The list is consistent at every point where a panic could strike.
        list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
