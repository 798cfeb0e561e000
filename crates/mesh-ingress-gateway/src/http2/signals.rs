//! How those who work for a connection reach the task that drives it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// What has happened since the driver last looked.
#[derive(Debug)]
pub(super) struct Signals(Mutex<News>);

#[derive(Debug)]
struct News {
    /// Streams that can go on.
    ready: Vec<usize>,
    /// Octets of bodies that have been read, and for which the connection has no window yet.
    released: usize,
    /// So many of them are worth to tell the client at once.
    worth: usize,
    driver: Waker,
    /// It is at it, and will look at everything before it pauses.
    driving: bool,
}

impl Signals {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(News {
            ready: Vec::new(),
            released: 0,
            worth: super::CONNECTION_WINDOW as usize / 2,
            driver: Waker::noop().clone(),
            driving: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver begins to look.
    pub(super) fn drive(&self, cx: &Context<'_>) {
        let mut news = self.lock();
        news.driving = true;
        if !news.driver.will_wake(cx.waker()) {
            news.driver = cx.waker().clone();
        }
    }

    /// Tells which streams can go on, in exchange for an empty list. The driver itself has released
    /// so many octets, and the client has `left` of its window; it learns how many it is to tell the
    /// client of, all together. The less is left, the sooner: some uploads may hold the rest.
    pub(super) fn take(&self, ready: &mut Vec<usize>, released: usize, left: i64) -> usize {
        let mut news = self.lock();
        std::mem::swap(&mut news.ready, ready);
        news.released += released;
        news.worth = usize::try_from(left).unwrap_or(0).max(1);
        match news.released >= news.worth {
            true => std::mem::take(&mut news.released),
            false => 0,
        }
    }

    /// The driver has looked at everything, and waits; unless there is more already.
    pub(super) fn pause(&self) {
        let mut news = self.lock();
        news.driving = false;
        if !news.ready.is_empty() || news.released >= news.worth {
            news.driver.wake_by_ref();
        }
    }

    /// Octets of a body have been read, or will never be.
    pub(super) fn release(&self, octets: usize) {
        let mut news = self.lock();
        let before = news.released;
        news.released += octets;
        if before < news.worth && news.released >= news.worth && !news.driving {
            news.driver.wake_by_ref();
        }
    }

    fn ready(&self, slot: usize) {
        let mut news = self.lock();
        news.ready.push(slot);
        // Who has been told of one looks at all.
        if news.ready.len() == 1 && !news.driving {
            news.driver.wake_by_ref();
        }
    }
}

/// Says that one stream can go on. Who comes later to its place in the connection is woken for
/// nothing, at worst.
#[derive(Debug)]
pub(super) struct Bell {
    signals: Arc<Signals>,
    slot: usize,
    /// It has rung, and nobody has looked yet.
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new(signals: &Arc<Signals>, slot: usize) -> Arc<Self> {
        Arc::new(Self {
            signals: Arc::clone(signals),
            slot,
            rung: AtomicBool::new(false),
        })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.signals.ready(self.slot);
        }
    }

    /// From here on it rings again.
    pub(super) fn hear(&self) {
        // What whoever rang has done before is to be seen by whoever looks now.
        self.rung.swap(false, Ordering::AcqRel);
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
