//! What may be sent again, and how often.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response, StatusCode};
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin, InvalidSetting};

use super::statuses::ServerErrors;

/// Beyond this many tries a request is not unlucky.
const MAX_ATTEMPTS: u32 = 10;
/// What is remembered of a request's body at most.
const MAX_BUFFER: usize = 64 * 1024;

/// Sends idempotent requests again that failed, within a budget.
///
/// # Why this is opt-in
///
/// **The mesh retries, too, and tries multiply.** Istio's sidecars send a failed request up to two
/// more times by default; with two tries here, one request of a client may reach the application
/// six times. Envoy counts its own in `x-envoy-attempt-count`, but begins anew with each request it
/// gets from us. An overloaded upstream is the one that fails, and what it needs least is more
/// requests. Without a policy the forwarder sends a request again only if it is certain that no
/// upstream has acted on it, which is right in any mesh. Add a policy where nothing behind the
/// gateway retries (no mesh, ambient without a waypoint, a mesh with retries off), and then keep it
/// small.
///
/// # What is retried
///
/// * Requests whose method is idempotent (RFC 9110 §9.2.2): `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT`
///   and `DELETE`, or only the first four with [`safe_only`](RetryPolicyBuilder::safe_only). Never
///   `POST` or `PATCH`, unless it is certain that nobody has seen the request
///   ([`Error::may_retry`]).
/// * After a response whose status is one of [`statuses`](RetryPolicyBuilder::statuses), unless it
///   says in `Retry-After` to wait for longer than the
///   [longest pause](RetryPolicyBuilder::backoff); after a connection that was refused, could not
///   be opened in time, or ended before the response; and after a response that took too long.
/// * Not by `grpc-status`: gRPC is `POST`, and a status does not tell that the call had no effect.
///   A gRPC client knows which of its calls are idempotent, and has retries of its own.
/// * As long as the request's body is still remembered. It streams through while it is remembered,
///   up to [`buffer`](RetryPolicyBuilder::buffer) bytes; nothing waits for it. A body beyond that
///   is sent once.
/// * As long as the [`budget`](RetryPolicyBuilder::budget) lasts.
///
/// The outcome of the last try is the outcome: a client sees the upstream's own 503, not ours.
///
/// ```
/// use std::time::Duration;
/// use mesh_ingress_forward::RetryPolicy;
///
/// let policy = RetryPolicy::builder()
///     .attempts(3)
///     .per_try_timeout(Duration::from_secs(2))
///     .build()?;
/// assert_eq!(policy.attempts(), 3);
/// assert!(RetryPolicy::builder().attempts(0).build().is_err());
/// # Ok::<(), mesh_ingress_forward::InvalidSetting>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    attempts: u32,
    safe_only: bool,
    statuses: ServerErrors,
    pub(super) budget_percent: u32,
    pub(super) min_retries: u32,
    pub(super) per_try_timeout: Option<Duration>,
    pub(super) buffer: usize,
    backoff_base: Duration,
    backoff_max: Duration,
}

/// Builds a [`RetryPolicy`]. Every setting has a default.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RetryPolicyBuilder {
    policy: RetryPolicy,
    statuses: Result<ServerErrors, InvalidSetting>,
}

impl RetryPolicy {
    /// A builder with defaults.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder::default()
    }

    /// How often a request is tried at most, the first time included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether requests of this method may be sent again though somebody may have acted on them.
    pub(crate) fn covers(&self, method: &Method) -> bool {
        if self.safe_only {
            method.is_safe()
        } else {
            method.is_idempotent()
        }
    }

    /// Whether another try is called for: `covered` says whether the method allows it.
    pub(crate) fn calls_for_retry<B>(
        &self,
        covered: bool,
        outcome: &Result<Response<B>, Error>,
    ) -> bool {
        match outcome {
            Ok(response) => {
                covered
                    && self.statuses.contains(response.status())
                    && !self.must_wait(response.headers())
            }
            Err(error) => (covered || error.may_retry()) && may_pass(error),
        }
    }

    /// Whether the upstream asks to be left alone for longer than we are ready to wait
    /// (RFC 9110 §10.2.3). A date is taken for longer, too: it has no finer grain than a second.
    fn must_wait(&self, headers: &HeaderMap) -> bool {
        headers.get(RETRY_AFTER).is_some_and(|after| {
            let seconds = after.to_str().ok().and_then(|text| text.parse().ok());
            seconds.is_none_or(|seconds| Duration::from_secs(seconds) > self.backoff_max)
        })
    }

    /// How long to wait before the `retry`th retry, counted from 1: anything up to the
    /// [ceiling](Self::ceiling), so that those who failed together do not come back together.
    pub(crate) fn pause(&self, retry: u32) -> Duration {
        self.ceiling(retry).mul_f64(fastrand::f64())
    }

    /// Envoy's "fully jittered exponential back-off": up to (2ⁿ − 1) times the base, and no more
    /// than the maximum.
    fn ceiling(&self, retry: u32) -> Duration {
        let factor = 2_u32.saturating_pow(retry).saturating_sub(1);
        self.backoff_base
            .saturating_mul(factor)
            .min(self.backoff_max)
    }
}

