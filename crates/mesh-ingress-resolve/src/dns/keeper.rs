//! Starting and stopping the task of a target.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::book::Book;
use super::builder::Settings;
use super::client::Ask;
use super::question::Question;
use super::refresher::Refresher;
use super::state::Stats;
use crate::ResolveError;
use crate::slot::{Slot, Upkeep};
use crate::watch::Keep;

/// Owned by the watches of a target: the task ends with the last of them.
///
/// The task in turn owns nothing that would keep a watch alive.
pub(super) struct Keeper<A> {
    asker: Arc<A>,
    question: Arc<Question>,
    settings: Arc<Settings>,
    slot: Arc<Slot>,
    stats: Arc<Stats>,
    permits: Arc<Semaphore>,
    nudge: Arc<Notify>,
    running: Arc<AtomicBool>,
    /// Taken when the task starts and ends, never by a request while it runs.
    task: Mutex<Option<AbortHandle>>,
}

/// Says that nobody keeps the slot any more, however the task ends: its runtime may have.
struct Running {
    flag: Arc<AtomicBool>,
    slot: Arc<Slot>,
}

impl<A: Ask> Keeper<A> {
    pub(super) fn new(
        asker: Arc<A>,
        question: Arc<Question>,
        settings: Arc<Settings>,
        slot: Arc<Slot>,
        stats: Arc<Stats>,
        permits: Arc<Semaphore>,
    ) -> Self {
        Self {
            asker,
            question,
            settings,
            slot,
            stats,
            permits,
            nudge: Arc::default(),
            running: Arc::default(),
            task: Mutex::default(),
        }
    }

    fn refresher(&self) -> Refresher<A> {
        Refresher {
            asker: Arc::clone(&self.asker),
            question: Arc::clone(&self.question),
            settings: Arc::clone(&self.settings),
            permits: Arc::clone(&self.permits),
            nudge: Arc::clone(&self.nudge),
            book: Book::new(
                Arc::clone(&self.question),
                Arc::clone(&self.settings),
                Arc::clone(&self.slot),
                Arc::clone(&self.stats),
            ),
        }
    }
}

impl<A: Ask> Keep for Keeper<A> {
    fn start(&self) -> Result<(), ResolveError> {
        let runtime = Handle::try_current().map_err(|_| ResolveError::no_runtime())?;
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if self.running.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.slot.update(|snapshot| snapshot.upkeep = Upkeep::Kept);
        let running = Running {
            flag: Arc::clone(&self.running),
            slot: Arc::clone(&self.slot),
        };
        let refresher = self.refresher();
        let spawned = runtime.spawn(async move {
            // Moved in, so that it is dropped even if this never runs.
            let _running = running;
            refresher.run().await;
        });
        *task = Some(spawned.abort_handle());
        Ok(())
    }

    fn nudge(&self) {
        self.nudge.notify_one();
    }

    fn served_stale(&self) {
        self.stats.stale_served.add(1);
    }
}

impl<A> Drop for Keeper<A> {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.flag.store(false, Ordering::Release);
        self.slot
            .update(|snapshot| snapshot.upkeep = Upkeep::Stopped);
    }
}

impl<A: fmt::Debug> fmt::Debug for Keeper<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("service", &self.question.service)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
