//! From serving to the end: what connections do when the gateway is to stop.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress::BoxError;
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio::task::coop::has_budget_remaining;

/// How long requests may be on their way when the gateway begins to drain.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// What all workers are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// Take nothing new, finish what is under way.
    Draining,
    /// Drop what is under way.
    Ended,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Served {
    Ended,
    Failed(BoxError),
}

/// Tells cheaply whether the gateway is to stop: a connection asks each time it does something.
#[derive(Debug)]
pub(crate) struct Stop {
    /// Never marked as seen: what it has not seen is news.
    phase: watch::Receiver<Phase>,
    /// It was to stop before there was this.
    begun: bool,
}

impl Stop {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        let begun = *phase.borrow() != Phase::Serving;
        Self { phase, begun }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun || self.phase.has_changed().unwrap_or(true)
    }

    /// To wait for it.
    pub(crate) fn notice(&self) -> Notice<'_, impl Future<Output = ()> + use<>> {
        Notice {
            stop: self,
            drained: drained(self.phase.clone()),
            asked: false,
            given: false,
        }
    }
}

pin_project! {
    /// When a connection is to come to its end. It lasts as long as the connection, so that no part
    /// of that has to be put on the list of those to be woken, and taken off again.
    pub(crate) struct Notice<'s, D> {
        stop: &'s Stop,
        #[pin]
        drained: D,
        asked: bool,
        given: bool,
    }
}

impl<'s, D: Future<Output = ()>> Notice<'s, D> {
    pub(crate) fn stop(&self) -> &'s Stop {
        self.stop
    }

    pub(crate) async fn given(mut self: Pin<&mut Self>) {
        poll_fn(|cx| self.as_mut().poll(cx)).await;
    }

    /// To be polled by one task only.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // Asked once, it has the waker of this task; asked again, it has to have news.
        if *this.asked && !this.stop.has_begun() {
            return Poll::Pending;
        }
        if !*this.given {
            let polled = this.drained.poll(cx);
            // Without a budget it was not asked, and the task is woken at once.
            *this.asked = has_budget_remaining();
            ready!(polled);
            *this.given = true;
        }
        Poll::Ready(())
    }
}

/// Resolves after a while; without one, never.
pub(crate) async fn elapsed(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the gateway has been draining for a moment: requests that were on their way when
/// it began are still served.
async fn drained(mut phase: watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    tokio::select! {
        () = tokio::time::sleep(ON_THE_WAY) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
    }
}

/// Runs a connection; told to drain, it finishes the requests under way. `None` if it is not given
/// the time.
pub(crate) async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    mut notice: Pin<&mut Notice<'_, impl Future<Output = ()>>>,
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
    let mut phase = notice.stop.phase.clone();
    tokio::select! {
        served = connection => Some(served),
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => None,
    }
}
