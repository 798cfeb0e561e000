//! Which of its two ends has woken a tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// Wakes the task of a tunnel, and records that it did. An end that was pending and has not woken
/// the task is still pending: that is the contract of `poll`, so that it need not be polled again.
#[derive(Debug)]
pub(super) struct WakeFlag {
    inner: Arc<Inner>,
    waker: Waker,
}

#[derive(Debug)]
struct Inner {
    task: Waker,
    woken: AtomicBool,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Set before the task is woken, so that it sees the flag.
        self.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl WakeFlag {
    pub(super) fn new(task: &Waker) -> Self {
        let inner = Arc::new(Inner {
            task: task.clone(),
            woken: AtomicBool::new(true),
        });
        Self {
            waker: Waker::from(Arc::clone(&inner)),
            inner,
        }
    }

    /// Whether it wakes this task.
    pub(super) fn will_wake(&self, task: &Waker) -> bool {
        self.inner.task.will_wake(task)
    }

    /// Whether it was woken since the last [`context`](Self::context).
    pub(super) fn is_woken(&self) -> bool {
        self.inner.woken.load(Ordering::Acquire)
    }

    /// Clears the flag, and returns a context to poll an end with.
    pub(super) fn context(&self) -> Context<'_> {
        self.inner.woken.store(false, Ordering::Relaxed);
        Context::from_waker(&self.waker)
    }
}
