//! Logs failed requests, each error at most once a second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_ingress_core::{Error, ErrorOrigin};

/// The shortest time between two log lines of one error. Without it an outage under load would fill
/// the log, and a slow log reader would slow the requests down.
const PERIOD: Duration = Duration::from_secs(1);
/// Distinct errors remembered at once. Clients cannot add to them: errors that a client causes are
/// not remembered.
const MAX_REMEMBERED: usize = 256;

/// Logs errors, each kind and cause at most once a second.
#[derive(Debug, Default)]
pub(crate) struct ErrorLog {
    logged: Mutex<HashMap<String, LastLogged>>,
}

#[derive(Debug)]
struct LastLogged {
    at: Instant,
    /// Repetitions since then that were not logged.
    suppressed: u64,
}

impl ErrorLog {
    pub(crate) fn log(&self, error: &Error) {
        let kind = error.kind().as_str();
        let origin = error.origin().as_str();
        if error.origin() == ErrorOrigin::Client {
            tracing::debug!(kind, origin, "{}", error.report());
            return;
        }
        let report = error.report().to_string();
        if let Some(repeated) = self.due(&report, Instant::now()) {
            tracing::warn!(kind, origin, repeated, "{report}");
        }
    }

    /// How many repetitions were suppressed since `report` was last logged; `None` if it is not to
    /// be logged now.
    fn due(&self, report: &str, now: Instant) -> Option<u64> {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = logged.get_mut(report) {
            if now.saturating_duration_since(last.at) < PERIOD {
                last.suppressed += 1;
                return None;
            }
            last.at = now;
            return Some(std::mem::take(&mut last.suppressed));
        }
        if logged.len() >= MAX_REMEMBERED {
            logged.retain(|_, last| now.saturating_duration_since(last.at) < PERIOD);
        }
        if logged.len() < MAX_REMEMBERED {
            let first = LastLogged {
                at: now,
                suppressed: 0,
            };
            logged.insert(report.to_owned(), first);
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_error_is_logged_once_a_second_with_a_count() {
        let log = ErrorLog::default();
        let start = Instant::now();
        assert_eq!(log.due("a", start), Some(0));
        assert_eq!(log.due("a", start + PERIOD / 2), None);
        assert_eq!(log.due("b", start + PERIOD / 2), Some(0), "another error");
        assert_eq!(log.due("a", start + PERIOD), Some(1));
        assert_eq!(log.due("a", start + PERIOD * 2), Some(0));
    }

    #[test]
    fn remembered_errors_are_bounded() {
        let log = ErrorLog::default();
        let start = Instant::now();
        for n in 0..MAX_REMEMBERED * 2 {
            assert_eq!(log.due(&n.to_string(), start), Some(0));
        }
        assert!(log.logged.lock().unwrap().len() <= MAX_REMEMBERED);
    }
}
