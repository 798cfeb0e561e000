//! Graceful shutdown: one trigger, any number of watchers.
//!
//! ```
//! use std::time::Duration;
//! use mesh_ingress_server::drain;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let (trigger, watcher) = drain::channel();
//! tokio::spawn(async move {
//!     watcher.draining().await; // take nothing new, finish what is under way
//!     drop(watcher);            // done
//! });
//! assert!(trigger.drain(Duration::from_secs(30)).await, "all ended in time");
//! # });
//! ```

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

/// How long requests may still arrive when a drain begins: those that were on their way are served.
const GRACE: Duration = Duration::from_millis(250);

/// Stages of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DrainState {
    Serving,
    /// Take nothing new, finish what is under way.
    Draining,
    /// Drop what is under way.
    Closing,
}

/// Begins a drain, and knows when it has ended. Dropped, it begins one, too: nobody is left to do it
/// later.
#[derive(Debug)]
pub struct DrainTrigger {
    state: watch::Sender<DrainState>,
    begun: Arc<Begun>,
}

/// Waits for a drain. As long as there is a watcher, the drain has not ended: each owner drops its
/// watcher when its work is done.
#[derive(Clone, Debug)]
pub struct DrainWatcher {
    state: watch::Receiver<DrainState>,
    begun: Arc<Begun>,
}

/// Whether a drain has begun: cheaper to ask than `state`, and a connection that waits for it is smaller.
#[derive(Debug, Default)]
struct Begun {
    flag: AtomicBool,
    /// Notified when the flag has been set.
    notify: Notify,
}

impl Begun {
    fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

/// A trigger and the first watcher, to be cloned for others.
#[must_use]
pub fn channel() -> (DrainTrigger, DrainWatcher) {
    let (sender, state) = watch::channel(DrainState::Serving);
    let begun = Arc::new(Begun::default());
    let trigger = DrainTrigger {
        state: sender,
        begun: Arc::clone(&begun),
    };
    (trigger, DrainWatcher { state, begun })
}

/// A drain that begins when `signal` resolves, and may take `timeout`. To be called in a tokio runtime,
/// which drives it.
///
/// ```
/// use std::time::Duration;
/// use mesh_ingress_server::drain;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
/// let watcher = drain::when(receiver, Duration::from_secs(30)); // or `tokio::signal::ctrl_c()`
/// sender.send(()).unwrap();
/// watcher.draining().await;
/// # });
/// ```
pub fn when<F>(signal: F, timeout: Duration) -> DrainWatcher
where
    F: Future<Output: Send> + Send + 'static,
{
    let (trigger, watcher) = channel();
    tokio::spawn(async move {
        signal.await;
        if !trigger.drain(timeout).await {
            tracing::warn!("requests still under way after {timeout:?} are cut off");
        }
    });
    watcher
}

impl DrainTrigger {
    /// Tells all watchers to take nothing new and to finish what is under way.
    pub fn start(&self) {
        self.state.send_if_modified(|state| {
            let starts = *state == DrainState::Serving;
            if starts {
                *state = DrainState::Draining;
            }
            starts
        });
        self.begun.set();
    }

    /// Tells all watchers to drop what is under way.
    pub fn close(&self) {
        self.state.send_replace(DrainState::Closing);
        self.begun.set();
    }

    /// Resolves when all watchers have been dropped.
    pub async fn drained(&self) {
        self.state.closed().await;
    }

    /// Drains: [starts](Self::start), waits up to `timeout` for all watchers to be dropped, and
    /// [closes](Self::close). Returns whether all ended in time.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.start();
        let in_time = tokio::time::timeout(timeout, self.drained()).await.is_ok();
        self.close();
        in_time
    }
}

impl Drop for DrainTrigger {
    fn drop(&mut self) {
        self.start();
    }
}

