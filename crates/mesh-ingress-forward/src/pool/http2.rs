//! The HTTP/2 connections of a pool.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Pool;
use crate::conn::http2::{Connection, ConnectionState, MAX_STREAMS, Stream};

/// The HTTP/2 connections to one upstream.
pub(super) struct Http2Connections {
    open: Mutex<Vec<Connection<Pool>>>,
    /// How many streams the upstream allowed on its last connection.
    expected_streams: AtomicUsize,
}

impl Default for Http2Connections {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            expected_streams: AtomicUsize::new(MAX_STREAMS),
        }
    }
}

impl Http2Connections {
    /// A stream on a connection with room for one.
    pub(super) fn take(&self) -> Option<Stream<Pool>> {
        let now = Instant::now();
        let mut open = self.open();
        open.retain(|connection| !connection.is_closed());
        open.iter_mut()
            .find_map(|connection| connection.stream(now))
    }

    pub(super) fn add(&self, connection: Connection<Pool>) {
        self.open().push(connection);
    }

    /// How many streams the next connection is expected to have.
    pub(super) fn expected_streams(&self) -> usize {
        let expected = self.expected_streams.load(Ordering::Relaxed);
        expected.clamp(1, MAX_STREAMS)
    }

    pub(super) fn expect_streams(&self, streams: usize) {
        self.expected_streams.store(streams, Ordering::Relaxed);
    }

    /// Connections that take requests.
    pub(super) fn ready_len(&self, now: Instant) -> usize {
        let open = self.open();
        let ready = open
            .iter()
            .filter(|connection| !connection.is_closed() && !connection.is_retired(now));
        ready.count()
    }

    pub(super) fn drain(&self) {
        // Without its last handle a connection completes its streams and then closes.
        self.open().clear();
    }

    /// Removes a connection that has closed.
    pub(super) fn remove(&self, closed: &Arc<ConnectionState<Pool>>) {
        let mut open = self.open();
        let at = open.iter().position(|one| one.has_state(closed));
        let removed = at.map(|at| open.swap_remove(at));
        drop(open);
        drop(removed);
    }

    /// Closes one idle connection. Returns whether there was one.
    pub(super) fn evict(&self) -> bool {
        let mut open = self.open();
        let idle = open.iter().position(Connection::is_idle);
        let evicted = idle.map(|idle| open.swap_remove(idle));
        drop(open);
        evicted.is_some()
    }

    /// Closes connections that are retired, or idle for too long.
    pub(super) fn sweep(&self, now: Instant, idle_timeout: Option<Duration>) {
        self.open().retain(|connection| {
            let unused = connection.unused_for(now);
            let stale =
                connection.is_idle() && idle_timeout.is_some_and(|timeout| unused >= timeout);
            !(connection.is_closed() || connection.is_retired(now) || stale)
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Connection<Pool>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Http2Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Connections")
            .field("open", &self.open().len())
            .finish_non_exhaustive()
    }
}
