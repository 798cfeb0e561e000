//! Which requests may be retried, and how often.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Response, StatusCode};
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin, InvalidSetting};

use super::server_errors::ServerErrors;

const MAX_ATTEMPTS: u32 = 10;
/// The most bytes recorded of a request's body.
const MAX_BUFFER: usize = 64 * 1024;

/// Retries idempotent requests that failed, within a budget.
///
/// # Why this is opt-in
///
/// **The mesh retries, too, and attempts multiply.** Istio's sidecars send a failed request up to
/// two more times by default; with two attempts here, one request of a client may reach the
/// application six times. Envoy counts its attempts in `x-envoy-attempt-count`, but starts from one
/// with each request of the gateway. Overloaded upstreams fail, and retries add to their load.
/// Without a policy the forwarder sends a request again only if it is certain that no upstream has
/// acted on it, which is right in any mesh. Add a policy if nothing behind the gateway retries (no
/// mesh, ambient without a waypoint, a mesh with retries off), and keep it small.
///
/// # Retried requests
///
/// * Requests whose method is idempotent (RFC 9110 §9.2.2): `GET`, `HEAD`, `OPTIONS`, `TRACE`,
///   `PUT` and `DELETE`, or only the first four with [`safe_only`](RetryPolicyBuilder::safe_only).
///   `POST` and `PATCH` only if it is certain that no upstream has seen the request
///   ([`Error::may_retry`]).
/// * After a response with one of the [`statuses`](RetryPolicyBuilder::statuses), unless its
///   `Retry-After` asks to wait for longer than the [longest pause](RetryPolicyBuilder::backoff);
///   after a connection that was refused, could not be opened in time, or ended before the
///   response; and after a response that took too long.
/// * Not by `grpc-status`: gRPC is `POST`, and its status does not say that the call had no effect.
///   A gRPC client knows which of its calls are idempotent, and retries them itself.
/// * As long as the request's body is recorded. It is recorded while it streams through, up to
///   [`buffer`](RetryPolicyBuilder::buffer) bytes. A larger body is sent once.
/// * As long as the [`budget`](RetryPolicyBuilder::budget) lasts.
///
/// The client gets the outcome of the last attempt: the upstream's own 503, not one of the gateway.
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

    /// The most attempts of a request, with the first.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether requests of this method may be sent again although an upstream may have acted on
    /// them.
    pub(super) fn allows_method(&self, method: &Method) -> bool {
        if self.safe_only {
            method.is_safe()
        } else {
            method.is_idempotent()
        }
    }

    /// Whether an outcome calls for a retry, if the [method is allowed](Self::allows_method) or
    /// not.
    pub(super) fn calls_for_retry<B>(
        &self,
        method_allowed: bool,
        outcome: &Result<Response<B>, Error>,
    ) -> bool {
        match outcome {
            Ok(response) => {
                method_allowed
                    && self.statuses.contains(response.status())
                    && !self.must_wait(response.headers())
            }
            Err(error) => (method_allowed || error.may_retry()) && is_transient(error),
        }
    }

    /// Whether `Retry-After` asks for a longer pause than the policy allows (RFC 9110 §10.2.3). A
    /// date counts as longer, too: it has no finer resolution than a second.
    fn must_wait(&self, headers: &HeaderMap) -> bool {
        headers.get(RETRY_AFTER).is_some_and(|after| {
            let seconds = after.to_str().ok().and_then(|text| text.parse().ok());
            seconds.is_none_or(|seconds| Duration::from_secs(seconds) > self.backoff_max)
        })
    }

    /// The pause before the `retry`th retry, counted from 1: a random time up to the
    /// [ceiling](Self::ceiling), so that requests that failed together are not retried together.
    pub(super) fn pause(&self, retry: u32) -> Duration {
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

/// Whether an error may be gone in a moment. The client's errors are not, nor limits of the
/// gateway, which retries would only strain.
fn is_transient(error: &Error) -> bool {
    use ErrorKind as Kind;
    let transient = match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionTerminated
        | Kind::ConnectionTimeout
        | Kind::ConnectionReadTimeout
        | Kind::ConnectionWriteTimeout
        | Kind::DestinationIpUnroutable
        | Kind::HttpResponseIncomplete
        | Kind::HttpResponseTimeout => true,
        // Retryable if the peer ended the handshake. After a request was sent, the peer does not
        // speak HTTP.
        Kind::HttpProtocolError => error.may_retry(),
        _ => false,
    };
    transient && error.origin() == ErrorOrigin::Upstream
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
    /// The most attempts of a request, with the first: 1 to 10. Default: 2, since a failed retry
    /// "SHOULD NOT" be retried (RFC 9110 §9.2.2).
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.policy.attempts = attempts;
        self
    }

    /// Retries only safe methods, so that `PUT` and `DELETE` are sent once. Default: `false`.
    ///
    /// For upstreams that number, log or bill each of these, against RFC 9110 §9.2.2.
    pub fn safe_only(mut self, safe_only: bool) -> Self {
        self.policy.safe_only = safe_only;
        self
    }

    /// The statuses after which a request is retried: 5xx only. Default: 502, 503 and 504, which
    /// mean that the request did not reach the application. With none, only errors without a
    /// response are retried.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = ServerErrors::of("statuses", statuses);
        self
    }

    /// The most retries per 100 requests to an upstream, over the last 10 s: 0 to 100. Default: 20.
    ///
    /// A limit on attempts alone does not protect an upstream: when everything fails, everything is
    /// sent twice. See [`min_retries`](Self::min_retries) for upstreams with little traffic.
    pub fn budget(mut self, percent: u32) -> Self {
        self.policy.budget_percent = percent;
        self
    }

    /// The retries to an upstream that are allowed in any 10 s however few requests there are.
    /// Default: 10, because a fifth of three requests would be none.
    pub fn min_retries(mut self, retries: u32) -> Self {
        self.policy.min_retries = retries;
        self
    }

    /// How long one attempt may take until its response begins. Default: `None`: only the
    /// forwarder's own timeouts apply. Beyond it: `http_response_timeout`, and the next attempt.
    ///
    /// The clock is stopped while the client sends its body, because a slow client is no failure of
    /// the upstream. Zero is off, too.
    pub fn per_try_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.policy.per_try_timeout = timeout.into().filter(|timeout| !timeout.is_zero());
        self
    }

    /// How much of a request's body is recorded, in bytes: up to 64 KiB, the default. A request of
    /// which more was sent is not retried. With 0, only requests without a body are, and those
    /// whose body was not begun.
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.policy.buffer = bytes;
        self
    }

    /// The pause before a retry: a random time of up to `base` before the first, up to 3, 7, 15 …
    /// times `base` before the next, and never more than `max`. Default: 25 ms and 250 ms, as in
    /// Envoy. `base` must not exceed `max`.
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        self.policy.backoff_base = base;
        self.policy.backoff_max = max;
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] if a setting is outside of its documented range, or if the budget allows
    /// no retry at all.
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
