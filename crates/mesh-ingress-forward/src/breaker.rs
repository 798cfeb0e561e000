//! The circuit breaker of an upstream: after failures in a row, requests are rejected for a while.
//!
//! [`FailureAccrual`] says when and for how long, [`Breaker`] has the state.

mod accrual;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Response;
use mesh_ingress_core::{Error, ErrorKind};
use tokio::time::Instant;

pub use self::accrual::{FailureAccrual, FailureAccrualBuilder};
use self::state::{PackedState, Phase};

/// The circuit of one upstream.
///
/// One atomic integer holds its whole state. While the circuit is closed, a request costs one load,
/// and its success another.
#[derive(Debug)]
pub(crate) struct Breaker {
    accrual: FailureAccrual,
    started: Instant,
    state: AtomicU64,
}

/// The right to send one request. [Record](Breaker::record) it with the outcome. Dropped, it is
/// neither a success nor a failure, and a probe is left to the next request.
#[derive(Debug)]
#[must_use = "a dropped probe is left to the next request"]
pub(crate) struct Admission {
    /// The phase that the request belongs to: its outcome does not count in later ones.
    generation: u16,
    probe: Option<Arc<Breaker>>,
}

/// The circuit is open; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the upstream failed too often and is left alone for another {retry_after:?}: do its pods run, and are they ready?"
)]
pub(crate) struct Rejected {
    /// When the next probe is due.
    pub(crate) retry_after: Duration,
}

/// A change of the circuit, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It opened, for so long.
    Opened(Duration),
    /// It closed: a probe succeeded.
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
            state: AtomicU64::new(PackedState::default().into()),
        }
    }

    /// Whether a request may be sent now.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Admission, Rejected> {
        // The state guards no other memory: relaxed orderings suffice.
        let mut seen = self.load();
        loop {
            let until = match seen.phase {
                Phase::Closed { .. } => {
                    return Ok(Admission {
                        generation: seen.generation,
                        probe: None,
                    });
                }
                // A probe without an outcome by then is taken for lost.
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
            let probe_timeout = millis_of(self.accrual.max_penalty);
            let until = now.saturating_add(probe_timeout);
            let probing = seen.next(seen.trips, Phase::Probing { until });
            match self.replace(seen, probing) {
                Ok(()) => {
                    return Ok(Admission {
                        generation: probing.generation,
                        probe: Some(Arc::clone(self)),
                    });
                }
                Err(current) => seen = current,
            }
        }
    }

    /// Counts the outcome of a request.
    pub(crate) fn record<B>(
        &self,
        admission: Admission,
        outcome: &Result<Response<B>, Error>,
        now: Instant,
    ) -> Option<Change> {
        match self.accrual.classify(outcome) {
            Some(true) => self.success(admission),
            Some(false) => self.failure(admission, now),
            None => None,
        }
    }

    /// Counts a success.
    fn success(&self, mut admission: Admission) -> Option<Change> {
        let probed = admission.probe.take().is_some();
        let mut seen = self.load();
        loop {
            let new = match seen.phase {
                _ if seen.generation != admission.generation => return None,
                Phase::Closed { failures: 0, .. } | Phase::Open { .. } => return None,
                // The same phase goes on.
                Phase::Closed { .. } => PackedState {
                    phase: Phase::HEALTHY,
                    ..seen
                },
                Phase::Probing { .. } => seen.next(0, Phase::HEALTHY),
            };
            match self.replace(seen, new) {
                Ok(()) => return probed.then_some(Change::Closed),
                Err(current) => seen = current,
            }
        }
    }

    /// Counts a failure.
    fn failure(&self, mut admission: Admission, now: Instant) -> Option<Change> {
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
            let lasted = u128::from(state::since(millis, since)) >= accrual.sustained.as_millis();
            let probed = matches!(seen.phase, Phase::Probing { .. });
            let enough = failures >= accrual.consecutive_failures && lasted;
            let (new, change) = if enough || probed {
                let trips = seen.trips.saturating_add(1);
                let penalty = accrual.penalty_after(trips);
                let penalty = penalty + penalty.mul_f64(0.5 * fastrand::f64());
                let until = millis.saturating_add(millis_of(penalty));
                let open = seen.next(trips, Phase::Open { until });
                (open, Some(Change::Opened(penalty)))
            } else {
                let phase = Phase::Closed { failures, since };
                (PackedState { phase, ..seen }, None)
            };
            match self.replace(seen, new) {
                Ok(()) => return change,
                Err(current) => seen = current,
            }
        }
    }

    /// Leaves the probe to the next request.
    fn release(&self, generation: u16) {
        let seen = self.load();
        if let Phase::Probing { .. } = seen.phase
            && seen.generation == generation
        {
            // A thread that was faster has ended this probe, too.
            let _ = self.replace(seen, seen.next(seen.trips, Phase::Open { until: 0 }));
        }
    }

    fn load(&self) -> PackedState {
        self.state.load(Ordering::Relaxed).into()
    }

    fn replace(&self, seen: PackedState, new: PackedState) -> Result<(), PackedState> {
        self.state
            .compare_exchange(
                seen.into(),
                new.into(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .map(drop)
            .map_err(PackedState::from)
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
