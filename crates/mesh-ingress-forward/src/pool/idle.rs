//! The idle HTTP/1.1 connections of a pool.

mod list;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::list::IdleList;
use super::Http1Connection;
use crate::settings::Reuse;

/// Connections are boxed: they are large, and change owners often.
type List = IdleList<Box<Http1Connection>>;

/// Idle connections in one list, or in several lists, the shards, so that threads do not contend
/// for one lock. A connection goes back to the shard of the thread that opened it: where each
/// thread has a runtime of its own, only that runtime is woken by it.
///
/// No lock is held while a connection is checked or closed: that reads from its socket, and
/// releases a permit that others wait for.
#[derive(Debug)]
pub(super) struct Idle {
    /// The only list, if there is one: inline, next to the other fields that a request reads.
    single: Mutex<List>,
    /// The number of connections of `single`, with those that are being checked.
    len: AtomicUsize,
    shards: Option<Box<Shards>>,
}

#[derive(Debug)]
struct Shards {
    lists: Box<[CachePadded<Mutex<List>>]>,
    len: CachePadded<AtomicUsize>,
}

/// A value that shares no cache line with another: each thread writes to its own shard for every
/// request, and would slow down cores that only read its neighbours. Two lines, because processors
/// fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CachePadded<T>(T);

impl Idle {
    pub(super) fn new(shards: NonZeroUsize) -> Self {
        let shards = (shards.get() > 1).then(|| {
            let lists = (0..shards.get()).map(|_| CachePadded::default());
            Box::new(Shards {
                lists: lists.collect(),
                len: CachePadded::default(),
            })
        });
        Self {
            single: Mutex::default(),
            len: AtomicUsize::new(0),
            shards,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count().load(Ordering::SeqCst)
    }

    /// The number of connections in all shards, with those that are being checked.
    fn count(&self) -> &AtomicUsize {
        match &self.shards {
            None => &self.len,
            Some(shards) => &shards.len.0,
        }
    }

    fn shard_count(&self) -> usize {
        match &self.shards {
            None => 1,
            Some(shards) => shards.lists.len(),
        }
    }

    /// Takes a connection that `is_good`, of this thread's shard or else of another, so that few
    /// requests need few connections whichever threads serve them; also returns the time of the
    /// check. Those that are not good are closed.
    pub(super) fn take(
        &self,
        reuse: Reuse,
        mut is_good: impl FnMut(&mut Http1Connection, Instant) -> bool,
    ) -> Option<(Box<Http1Connection>, Instant)> {
        if self.len() == 0 {
            return None;
        }
        let now = Instant::now();
        let mut is_good = |connection: &mut Http1Connection| is_good(connection, now);
        let own = current_shard();
        let found = (0..self.shard_count())
            .find_map(|next| self.take_from(own + next, reuse, &mut is_good))?;
        Some((found, now))
    }

    fn take_from(
        &self,
        shard: usize,
        reuse: Reuse,
        is_good: &mut impl FnMut(&mut Http1Connection) -> bool,
    ) -> Option<Box<Http1Connection>> {
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

    /// Keeps a connection, unless there are `max` already or it is not of the current `generation`.
    /// Returns whether it was kept.
    pub(super) fn keep(
        &self,
        connection: Box<Http1Connection>,
        max: usize,
        generation: impl FnOnce() -> u64,
    ) -> bool {
        // Counted first: two threads must not both keep the last connection allowed.
        if self.count().fetch_add(1, Ordering::SeqCst) >= max {
            self.count().fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        let mut shard = self.shard(connection.shard());
        // A drain increments the generation before it takes the lock: checked under the lock, no
        // connection of an older generation gets in behind it.
        if connection.generation() == generation() {
            shard.push(connection);
            return true;
        }
        drop(shard);
        self.count().fetch_sub(1, Ordering::SeqCst);
        false
    }

    /// Closes all connections.
    pub(super) fn clear(&self) {
        for shard in 0..self.shard_count() {
            let closed = std::mem::take(&mut *self.shard(shard));
            self.count().fetch_sub(closed.len(), Ordering::SeqCst);
        }
    }

    /// Closes the connection that has been idle longest. Returns whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let now = Instant::now();
        let idle_for = |shard: usize| -> Option<(Duration, usize)> {
            let idle = self.shard(shard);
            idle.oldest().map(|oldest| (oldest.idle_for(now), shard))
        };
        // Another thread may have taken it meanwhile; then there may be others.
        while let Some((_, shard)) = (0..self.shard_count()).filter_map(idle_for).max() {
            let oldest = self.shard(shard).pop_oldest();
            if oldest.is_some() {
                self.count().fetch_sub(1, Ordering::SeqCst);
                return true;
            }
        }
        false
    }

    /// Closes connections that are not good, and all that are not of the current `generation`.
    pub(super) fn sweep(
        &self,
        mut is_good: impl FnMut(&mut Http1Connection) -> bool,
        generation: impl Fn() -> u64,
    ) {
        for shard in 0..self.shard_count() {
            // At worst, requests find fewer connections meanwhile.
            let mut swept = std::mem::take(&mut *self.shard(shard));
            let before = swept.len();
            swept.retain(|connection| is_good(connection));
            let mut idle = self.shard(shard);
            // Drained during the check; see `keep`.
            let drained = if swept
                .oldest()
                .is_some_and(|first| first.generation() != generation())
            {
                std::mem::take(&mut swept)
            } else {
                List::default()
            };
            self.count()
                .fetch_sub(before - swept.len(), Ordering::SeqCst);
            // Connections given back meanwhile were used more recently: they stay at the back.
            idle.put_before(swept);
            drop(idle);
            drop(drained);
        }
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, List> {
        let list = match &self.shards {
            None => &self.single,
            Some(shards) => &shards.lists[shard % shards.lists.len()].0,
        };
        // Consistent wherever a panic could happen.
        list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Threads that are started together get consecutive numbers, which fall into different shards.
    static THREAD: usize = NEXT_THREAD.fetch_add(1, Ordering::Relaxed);
}

/// The shard of this thread, modulo the number of shards.
pub(super) fn current_shard() -> usize {
    // A thread that ends may have dropped its number.
    THREAD.try_with(|number| *number).unwrap_or(0)
}
