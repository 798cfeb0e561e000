//! Leaving an upstream alone that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin, InvalidSetting};
use tokio::time::Instant;

use crate::retry::ServerErrors;

#[cfg(test)]
mod tests;
mod word;

use self::word::{Phase, Word};

/// When a target is taken for broken, and for how long.
///
/// # Why
///
/// A request to a Service that is down costs its client the whole connect or response timeout, and
/// costs the gateway what a waiting request holds. After enough failures in a row the target is
/// left alone for a while: requests fail at once, with `destination_unavailable`. Then one request
/// at a time is let through as a probe. If it succeeds, all are; if it fails, the pause doubles.
///
/// # Behind a ClusterIP
///
/// A target is a whole Service here, not one pod. One pod that dies resets all its connections in
/// the same moment, which is a row of failures while the other pods are well. Therefore the row
/// must also [last](FailureAccrualBuilder::sustained) for a while without a single success. A mesh
/// or a waypoint that ejects single pods does the finer work.
///
/// # What counts
///
/// * Failures: the connection could not be opened, broke before the response, or the response did
///   not begin in time; and responses with one of the
///   [`statuses`](FailureAccrualBuilder::statuses).
/// * Successes: every other response.
/// * Neither: what the client or the gateway's own limits caused, and requests that were given up.
///
/// ```
/// use std::time::Duration;
/// use mesh_ingress_forward::FailureAccrual;
///
/// let accrual = FailureAccrual::builder()
///     .consecutive_failures(5)
///     .penalty(Duration::from_secs(2), Duration::from_secs(30))
///     .build()?;
/// assert!(FailureAccrual::builder().consecutive_failures(0).build().is_err());
/// # Ok::<(), mesh_ingress_forward::InvalidSetting>(())
/// ```
#[derive(Clone, Debug)]
pub struct FailureAccrual {
    consecutive_failures: u16,
    sustained: Duration,
    min_penalty: Duration,
    max_penalty: Duration,
    statuses: ServerErrors,
}

/// Builds a [`FailureAccrual`]. Every setting has a default.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct FailureAccrualBuilder {
    accrual: FailureAccrual,
    statuses: Result<ServerErrors, InvalidSetting>,
}

impl FailureAccrual {
    /// A builder with defaults.
    pub fn builder() -> FailureAccrualBuilder {
        FailureAccrualBuilder::default()
    }

    /// What an outcome says of the upstream: well, broken, or nothing.
    fn judge<B>(&self, outcome: &Result<Response<B>, Error>) -> Option<bool> {
        use ErrorKind as Kind;
        let error = match outcome {
            Ok(response) => return Some(!self.statuses.contains(response.status())),
            Err(error) => error,
        };
        let broken = matches!(
            error.kind(),
            Kind::ConnectionRefused
                | Kind::ConnectionTerminated
                | Kind::ConnectionTimeout
                | Kind::ConnectionReadTimeout
                | Kind::ConnectionWriteTimeout
                | Kind::DestinationIpUnroutable
                | Kind::HttpProtocolError
                | Kind::HttpResponseIncomplete
                | Kind::HttpResponseTimeout
                | Kind::TlsAlertReceived
                | Kind::TlsCertificateError
                | Kind::TlsProtocolError
        );
        (broken && error.origin() == ErrorOrigin::Upstream).then_some(false)
    }

    /// How long a target is left alone when it has failed for the `trips`th time in a row.
    fn penalty(&self, trips: u8) -> Duration {
        let doubled = 2_u32.saturating_pow(u32::from(trips.saturating_sub(1)));
        self.min_penalty
            .saturating_mul(doubled)
            .min(self.max_penalty)
    }
}

impl Default for FailureAccrualBuilder {
    fn default() -> Self {
        Self {
            accrual: FailureAccrual {
                consecutive_failures: 7,
                sustained: Duration::from_secs(1),
                min_penalty: Duration::from_secs(1),
                max_penalty: Duration::from_secs(60),
                statuses: ServerErrors::GATEWAY,
            },
            statuses: Ok(ServerErrors::GATEWAY),
        }
    }
}