/// Whether what failed may be over in a moment, and is neither the client's doing nor a limit of
/// ours that more tries would only strain.
fn may_pass(error: &Error) -> bool {
    use ErrorKind as Kind;
    let passing = match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionTerminated
        | Kind::ConnectionTimeout
        | Kind::ConnectionReadTimeout
        | Kind::ConnectionWriteTimeout
        | Kind::DestinationIpUnroutable
        | Kind::HttpResponseIncomplete
        | Kind::HttpResponseTimeout => true,
        // A peer that goes away in the middle of the handshake. Once a request was sent, it is one
        // that does not speak HTTP, and will not learn to.
        Kind::HttpProtocolError => error.may_retry(),
        _ => false,
    };
    passing && error.origin() == ErrorOrigin::Upstream
}

impl Default for RetryPolicyBuilder {
    fn default() -> Self {
        Self {
            policy: RetryPolicy {
                attempts: 2,
                safe_only: false,
                statuses: ServerErrors::GATEWAY,
                budget_percent: 20,
                min_retries: 10,
                per_try_timeout: None,
                buffer: MAX_BUFFER,
                backoff_base: Duration::from_millis(25),
                backoff_max: Duration::from_millis(250),
            },
            statuses: Ok(ServerErrors::GATEWAY),
        }
    }
}

impl RetryPolicyBuilder {
    /// How often a request is tried at most, the first time included: 1 to 10. Default: 2, since a
    /// failed retry "SHOULD NOT" be retried (RFC 9110 §9.2.2).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.policy.attempts = attempts;
        self
    }

    /// Retries only what is safe, so that `PUT` and `DELETE` are sent once. Default: `false`.
    ///
    /// For upstreams that number, log or bill each of those, against RFC 9110 §9.2.2.
    pub fn safe_only(mut self, safe_only: bool) -> Self {
        self.policy.safe_only = safe_only;
        self
    }

    /// After which responses a request is retried: 5xx only. Default: 502, 503 and 504, which mean
    /// that the request did not reach the application. With none, only after errors without a
    /// response.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = ServerErrors::of("statuses", statuses);
        self
    }

    /// How many retries there may be for 100 requests to a target, over the last 10 s: 0 to 100.
    /// Default: 20.
    ///
    /// A limit on tries alone protects nobody: when everything fails, everything is sent twice. See
    /// [`min_retries`](Self::min_retries) for targets with little traffic.
    pub fn budget(mut self, percent: u32) -> Self {
        self.policy.budget_percent = percent;
        self
    }

    /// How many retries to a target there may be in any 10 s however few requests there are.
    /// Default: 10. A fifth of three requests would be none.
    pub fn min_retries(mut self, retries: u32) -> Self {
        self.policy.min_retries = retries;
        self
    }

    /// How long one try may take until its response begins. Default: `None`, the forwarder's own
    /// timeouts are enough. Beyond it: `http_response_timeout`, and the next try.
    ///
    /// While the client is still sending its body, the clock waits for it: a slow client is no
    /// failure of the upstream. Zero is off, too.
    pub fn per_try_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.policy.per_try_timeout = timeout.into().filter(|timeout| !timeout.is_zero());
        self
    }

    /// How much of a request's body is remembered, in bytes: up to 64 KiB, the default. A request
    /// of which more was sent is not retried; 0 leaves only those without a body, and those whose
    /// body was not begun.
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.policy.buffer = bytes;
        self
    }

    /// How long to wait before a retry: a random time of up to `base` before the first, up to three,
    /// seven, fifteen … times of it before the next, and never more than `max`. Default: 25 ms and
    /// 250 ms, as in Envoy. `base` must not exceed `max`.
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        self.policy.backoff_base = base;
        self.policy.backoff_max = max;
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] if a setting is out of the bounds that it documents, or if the budget lets
    /// no retry happen at all.
    pub fn build(self) -> Result<RetryPolicy, InvalidSetting> {
        let mut policy = self.policy;
        policy.statuses = self.statuses?;
        if !(1..=MAX_ATTEMPTS).contains(&policy.attempts) {
            let reason = format_args!("{} is not within 1 to {MAX_ATTEMPTS}", policy.attempts);
            return Err(InvalidSetting::new("attempts", reason));
        }
        if policy.budget_percent > 100 {
            let reason = format_args!("{} is more than 100 percent", policy.budget_percent);
            return Err(InvalidSetting::new("budget", reason));
        }
        if policy.budget_percent == 0 && policy.min_retries == 0 {
            return Err(InvalidSetting::new("budget", "it lets no retry happen"));
        }
        if policy.buffer > MAX_BUFFER {
            let reason = format_args!("{} bytes is more than {MAX_BUFFER}", policy.buffer);
            return Err(InvalidSetting::new("buffer", reason));
        }
        if policy.backoff_base > policy.backoff_max {
            return Err(InvalidSetting::new("backoff", "the base exceeds the most"));
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests;
