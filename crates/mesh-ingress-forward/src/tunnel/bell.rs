//! Telling which of its two ends has woken a tunnel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// Wakes the task of a tunnel, and remembers that it did. As long as it has not since an end was asked
/// in vain, to ask again would be in vain: that is what a `Future` promises, whatever the end is and
/// whichever thread it is watched on.
#[derive(Debug)]
pub(super) struct Bell {
    rope: Arc<Rope>,
    waker: Waker,
}

#[derive(Debug)]
struct Rope {
    task: Waker,
    rung: AtomicBool,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task is woken, so that it sees it.
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Bell {
    pub(super) fn new(task: &Waker) -> Self {
        let rope = Arc::new(Rope {
            task: task.clone(),
            rung: AtomicBool::new(true),
        });
        Self {
            waker: Waker::from(Arc::clone(&rope)),
            rope,
        }
    }

    /// Whether it wakes this task.
    pub(super) fn is_of(&self, task: &Waker) -> bool {
        self.rope.task.will_wake(task)
    }

    /// Whether it has rung since it was last set.
    pub(super) fn has_rung(&self) -> bool {
        self.rope.rung.load(Ordering::Acquire)
    }

    /// To ask an end with.
    pub(super) fn set(&self) -> Context<'_> {
        self.rope.rung.store(false, Ordering::Relaxed);
        Context::from_waker(&self.waker)
    }
}