impl FailureAccrualBuilder {
    /// After how many failures in a row a target is left alone: 1 to 1000. Default: 7, as in
    /// Linkerd.
    pub fn consecutive_failures(mut self, failures: u16) -> Self {
        self.accrual.consecutive_failures = failures;
        self
    }

    /// For how long at least there must have been nothing but failures: 0 to 1 h. Default: 1 s. At
    /// zero the number alone decides.
    pub fn sustained(mut self, sustained: Duration) -> Self {
        self.accrual.sustained = sustained;
        self
    }

    /// For how long a target is left alone the first time, and at most: the time doubles with each
    /// probe that fails. Default: 1 s and 60 s. Up to a half is added at random, so that gateways do
    /// not probe in step. At least 1 ms, at most 1 h.
    pub fn penalty(mut self, min: Duration, max: Duration) -> Self {
        self.accrual.min_penalty = min;
        self.accrual.max_penalty = max;
        self
    }

    /// Which responses are failures: 5xx only. Default: 502, 503 and 504, with which a gateway says
    /// that it did not reach the application. With none, every response is a success.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = ServerErrors::of("statuses", statuses);
        self
    }

    /// The settings.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] if a setting is out of the bounds that it documents.
    pub fn build(self) -> Result<FailureAccrual, InvalidSetting> {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut accrual = self.accrual;
        accrual.statuses = self.statuses?;
        if !(1..=1000).contains(&accrual.consecutive_failures) {
            let failures = accrual.consecutive_failures;
            let reason = format_args!("{failures} is not within 1 to 1000");
            return Err(InvalidSetting::new("consecutive_failures", reason));
        }
        if accrual.sustained > HOUR {
            return Err(InvalidSetting::new("sustained", "more than 1 h"));
        }
        let (min, max) = (accrual.min_penalty, accrual.max_penalty);
        if min < Duration::from_millis(1) || max > HOUR || min > max {
            let reason = format_args!("{min:?} to {max:?} is not within 1 ms to 1 h");
            return Err(InvalidSetting::new("penalty", reason));
        }
        Ok(accrual)
    }
}

/// The verdict on one target, shared by its requests.
///
/// One atomic word holds all of it. While the target is well, a request costs a load and its success
/// another.
#[derive(Debug)]
pub(crate) struct Breaker {
    accrual: FailureAccrual,
    started: Instant,
    word: AtomicU64,
}

/// The right to send one request. Give it back with the outcome; dropped without, it says nothing
/// of the target, and a probe is left to the next request.
#[derive(Debug)]
#[must_use = "a probe that is dropped is left to the next request"]
pub(crate) struct Admission {
    /// The period that the request belongs to: it says nothing of others.
    generation: u16,
    probe: Option<Arc<Breaker>>,
}

/// The target is left alone at this moment; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the upstream failed too often and is left alone for another {retry_after:?}: do its pods run, and are they ready?"
)]
pub(crate) struct Rejected {
    /// When it may be worth asking again.
    pub(crate) retry_after: Duration,
}

/// What a failure or a success has changed, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The target is left alone for so long.
    Opened(Duration),
    /// It is well again.
    Closed,
}

impl Rejected {
    pub(crate) fn into_error(self) -> Error {
        Error::new(ErrorKind::DestinationUnavailable, self).retryable()
    }
}

impl Breaker {
    pub(crate) fn new(accrual: FailureAccrual, now: Instant) -> Self {
        Self {
            accrual,
            started: now,
            word: AtomicU64::new(Word::default().into()),
        }
    }

