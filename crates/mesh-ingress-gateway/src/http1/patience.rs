//! How long a client may take.
//!
//! A timer that is put into the runtime's wheel for each request and taken out again costs a
//! twentieth of what a small request does; one that stays where it is, and is looked at when it goes
//! off, does the same.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

/// After so long without a request a connection gives its buffers back.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// How long a client may take for the head of a request, and between requests.
#[derive(Debug)]
pub(crate) struct Patience {
    timeout: Option<Duration>,
    /// Since when it is the client's turn, if that was worth a look at the clock.
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// It was set for [`IDLE_AFTER`], then.
    is_near: bool,
}

/// What a client has done for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing since its last request, for a moment: memory may be given back.
    Idle,
    /// Too little of a request, or nothing, for too long.
    TooLate,
}

impl Patience {
    /// Without a timeout, a client may take forever.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            since: None,
            sleep: None,
            is_near: false,
        }
    }

    /// How much of its time a client has left that has been [idle](Overdue::Idle).
    pub(crate) fn left(timeout: Option<Duration>) -> Option<Duration> {
        timeout.map(|timeout| timeout.saturating_sub(IDLE_AFTER))
    }

    /// Whether a client may take forever.
    pub(crate) fn is_endless(&self) -> bool {
        self.timeout.is_none()
    }

    /// It is not the client's turn.
    pub(crate) fn reset(&mut self) {
        self.since = None;
    }

    /// Ready when the client has taken long since it was first asked for; `amid_request` tells
    /// whether a part of a request has come, and its rest has not.
    ///
    /// Most clients have the next request there before a timer that was set for an earlier one goes
    /// off. Until then nobody looks at the clock, so that this may be late by half a second.
    pub(crate) fn poll(&mut self, amid_request: bool, cx: &mut Context<'_>) -> Poll<Overdue> {
        let (limit, overdue) = match (self.timeout, amid_request) {
            (None, true) => return Poll::Pending,
            (Some(timeout), true) => (timeout, Overdue::TooLate),
            (Some(timeout), _) if timeout <= IDLE_AFTER => (timeout, Overdue::TooLate),
            (_, false) => (IDLE_AFTER, Overdue::Idle),
        };
        let is_near = overdue == Overdue::Idle;
        // It has the waker of this task already.
        let is_set = self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed());
        if is_set && is_near && self.is_near && self.since.is_none() {
            return Poll::Pending;
        }
        let due = *self.since.get_or_insert_with(Instant::now) + limit;
        let sleep = self.sleep.take();
        let mut sleep = sleep.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(due)));
        if is_set && sleep.deadline() <= due {
            self.sleep = Some(sleep);
            return Poll::Pending;
        }
        self.is_near = is_near;
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            // Set for an earlier request, it comes too early; then it is set anew.
            if sleep.as_mut().poll(cx).is_pending() {
                // Without a budget it was not asked, and does not know whom to wake: another will. The
                // task is woken at once.
                self.sleep = has_budget_remaining().then_some(sleep);
                return Poll::Pending;
            }
            if due <= Instant::now() {
                self.sleep = Some(sleep);
                return Poll::Ready(overdue);
            }
            sleep.as_mut().reset(due);
        }
    }
}
