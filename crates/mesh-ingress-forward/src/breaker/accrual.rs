//! When a circuit opens, and for how long.

use std::time::Duration;

use http::{Response, StatusCode};
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin, InvalidSetting};

use crate::retry::ServerErrors;

/// When the circuit to an upstream opens, and for how long.
///
/// # Why
///
/// A request to a Service that is down costs its client the whole connect or response timeout, and
/// the gateway the memory of a waiting request. After enough failures in a row the circuit opens
/// for a while: requests fail at once, with `destination_unavailable`. Then one request at a time
/// is sent as a probe. If it succeeds, the circuit closes; if it fails, the penalty doubles.
///
/// # Behind a ClusterIP
///
/// An upstream is a whole Service here, not one pod. A pod that dies resets all its connections at
/// the same moment: failures in a row, while the other pods are healthy. Therefore the failures
/// must also be [sustained](FailureAccrualBuilder::sustained) for a while without a single success.
/// Ejecting single pods is left to the mesh or a waypoint.
///
/// # Failures and successes
///
/// * Failures: the connection could not be opened, ended before the response, or the response did
///   not begin in time; and responses with one of the
///   [`statuses`](FailureAccrualBuilder::statuses).
/// * Successes: every other response.
/// * Neither: errors that the client or the gateway's own limits caused, and cancelled requests.
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
    pub(super) consecutive_failures: u16,
    pub(super) sustained: Duration,
    pub(super) min_penalty: Duration,
    pub(super) max_penalty: Duration,
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

    /// Whether an outcome is a success, a failure, or neither.
    pub(super) fn classify<B>(&self, outcome: &Result<Response<B>, Error>) -> Option<bool> {
        use ErrorKind as Kind;
        let error = match outcome {
            Ok(response) => return Some(!self.statuses.contains(response.status())),
            Err(error) => error,
        };
        let failed = matches!(
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
        (failed && error.origin() == ErrorOrigin::Upstream).then_some(false)
    }

    /// For how long the circuit opens for the `trips`th time in a row.
    pub(super) fn penalty_after(&self, trips: u8) -> Duration {
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
    /// The number of failures in a row that opens the circuit: 1 to 1000. Default: 7, as in
    /// Linkerd.
    pub fn consecutive_failures(mut self, failures: u16) -> Self {
        self.accrual.consecutive_failures = failures;
        self
    }

    /// The least time since the first of these failures: 0 to 1 h. Default: 1 s. With zero the
    /// number alone decides.
    pub fn sustained(mut self, sustained: Duration) -> Self {
        self.accrual.sustained = sustained;
        self
    }

    /// For how long the circuit is open the first time, and at most: the time doubles with each
    /// failed probe. Default: 1 s and 60 s. Up to a half is added at random, so that gateways do
    /// not probe in step. At least 1 ms, at most 1 h.
    pub fn penalty(mut self, min: Duration, max: Duration) -> Self {
        self.accrual.min_penalty = min;
        self.accrual.max_penalty = max;
        self
    }

    /// The statuses that are failures: 5xx only. Default: 502, 503 and 504, with which a gateway
    /// says that it did not reach the application. With none, every response is a success.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        self.statuses = ServerErrors::of("statuses", statuses);
        self
    }

    /// The settings.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] if a setting is outside of its documented range.
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
