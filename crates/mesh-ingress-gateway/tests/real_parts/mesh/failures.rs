//! The failures of a load, summed up in a few lines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::load::{Kind, Outcome};

/// Failed calls by their kind and by what was said of them.
pub(crate) struct Failures<'a> {
    groups: BTreeMap<(Kind, &'a str), Vec<&'a Outcome>>,
    since: Instant,
    of: usize,
    slowest: Duration,
}

impl<'a> Failures<'a> {
    pub(crate) fn of(outcomes: &'a [Outcome]) -> Self {
        let since = outcomes.iter().map(|outcome| outcome.started).min();
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for outcome in outcomes {
            if let Err(fault) = &outcome.result {
                groups
                    .entry((outcome.call.kind, fault.as_str()))
                    .or_default()
                    .push(outcome);
            }
        }
        let served = outcomes.iter().filter(|outcome| outcome.result.is_ok());
        let slowest = served.map(|outcome| outcome.ended - outcome.started);
        Self {
            groups,
            since: since.unwrap_or_else(Instant::now),
            of: outcomes.len(),
            slowest: slowest.max().unwrap_or_default(),
        }
    }

    /// Tells times as counted from then, instead of from the first call.
    pub(crate) fn since(mut self, since: Instant) -> Self {
        self.since = since;
        self
    }

    pub(crate) fn count(&self) -> usize {
        self.groups.values().map(Vec::len).sum()
    }
}

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, of, slowest) = (self.count(), self.of, self.slowest);
        write!(
            f,
            "{failed} of {of} requests failed, the others took up to {slowest:?}"
        )?;
        // Before and after.
        let offset = |at: Instant| {
            at.duration_since(self.since).as_secs_f64()
                - self.since.duration_since(at).as_secs_f64()
        };
        for ((kind, fault), outcomes) in &self.groups {
            let starts = || outcomes.iter().map(|outcome| outcome.started);
            let (first, last) = (starts().min(), starts().max());
            let (Some(first), Some(last)) = (first, last) else {
                continue;
            };
            let took = outcomes
                .iter()
                .map(|outcome| outcome.ended - outcome.started)
                .max();
            write!(
                f,
                "\n  {:4} {kind:?}, sent {:+.3} to {:+.3} s, took up to {:?}: {fault}",
                outcomes.len(),
                offset(first),
                offset(last),
                took.unwrap_or_default()
            )?;
        }
        Ok(())
    }
}
