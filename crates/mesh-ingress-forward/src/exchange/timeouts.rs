//! The timeouts of an exchange.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_core::Error;
use mesh_ingress_io::LazyTimer;
use tokio::time::Instant;

use crate::body::{BodyStep, Progress};
use crate::error::ForwardError;
use crate::pool::Pool;

/// When a request must be complete, with the response's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        let at = Instant::now() + timeout;
        Self { at, timeout }
    }

    pub(super) fn error(&self) -> Error {
        let timeout = self.timeout;
        ForwardError::RequestTimeout { timeout }.into_error()
    }
}

/// The timeouts until the head of a response: of the request's body while it is sent, then of the
/// response, and the deadline of the request.
#[derive(Clone, Debug)]
pub(super) struct ResponseTimeout {
    pub(super) deadline: Option<Deadline>,
    pub(super) progress: Option<Arc<Progress>>,
}

/// The next timeout.
#[derive(Debug)]
struct Due {
    at: Instant,
    timeout: Timeout,
}

#[derive(Clone, Copy, Debug)]
enum Timeout {
    Request(Deadline),
    Head(Duration),
    /// The client sends no more of its body.
    BodyRead(Duration),
    /// The upstream reads no more of the body.
    BodyWrite(Duration),
}

impl ResponseTimeout {
    /// Ready with an error when a timeout has passed.
    pub(super) fn poll(
        &self,
        pool: &Pool,
        sent_at: Instant,
        timer: &mut LazyTimer,
        cx: &mut Context<'_>,
    ) -> Poll<Error> {
        loop {
            let due = self.due(pool, sent_at).map(|due| due.at);
            // On HTTP/2 the body is sent by another task, and its end starts the timeout of the
            // head.
            let head = pool.settings.response_header_timeout;
            let head = head.filter(|_| self.is_sending());
            let head = head.map(|head| Instant::now() + head);
            let Some(wake_at) = due.into_iter().chain(head).min() else {
                return Poll::Pending;
            };
            ready!(timer.poll(cx, wake_at));
            // The event that the timer was set for may have happened.
            if let Some(due) = self.due(pool, sent_at)
                && due.at <= Instant::now()
            {
                return Poll::Ready(due.timeout.error(pool));
            }
        }
    }

    /// Whether the request's body has not been read to its end.
    fn is_sending(&self) -> bool {
        let last = self.progress.as_deref().map(Progress::last);
        last.is_some_and(|(_, step)| step != BodyStep::Finished)
    }

    fn due(&self, pool: &Pool, sent_at: Instant) -> Option<Due> {
        let settings = &pool.settings;
        let head = settings.response_header_timeout;
        let body = settings.request_body_timeout;
        // The timeout of the head starts with the end of the request; until then that of the body
        // runs.
        let (since, timeout, kind): (_, _, fn(Duration) -> Timeout) =
            match self.progress.as_deref().map(Progress::last) {
                None => (sent_at, head, Timeout::Head),
                Some((at, BodyStep::Finished)) => (at.max(sent_at), head, Timeout::Head),
                Some((at, BodyStep::FromClient)) => (at.max(sent_at), body, Timeout::BodyWrite),
                Some((at, BodyStep::Awaited)) => (at.max(sent_at), body, Timeout::BodyRead),
            };
        let step = timeout.map(|timeout| Due {
            at: since + timeout,
            timeout: kind(timeout),
        });
        let request = self.deadline.map(|deadline| Due {
            at: deadline.at,
            timeout: Timeout::Request(deadline),
        });
        match (step, request) {
            (Some(step), Some(request)) if request.at < step.at => Some(request),
            (Some(step), _) => Some(step),
            (None, request) => request,
        }
    }
}

impl Timeout {
    fn error(self, pool: &Pool) -> Error {
        let addr = pool.addr;
        match self {
            Self::Request(deadline) => return deadline.error(),
            Self::Head(timeout) => ForwardError::ResponseTimeout { addr, timeout },
            Self::BodyRead(timeout) => ForwardError::RequestBodyTimeout { timeout },
            Self::BodyWrite(timeout) => ForwardError::RequestBodyWrite { addr, timeout },
        }
        .into_error()
    }
}
