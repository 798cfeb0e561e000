//! What may take too long before a response begins.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_core::Error;
use mesh_ingress_io::LazyTimer;
use tokio::time::Instant;

use crate::body::{Moved, Progress};
use crate::error::Failure;
use crate::pool::Pool;

/// When a request must be complete, the response's body included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        let at = Instant::now() + timeout;
        Self { at, timeout }
    }

    pub(crate) fn error(&self) -> Error {
        let timeout = self.timeout;
        Failure::RequestTimeout { timeout }.into_error()
    }
}

/// Watches one exchange until the head of its response is there.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub(crate) deadline: Option<Deadline>,
    pub(crate) progress: Option<Arc<Progress>>,
}

/// The next moment at which something will have taken too long.
#[derive(Debug)]
struct Due {
    at: Instant,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Request(Deadline),
    Head(Duration),
    /// The client sends nothing of its body.
    Client(Duration),
    /// The upstream takes nothing of it.
    Upstream(Duration),
}

impl Clock {
    /// Ready with an error when something has taken too long.
    pub(crate) fn poll(
        &self,
        pool: &Pool,
        sent_at: Instant,
        timer: &mut LazyTimer,
        cx: &mut Context<'_>,
    ) -> Poll<Error> {
        loop {
            let due = self.due(pool, sent_at).map(|due| due.at);
            // On HTTP/2 a body moves without us, and its end starts the clock of the head.
            let head = pool.settings.response_header_timeout;
            let head = head.filter(|_| self.is_sending());
            let head = head.map(|head| Instant::now() + head);
            let Some(look_at) = due.into_iter().chain(head).min() else {
                return Poll::Pending;
            };
            ready!(timer.poll(cx, look_at));
            // What it was set for may have happened.
            if let Some(due) = self.due(pool, sent_at)
                && due.at <= Instant::now()
            {
                return Poll::Ready(due.what.error(pool));
            }
        }
    }

    /// Whether there is a body that has not been read to its end.
    fn is_sending(&self) -> bool {
        let moved = self.progress.as_deref().map(Progress::last);
        moved.is_some_and(|(_, moved)| moved != Moved::Finished)
    }

    fn due(&self, pool: &Pool, sent_at: Instant) -> Option<Due> {
        let settings = &pool.settings;
        let head = settings.response_header_timeout;
        let body = settings.request_body_timeout;
        // The clock of the head starts when the whole request is there; until then the body's runs.
        let (since, timeout, what): (_, _, fn(Duration) -> What) =
            match self.progress.as_deref().map(Progress::last) {
                None => (sent_at, head, What::Head),
                Some((at, Moved::Finished)) => (at.max(sent_at), head, What::Head),
                Some((at, Moved::FromClient)) => (at.max(sent_at), body, What::Upstream),
                Some((at, Moved::Awaited)) => (at.max(sent_at), body, What::Client),
            };
        let step = timeout.map(|timeout| Due {
            at: since + timeout,
            what: what(timeout),
        });
        let whole = self.deadline.map(|deadline| Due {
            at: deadline.at,
            what: What::Request(deadline),
        });
        match (step, whole) {
            (Some(step), Some(whole)) if whole.at < step.at => Some(whole),
            (Some(step), _) => Some(step),
            (None, whole) => whole,
        }
    }
}

impl What {
    fn error(self, pool: &Pool) -> Error {
        let addr = pool.addr;
        match self {
            Self::Request(deadline) => return deadline.error(),
            Self::Head(timeout) => Failure::ResponseTimeout { addr, timeout },
            Self::Client(timeout) => Failure::RequestBodyTimeout { timeout },
            Self::Upstream(timeout) => Failure::RequestBodyWrite { addr, timeout },
        }
        .into_error()
    }
}