impl DrainWatcher {
    /// Whether a drain has begun. Cheap: a connection asks each time it does something.
    #[inline]
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.begun.flag.load(Ordering::Acquire)
    }

    /// Resolves when a drain begins.
    pub async fn draining(&self) {
        let mut state = self.state.clone();
        let _ = state.wait_for(|state| *state != DrainState::Serving).await;
    }

    /// Resolves when what is under way is to be dropped. Never, if the trigger is dropped first.
    pub async fn closing(&self) {
        let mut state = self.state.clone();
        let closing = state.wait_for(|state| *state == DrainState::Closing);
        if closing.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A notice for one connection.
    pub(crate) fn notice(&self) -> DrainNotice<'_> {
        DrainNotice {
            watcher: self,
            begun: self.begun.notify.notified(),
            registered: false,
            grace: None,
            given: false,
        }
    }
}

pin_project! {
    /// When a connection is to come to its end. It lasts as long as the connection, so that no part of the
    /// connection has to register and deregister.
    pub(crate) struct DrainNotice<'w> {
        watcher: &'w DrainWatcher,
        #[pin]
        begun: Notified<'w>,
        registered: bool,
        grace: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
        given: bool,
    }
}

impl<'w> DrainNotice<'w> {
    pub(crate) fn watcher(&self) -> &'w DrainWatcher {
        self.watcher
    }

    pub(crate) async fn given(mut self: Pin<&mut Self>) {
        poll_fn(|cx| self.as_mut().poll(cx)).await;
    }

    /// To be polled by one task only.
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if !this.watcher.is_draining() {
            // Once registered, it has the waker of this task.
            if !*this.registered {
                // A `Notify` takes nothing of the task's cooperative budget.
                *this.registered = this.begun.poll(cx).is_pending();
            }
            // A drain that began in between has notified nobody.
            if !this.watcher.is_draining() {
                return Poll::Pending;
            }
        }
        if !*this.given {
            let state = this.watcher.state.clone();
            let grace = this.grace.get_or_insert_with(|| Box::pin(grace(state)));
            ready!(grace.as_mut().poll(cx));
            *this.grace = None;
            *this.given = true;
        }
        Poll::Ready(())
    }
}

/// Resolves when a drain has gone on for a moment.
async fn grace(mut state: watch::Receiver<DrainState>) {
    tokio::select! {
        () = tokio::time::sleep(GRACE) => {}
        _ = state.wait_for(|state| *state == DrainState::Closing) => {}
    }
}

/// Drives a connection to its end. Told to drain, the connection finishes the requests under way.
/// `None` if it is not given the time.
pub(crate) async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    mut notice: Pin<&mut DrainNotice<'_>>,
    graceful_shutdown: impl FnOnce(Pin<&mut C>),
) -> Option<C::Output> {
    let served = poll_fn(|cx| {
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(served));
        }
        notice.as_mut().poll(cx).map(|()| None)
    });
    if let Some(served) = served.await {
        return Some(served);
    }
    graceful_shutdown(connection.as_mut());
    let closing = Box::pin(notice.watcher.closing());
    tokio::select! {
        served = connection => Some(served),
        () = closing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_its_last_watcher() {
        let (trigger, watcher) = channel();
        assert!(!watcher.is_draining());
        let other = watcher.clone();
        let worker = tokio::spawn(async move {
            other.draining().await;
            assert!(other.is_draining());
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        drop(watcher);
        assert!(trigger.drain(Duration::from_secs(6)).await);
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_takes_too_long_closes() {
        let (trigger, watcher) = channel();
        let stuck = tokio::spawn(async move { watcher.closing().await });
        assert!(!trigger.drain(Duration::from_secs(1)).await);
        stuck.await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_trigger_begins_a_drain() {
        let (trigger, watcher) = channel();
        drop(trigger);
        watcher.draining().await;
        assert!(watcher.is_draining());
    }

    #[tokio::test]
    async fn a_watcher_made_during_a_drain_knows_of_it() {
        let (trigger, watcher) = channel();
        trigger.start();
        assert!(watcher.clone().is_draining());
    }
}
