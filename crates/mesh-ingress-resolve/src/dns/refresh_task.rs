//! Starts and stops the refresh task of a target.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::builder::Settings;
use super::cache_entry::CacheEntry;
use super::client::DnsQuery;
use super::question::Question;
use super::refresh_loop::RefreshLoop;
use super::state::Stats;
use crate::ResolveError;
use crate::snapshot_cell::{RefreshState, SnapshotCell};
use crate::watch::Refresh;

/// Owned by the watches of a target: the task ends with the last of them.
///
/// The task in turn owns nothing that would keep a watch alive.
pub(super) struct RefreshTask<A> {
    client: Arc<A>,
    question: Arc<Question>,
    settings: Arc<Settings>,
    cell: Arc<SnapshotCell>,
    stats: Arc<Stats>,
    permits: Arc<Semaphore>,
    request_refresh: Arc<Notify>,
    running: Arc<AtomicBool>,
    /// Taken when the task starts and ends, never by a request while it runs.
    task: Mutex<Option<AbortHandle>>,
}

/// Marks the cell as no longer refreshed when the task ends, also when its runtime shuts down.
struct RunningGuard {
    flag: Arc<AtomicBool>,
    cell: Arc<SnapshotCell>,
}

impl<A: DnsQuery> RefreshTask<A> {
    pub(super) fn new(
        client: Arc<A>,
        question: Arc<Question>,
        settings: Arc<Settings>,
        cell: Arc<SnapshotCell>,
        stats: Arc<Stats>,
        permits: Arc<Semaphore>,
    ) -> Self {
        Self {
            client,
            question,
            settings,
            cell,
            stats,
            permits,
            request_refresh: Arc::default(),
            running: Arc::default(),
            task: Mutex::default(),
        }
    }

    fn refresh_loop(&self) -> RefreshLoop<A> {
        RefreshLoop {
            client: Arc::clone(&self.client),
            question: Arc::clone(&self.question),
            settings: Arc::clone(&self.settings),
            permits: Arc::clone(&self.permits),
            request_refresh: Arc::clone(&self.request_refresh),
            entry: CacheEntry::new(
                Arc::clone(&self.question),
                Arc::clone(&self.settings),
                Arc::clone(&self.cell),
                Arc::clone(&self.stats),
            ),
        }
    }
}

impl<A: DnsQuery> Refresh for RefreshTask<A> {
    fn start(&self) -> Result<(), ResolveError> {
        let runtime = Handle::try_current().map_err(|_| ResolveError::no_runtime())?;
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if self.running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.cell
            .update(|snapshot| snapshot.refresh_state = RefreshState::Active);
        let running = RunningGuard {
            flag: Arc::clone(&self.running),
            cell: Arc::clone(&self.cell),
        };
        let refresh_loop = self.refresh_loop();
        let spawned = runtime.spawn(async move {
            // Moved in, so that it is dropped even if this never runs.
            let _running = running;
            refresh_loop.run().await;
        });
        *task = Some(spawned.abort_handle());
        Ok(())
    }

    fn request_refresh(&self) {
        self.request_refresh.notify_one();
    }

    fn count_stale(&self) {
        self.stats.stale_served.add(1);
    }
}

impl<A> Drop for RefreshTask<A> {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Release);
        self.cell
            .update(|snapshot| snapshot.refresh_state = RefreshState::Stopped);
    }
}

impl<A: fmt::Debug> fmt::Debug for RefreshTask<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTask")
            .field("service", &self.question.service)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
