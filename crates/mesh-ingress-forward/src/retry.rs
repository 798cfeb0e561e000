//! Sending requests again, where somebody asked for it.
//!
//! The [policy](RetryPolicy) says what may be sent again, the [budget](Budget) how many, the
//! [replay](Replay) remembers the body, and [`drive`] brings them together.

mod budget;
mod policy;
mod replay;
mod statuses;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use mesh_ingress_core::{Error, ErrorKind};
use tokio::time::Instant;

use crate::body::{RequestBody, ResponseBody};

pub(crate) use self::budget::Budget;
pub use self::policy::{RetryPolicy, RetryPolicyBuilder};
use self::replay::Replay;
pub(crate) use self::statuses::ServerErrors;

/// One try took too long, as the policy has it.
#[derive(Debug, thiserror::Error)]
#[error("no response headers within the {timeout:?} that one try may take")]
struct TryTimeout {
    timeout: Duration,
}

/// A request's body, to be had for each attempt.
enum Source {
    /// Most have none, and that costs nothing.
    Empty,
    Body(Replay<RequestBody>),
}

/// Sends a request through `attempt` until its outcome is no reason to try again, or no more tries
/// are allowed, or there is no time for one. The outcome is that of the last try.
pub(crate) async fn drive<F, Fut>(
    policy: &RetryPolicy,
    budget: &Budget,
    request: Request<RequestBody>,
    deadline: Option<Instant>,
    attempt: F,
) -> Result<Response<ResponseBody>, Error>
where
    F: Fn(Request<RequestBody>) -> Fut,
    Fut: Future<Output = Result<Response<ResponseBody>, Error>>,
{
    budget.deposit(Instant::now());
    let covered = policy.covers(request.method());
    let (head, body) = request.into_parts();
    let source = Source::of(body, policy.buffer);
    let mut tries = 1;
    loop {
        let last = tries >= policy.attempts();
        let body = source.begin(last);
        let sent = attempt(Request::from_parts(head.clone(), body));
        let outcome = within(policy.per_try_timeout, &source, sent).await;
        let pause = policy.pause(tries);
        let in_time = || deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
        if last
            || !in_time()
            || !policy.calls_for_retry(covered, &outcome)
            || !source.can_replay()
            || !budget.withdraw(Instant::now())
            // The body may have moved on meanwhile.
            || !source.recall()
        {
            source.forget();
            return outcome;
        }
        match &outcome {
            Ok(response) => tracing::debug!(tries, status = %response.status(), "trying again"),
            Err(error) => tracing::debug!(tries, error = %error.report(), "trying again"),
        }
        // Its connection is given back or closed before the next one is asked for.
        drop(outcome);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        tries += 1;
    }
}

/// Waits for an attempt for as long as it may take.
async fn within<T>(
    timeout: Option<Duration>,
    source: &Source,
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(timeout) = timeout else {
        return attempt.await;
    };
    let mut attempt = pin!(attempt);
    let mut overdue = pin!(tokio::time::sleep(timeout));
    loop {
        tokio::select! {
            biased;
            outcome = &mut attempt => return outcome,
            () = &mut overdue => {
                let now = Instant::now();
                let due = source.due(now, timeout);
                if due <= now {
                    return Err(Error::new(ErrorKind::HttpResponseTimeout, TryTimeout { timeout }));
                }
                overdue.as_mut().reset(due);
            }
        }
    }
}

impl Source {
    fn of(body: RequestBody, limit: usize) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Body(Replay::new(body, limit))
        }
    }

    /// The body of the next attempt.
    fn begin(&self, last: bool) -> RequestBody {
        match self {
            Self::Empty => RequestBody::empty(),
            Self::Body(replay) => {
                let body = replay.begin();
                if last {
                    replay.forget();
                }
                RequestBody::new(body)
            }
        }
    }

    fn can_replay(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Body(replay) => replay.can_replay(),
        }
    }

    fn recall(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Body(replay) => replay.recall(),
        }
    }

    fn forget(&self) {
        if let Self::Body(replay) = self {
            replay.forget();
        }
    }

    fn due(&self, now: Instant, timeout: Duration) -> Instant {
        match self {
            Self::Empty => now,
            Self::Body(replay) => replay.due(now, timeout),
        }
    }
}