    /// Whether a request may be sent now.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Admission, Rejected> {
        // Nothing else is guarded by the word: no order with other memory is needed.
        let mut seen = self.load();
        loop {
            let until = match seen.phase {
                Phase::Closed { .. } => {
                    return Ok(Admission {
                        generation: seen.generation,
                        probe: None,
                    });
                }
                // A probe that says nothing for so long is taken for lost.
                Phase::Open { until } | Phase::Probing { until } => until,
            };
            let now = self.millis(now);
            if now < until {
                let retry_after = match seen.phase {
                    Phase::Probing { .. } => self.accrual.min_penalty,
                    _ => Duration::from_millis(until - now),
                };
                return Err(Rejected { retry_after });
            }
            let patience = millis_of(self.accrual.max_penalty);
            let until = now.saturating_add(patience);
            let probing = seen.next(seen.trips, Phase::Probing { until });
            match self.replace(seen, probing) {
                Ok(()) => {
                    return Ok(Admission {
                        generation: probing.generation,
                        probe: Some(Arc::clone(self)),
                    });
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Counts what has become of a request.
    pub(crate) fn settle<B>(
        &self,
        admission: Admission,
        outcome: &Result<Response<B>, Error>,
        now: Instant,
    ) -> Option<Change> {
        match self.accrual.judge(outcome) {
            Some(true) => self.success(admission),
            Some(false) => self.failure(admission, now),
            None => None,
        }
    }

    /// The upstream is well.
    pub(crate) fn success(&self, mut admission: Admission) -> Option<Change> {
        let probed = admission.probe.take().is_some();
        let mut seen = self.load();
        loop {
            let well = match seen.phase {
                _ if seen.generation != admission.generation => return None,
                Phase::Closed { failures: 0, .. } | Phase::Open { .. } => return None,
                // The same period goes on.
                Phase::Closed { .. } => Word {
                    phase: Phase::WELL,
                    ..seen
                },
                Phase::Probing { .. } => seen.next(0, Phase::WELL),
            };
            match self.replace(seen, well) {
                Ok(()) => return probed.then_some(Change::Closed),
                Err(other) => seen = other,
            }
        }
    }

    /// The upstream has failed.
    pub(crate) fn failure(&self, mut admission: Admission, now: Instant) -> Option<Change> {
        admission.probe = None;
        let accrual = &self.accrual;
        let millis = self.millis(now);
        let mut seen = self.load();
        loop {
            if seen.generation != admission.generation {
                return None;
            }
            let (failures, since) = match seen.phase {
                Phase::Closed { failures: 0, .. } => (1, millis),
                Phase::Closed { failures, since } => (failures.saturating_add(1), since),
                Phase::Probing { .. } => (u16::MAX, 0),
                Phase::Open { .. } => return None,
            };
            let lasted = u128::from(word::since(millis, since)) >= accrual.sustained.as_millis();
            let probed = matches!(seen.phase, Phase::Probing { .. });
            let enough = failures >= accrual.consecutive_failures && lasted;
            let (failed, change) = if enough || probed {
                let trips = seen.trips.saturating_add(1);
                let penalty = accrual.penalty(trips);
                let penalty = penalty + penalty.mul_f64(0.5 * fastrand::f64());
                let until = millis.saturating_add(millis_of(penalty));
                let open = seen.next(trips, Phase::Open { until });
                (open, Some(Change::Opened(penalty)))
            } else {
                let phase = Phase::Closed { failures, since };
                (Word { phase, ..seen }, None)
            };
            match self.replace(seen, failed) {
                Ok(()) => return change,
                Err(other) => seen = other,
            }
        }
    }

    /// Leaves the probe to the next request.
    fn release(&self, generation: u16) {
        let seen = self.load();
        if let Phase::Probing { .. } = seen.phase
            && seen.generation == generation
        {
            // Whoever was faster has put an end to this probe, too.
            let _ = self.replace(seen, seen.next(seen.trips, Phase::Open { until: 0 }));
        }
    }

    fn load(&self) -> Word {
        self.word.load(Ordering::Relaxed).into()
    }

    fn replace(&self, seen: Word, new: Word) -> Result<(), Word> {
        self.word
            .compare_exchange(
                seen.into(),
                new.into(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .map(drop)
            .map_err(Word::from)
    }

    fn millis(&self, now: Instant) -> u64 {
        millis_of(now.saturating_duration_since(self.started))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(breaker) = self.probe.take() {
            breaker.release(self.generation);
        }
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
