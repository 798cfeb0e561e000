//! What an HTTP/1 connection is doing, and how long its client may take to go on.
//!
//! hyper has a timeout for heads of its own: it puts a timer into the runtime's wheel for each
//! request and takes it out again, and goes around once more to do so. That is a twentieth of what
//! a small request costs; a timer that stays where it is does the same.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use mesh_ingress::{BoxError, ResponseBody};
use tokio::time::{Instant, Sleep};

/// After so long without a request a connection gives its buffers back.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// Shared by the socket, the service and the driver of one connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    answering: AtomicBool,
    /// A request has come since that was last asked for.
    answered: AtomicBool,
    stalled: AtomicBool,
    amid_request: AtomicBool,
    closing: AtomicBool,
}

impl Activity {
    /// A request has come; it is under way as long as what is returned lives.
    pub(crate) fn answer(self: &Arc<Self>) -> Answering {
        self.answering.store(true, Ordering::Relaxed);
        self.answered.store(true, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    /// Whether the client is yet to take what was written.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Whether a part of a request has come, and its rest has not.
    pub(crate) fn set_amid_request(&self, amid_request: bool) {
        self.amid_request.store(amid_request, Ordering::Relaxed);
    }

    /// Nothing that comes from now on is a request (RFC 9112 §9.6): the client has been told that
    /// the connection ends.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Whether requests have come since this was last asked, be they answered already.
    fn take_answered(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        if answered {
            self.answered.store(false, Ordering::Relaxed);
        }
        answered
    }

    fn is_amid_request(&self) -> bool {
        self.amid_request.load(Ordering::Relaxed)
    }

    /// Whether it is our turn, or the response is still on its way.
    fn is_busy(&self) -> bool {
        self.answering.load(Ordering::Relaxed) || self.stalled.load(Ordering::Relaxed)
    }
}

/// A request under way; there is one at a time.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Activity>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.store(false, Ordering::Relaxed);
    }
}

/// A body that says when it has been taken, or given up.
#[derive(Debug)]
pub(crate) struct Answer {
    body: ResponseBody,
    /// Dropped with it.
    _answering: Option<Answering>,
}

impl Answer {
    pub(crate) fn new(body: ResponseBody, answering: Option<Answering>) -> Self {
        Self {
            body,
            _answering: answering,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long a client may take for the head of a request, and between requests.
pub(crate) struct Patience {
    timeout: Option<Duration>,
    activity: Arc<Activity>,
    /// Since when it is the client's turn.
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
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
    pub(crate) fn new(timeout: Option<Duration>, activity: Arc<Activity>) -> Self {
        Self {
            timeout,
            activity,
            since: None,
            sleep: None,
        }
    }

    /// How much of its time a client has left that has been [idle](Overdue::Idle).
    pub(crate) fn left(timeout: Option<Duration>) -> Option<Duration> {
        timeout.map(|timeout| timeout.saturating_sub(IDLE_AFTER))
    }

    /// Ready when the client has taken long. To be asked whenever the connection has done
    /// something.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        if self.activity.take_answered() {
            self.since = None;
        }
        if self.activity.is_busy() || self.activity.is_closing() {
            self.since = None;
            return Poll::Pending;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let (due, overdue) = match (self.timeout, self.activity.is_amid_request()) {
            (None, true) => return Poll::Pending,
            (Some(timeout), true) => (timeout, Overdue::TooLate),
            (Some(timeout), _) if timeout <= IDLE_AFTER => (timeout, Overdue::TooLate),
            (_, false) => (IDLE_AFTER, Overdue::Idle),
        };
        let due = since + due;
        let sleep = match &mut self.sleep {
            // It has the waker of this task already, and comes in time.
            Some(sleep) if !sleep.is_elapsed() && sleep.deadline() <= due => return Poll::Pending,
            Some(sleep) => sleep,
            None => self.sleep.insert(Box::pin(tokio::time::sleep_until(due))),
        };
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            // Set for an earlier request, it comes too early; then it is set anew.
            ready!(sleep.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(overdue);
            }
            sleep.as_mut().reset(due);
        }
    }
}
