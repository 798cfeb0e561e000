//! How streams wake the task that drives their connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// Streams that became ready since the driver last looked, and the capacity that was released.
#[derive(Debug)]
pub(super) struct ReadyQueue(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// Slots of the streams that can make progress.
    ready: Vec<usize>,
    /// Bytes of bodies that have been read, and for which the client has no window yet.
    released: usize,
    /// So many of them are worth a `WINDOW_UPDATE`.
    worth_update: usize,
    driver: Waker,
    /// The driver is being polled and will look at everything before it pauses.
    driving: bool,
}

impl ReadyQueue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            ready: Vec::new(),
            released: 0,
            worth_update: super::CONNECTION_WINDOW as usize / 2,
            driver: Waker::noop().clone(),
            driving: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver begins to look.
    pub(super) fn begin_poll(&self, cx: &Context<'_>) {
        let mut inner = self.lock();
        inner.driving = true;
        if !inner.driver.will_wake(cx.waker()) {
            inner.driver = cx.waker().clone();
        }
    }

    /// Takes the slots of the ready streams, in exchange for an empty list. The driver itself has
    /// released so many bytes, and the client has `window` left. Returns how much the window is to
    /// grow. The less is left, the sooner it grows: some uploads may hold the rest.
    pub(super) fn take(&self, ready: &mut Vec<usize>, released: usize, window: i64) -> usize {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.ready, ready);
        inner.released += released;
        inner.worth_update = usize::try_from(window).unwrap_or(0).max(1);
        match inner.released >= inner.worth_update {
            true => std::mem::take(&mut inner.released),
            false => 0,
        }
    }

    /// The driver has looked at everything, and waits unless there is more already.
    pub(super) fn pause(&self) {
        let mut inner = self.lock();
        inner.driving = false;
        if !inner.ready.is_empty() || inner.released >= inner.worth_update {
            inner.driver.wake_by_ref();
        }
    }

    /// Bytes of a body have been read, or never will be.
    pub(super) fn release_capacity(&self, bytes: usize) {
        let mut inner = self.lock();
        let before = inner.released;
        inner.released += bytes;
        let crosses = before < inner.worth_update && inner.released >= inner.worth_update;
        if crosses && !inner.driving {
            inner.driver.wake_by_ref();
        }
    }

    fn push(&self, slot: usize) {
        let mut inner = self.lock();
        inner.ready.push(slot);
        // A woken driver drains the whole queue.
        if inner.ready.len() == 1 && !inner.driving {
            inner.driver.wake_by_ref();
        }
    }
}

/// Wakes the driver for the stream in one slot of the connection. The slot's next stream may be woken for
/// nothing.
#[derive(Debug)]
pub(super) struct StreamWaker {
    queue: Arc<ReadyQueue>,
    slot: usize,
    /// The slot is in the queue.
    queued: AtomicBool,
}

impl StreamWaker {
    pub(super) fn new(queue: &Arc<ReadyQueue>, slot: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Arc::clone(queue),
            slot,
            queued: AtomicBool::new(false),
        })
    }

    /// The stream can make progress.
    pub(super) fn notify(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.slot);
        }
    }

    /// The driver has taken the slot out of the queue and is about to poll the stream.
    pub(super) fn dequeued(&self) {
        // A swap, so that the driver sees what was written before `notify`.
        self.queued.swap(false, Ordering::AcqRel);
    }

    pub(super) fn queue(&self) -> &ReadyQueue {
        &self.queue
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
