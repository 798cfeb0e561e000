//! How long a client may take for the head of a request.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::LazyTimer;
use tokio::time::Instant;

/// After so long without a request a connection frees its buffers.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// Bounds the time for the head of a request, and between requests.
#[derive(Debug)]
pub(super) struct HeaderReadTimeout {
    timeout: Option<Duration>,
    /// Since when the server waits for the client, if that was worth a look at the clock.
    since: Option<Instant>,
    timer: LazyTimer,
    /// The timer was set for [`IDLE_AFTER`].
    awaits_idle: bool,
}

/// Which time has elapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elapsed {
    /// No byte of a request has come for a moment: memory may be freed.
    Idle,
    /// The head is not complete in time, or the next request has not begun in time.
    Timeout,
}

impl HeaderReadTimeout {
    /// Without a timeout a client may take for ever.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            since: None,
            timer: LazyTimer::default(),
            awaits_idle: false,
        }
    }

    /// How much time is left to a client that was found [idle](Elapsed::Idle).
    pub(super) fn left_when_idle(timeout: Option<Duration>) -> Option<Duration> {
        timeout.map(|timeout| timeout.saturating_sub(IDLE_AFTER))
    }

    /// Whether a client may take for ever.
    pub(super) fn is_off(&self) -> bool {
        self.timeout.is_none()
    }

    /// The server does not wait for the client any more.
    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// Ready when the client has taken too long since the first poll after a [reset](Self::reset).
    /// `amid_request` tells whether a part of a request has come.
    ///
    /// Most clients send the next request before the timer of an earlier one fires. Until then nobody
    /// looks at the clock, so this may be late by half a second.
    pub(super) fn poll(&mut self, amid_request: bool, cx: &mut Context<'_>) -> Poll<Elapsed> {
        let (limit, elapsed) = match (self.timeout, amid_request) {
            (None, true) => return Poll::Pending,
            (Some(timeout), true) => (timeout, Elapsed::Timeout),
            (Some(timeout), _) if timeout <= IDLE_AFTER => (timeout, Elapsed::Timeout),
            (_, false) => (IDLE_AFTER, Elapsed::Idle),
        };
        let awaits_idle = elapsed == Elapsed::Idle;
        if awaits_idle && self.awaits_idle && self.since.is_none() && self.timer.is_armed() {
            return Poll::Pending;
        }
        let deadline = *self.since.get_or_insert_with(Instant::now) + limit;
        if !self.timer.is_armed_before(deadline) {
            self.awaits_idle = awaits_idle;
        }
        ready!(self.timer.poll_in_task(cx, deadline));
        Poll::Ready(elapsed)
    }
}
