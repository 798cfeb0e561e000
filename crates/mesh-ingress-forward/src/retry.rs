//! Retries by a policy.
//!
//! The [policy](RetryPolicy) says which requests may be retried, the [budget](Budget) how many, a
//! [`ReplayBuffer`] records the body, and [`send`] brings them together.

mod budget;
mod policy;
mod replay;
mod server_errors;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use mesh_ingress_core::{Error, ErrorKind};
use tokio::time::Instant;

use self::replay::ReplayBuffer;
use crate::body::RequestBody;

pub(crate) use self::budget::Budget;
pub use self::policy::{RetryPolicy, RetryPolicyBuilder};
pub(crate) use self::server_errors::ServerErrors;

/// One attempt took longer than the policy allows.
#[derive(Debug, thiserror::Error)]
#[error("no response headers within the {timeout:?} that one try may take")]
struct TryTimeout {
    timeout: Duration,
}

/// A request's body, for each attempt.
enum AttemptBody {
    Empty,
    Replay(ReplayBuffer<RequestBody>),
}

/// Makes attempts until an outcome is no reason to retry, or no more retries are allowed, or the
/// deadline is too close. The outcome is that of the last attempt.
pub(crate) async fn send<F, Fut, B>(
    policy: &RetryPolicy,
    budget: &Budget,
    request: Request<RequestBody>,
    deadline: Option<Instant>,
    attempt: F,
) -> Result<Response<B>, Error>
where
    F: Fn(Request<RequestBody>) -> Fut,
    Fut: Future<Output = Result<Response<B>, Error>>,
{
    budget.deposit(Instant::now());
    let method_allowed = policy.allows_method(request.method());
    let (head, body) = request.into_parts();
    let body = AttemptBody::new(body, policy.buffer);
    let mut attempts = 1;
    loop {
        let last = attempts >= policy.attempts();
        let request = Request::from_parts(head.clone(), body.begin(last));
        let outcome = within(policy.per_try_timeout, &body, attempt(request)).await;
        let pause = policy.pause(attempts);
        let in_time = || deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
        if last
            || !in_time()
            || !policy.calls_for_retry(method_allowed, &outcome)
            || !body.can_replay()
            || !budget.withdraw(Instant::now())
            // The attempt may have read more of the body meanwhile.
            || !body.recall()
        {
            body.stop_recording();
            return outcome;
        }
        match &outcome {
            Ok(response) => tracing::debug!(attempts, status = %response.status(), "retrying"),
            Err(error) => tracing::debug!(attempts, error = %error.report(), "retrying"),
        }
        // Its connection is given back or closed before the next attempt asks for one.
        drop(outcome);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        attempts += 1;
    }
}

/// Waits for an attempt, as long as it may take. While the client sends its body, the clock is
/// stopped.
async fn within<T>(
    timeout: Option<Duration>,
    body: &AttemptBody,
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(timeout) = timeout else {
        return attempt.await;
    };
    let mut attempt = pin!(attempt);
    let mut sleep = pin!(tokio::time::sleep(timeout));
    loop {
        tokio::select! {
            biased;
            outcome = &mut attempt => return outcome,
            () = &mut sleep => {
                let now = Instant::now();
                let due = body.timeout_at(now, timeout);
                if due <= now {
                    return Err(Error::new(ErrorKind::HttpResponseTimeout, TryTimeout { timeout }));
                }
                sleep.as_mut().reset(due);
            }
        }
    }
}

impl AttemptBody {
    fn new(body: RequestBody, limit: usize) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Replay(ReplayBuffer::new(body, limit))
        }
    }

    /// The body of the next attempt.
    fn begin(&self, last: bool) -> RequestBody {
        match self {
            Self::Empty => RequestBody::empty(),
            Self::Replay(replay) => {
                let body = replay.begin();
                if last {
                    replay.stop_recording();
                }
                RequestBody::new(body)
            }
        }
    }

    fn can_replay(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Replay(replay) => replay.can_replay(),
        }
    }

    fn recall(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Replay(replay) => replay.recall(),
        }
    }

    fn stop_recording(&self) {
        if let Self::Replay(replay) = self {
            replay.stop_recording();
        }
    }

    fn timeout_at(&self, now: Instant, timeout: Duration) -> Instant {
        match self {
            Self::Empty => now,
            Self::Replay(replay) => replay.timeout_at(now, timeout),
        }
    }
}
