//! Failures in the log: each said, none repeated for every request it hits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_ingress_core::{Error, ErrorOrigin};

/// The same failure is logged so often at most. An outage under load would otherwise fill the log,
/// and whoever reads it slowly would slow the requests down.
const PERIOD: Duration = Duration::from_secs(1);
/// Failures told apart at once; clients cannot make more, their own are not kept.
const KEPT: usize = 256;

/// Logs failures, each kind and cause at most once a second.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    said: Mutex<HashMap<String, Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    since: u64,
}

impl Failures {
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

    /// How often this was not said since it was last said; `None` if it is not to be said now.
    fn due(&self, report: &str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = said.get_mut(report) {
            if now.saturating_duration_since(last.at) < PERIOD {
                last.since += 1;
                return None;
            }
            last.at = now;
            return Some(std::mem::take(&mut last.since));
        }
        if said.len() >= KEPT {
            said.retain(|_, last| now.saturating_duration_since(last.at) < PERIOD);
        }
        if said.len() < KEPT {
            let first = Said { at: now, since: 0 };
            said.insert(report.to_owned(), first);
        }
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_once_a_second_with_a_count() {
        let failures = Failures::default();
        let start = Instant::now();
        assert_eq!(failures.due("a", start), Some(0));
        assert_eq!(failures.due("a", start + PERIOD / 2), None);
        assert_eq!(
            failures.due("b", start + PERIOD / 2),
            Some(0),
            "another failure"
        );
        assert_eq!(failures.due("a", start + PERIOD), Some(1));
        assert_eq!(failures.due("a", start + PERIOD * 2), Some(0));
    }

    #[test]
    fn many_failures_do_not_pile_up() {
        let failures = Failures::default();
        let start = Instant::now();
        for n in 0..KEPT * 2 {
            assert_eq!(failures.due(&n.to_string(), start), Some(0));
        }
        assert!(failures.said.lock().unwrap().len() <= KEPT);
    }
}
