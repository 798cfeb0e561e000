//! The cached answer of one target, and which part of it requests see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_net::proto::rr::Name;
use mesh_ingress_core::Upstream;
use tokio::time::Instant;

use super::Headless;
use super::builder::Settings;
use super::cause::{Cause, Class, Failure};
use super::lookup::{Found, Unknown};
use super::question::Question;
use super::schedule;
use super::state::Stats;
use crate::ResolveError;
use crate::snapshot_cell::{Outcome, RefreshState, SnapshotCell, Timing};
use crate::spread::Spread;

/// Merges the result of each lookup into the cached answer and publishes it. All rules about time are
/// here; nothing here waits or sends a query.
#[derive(Debug)]
pub(super) struct CacheEntry {
    question: Arc<Question>,
    settings: Arc<Settings>,
    cell: Arc<SnapshotCell>,
    stats: Arc<Stats>,
    last_good: Option<LastGood>,
    /// Lookups in a row that no server answered.
    unanswered: u32,
    /// The last answer said that the name is absent, and the one before had addresses.
    denied_once: bool,
    /// Whether the last lookup failed.
    last_failed: bool,
}

/// The last good answer.
#[derive(Debug)]
struct LastGood {
    addresses: Vec<SocketAddr>,
    fresh_until: Instant,
    /// One for each family, because one can fail alone.
    v4_until: Instant,
    v6_until: Instant,
}

impl CacheEntry {
    /// Starts from what the cell holds, which the task of another runtime may have put there.
    pub(super) fn new(
        question: Arc<Question>,
        settings: Arc<Settings>,
        cell: Arc<SnapshotCell>,
        stats: Arc<Stats>,
    ) -> Self {
        let snapshot = Arc::clone(&cell.load());
        let addresses = match &snapshot.outcome {
            Outcome::One(upstream) => upstream.addresses().to_vec(),
            Outcome::Spread(spread) => spread.addresses().collect(),
            Outcome::Pending | Outcome::Failed(_) => Vec::new(),
        };
        let last_good = match (snapshot.timing.fresh_until, snapshot.timing.usable_until) {
            (Some(fresh_until), Some(until)) if !addresses.is_empty() => Some(LastGood {
                addresses,
                fresh_until,
                v4_until: until,
                v6_until: until,
            }),
            _ => None,
        };
        Self {
            question,
            settings,
            cell,
            stats,
            last_good,
            unanswered: 0,
            denied_once: false,
            last_failed: snapshot.last_error.is_some(),
        }
    }

    /// One family has answered, the other may follow. Requests do not wait for it.
    pub(super) fn found_partial(&mut self, found: Found, now: Instant) {
        // A failure is reported when the lookup is complete.
        let _ = self.accept(found, now, None);
    }

    /// A lookup found addresses. Returns when to look again.
    pub(super) fn found(&mut self, found: Found, now: Instant) -> Instant {
        self.stats.refreshes.add(1);
        self.stats.prohibited.add(found.prohibited);
        if found.prohibited > 0 {
            tracing::debug!(
                service = %self.question.service,
                count = found.prohibited,
                "addresses that the policy refuses are left out"
            );
        }
        let fresh = self.freshness(&found);
        let next = now + schedule::refresh(fresh);
        match self.accept(found, now, Some(next)) {
            Ok(()) => next,
            Err(failure) => self.fail(&failure, now),
        }
    }

    /// A lookup found none. Returns when to look again.
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant) -> Instant {
        self.stats.refreshes.add(1);
        self.stats.prohibited.add(failure.prohibited);
        self.fail(failure, now)
    }

    fn accept(
        &mut self,
        found: Found,
        now: Instant,
        next_refresh: Option<Instant>,
    ) -> Result<(), Failure> {
        let fresh_until = now + self.freshness(&found);
        let usable_until = fresh_until + self.settings.max_stale;
        let good = self.merge(found.addresses, found.unknown.as_ref(), fresh_until, now);
        let last_error = found.unknown.and_then(|unknown| unknown.error);
        let outcome = self.outcome(&good.addresses)?;
        self.log_change(&outcome, last_error.as_ref());
        self.last_good = Some(good);
        self.unanswered = 0;
        self.denied_once = false;
        self.last_failed = false;
        self.cell.update(|snapshot| {
            snapshot.outcome = outcome.clone();
            snapshot.refresh_state = RefreshState::Active;
            snapshot.timing = Timing {
                resolved: Some(now),
                fresh_until: Some(fresh_until),
                usable_until: Some(usable_until),
                next_refresh,
            };
            snapshot.last_error.clone_from(&last_error);
        });
        Ok(())
    }

    /// Where one family is unknown, its addresses are what they were.
    fn merge(
        &self,
        mut addresses: Vec<SocketAddr>,
        unknown: Option<&Unknown>,
        fresh_until: Instant,
        now: Instant,
    ) -> LastGood {
        let until = fresh_until + self.settings.max_stale;
        let (mut v4_until, mut v6_until) = (until, until);
        if let Some(Unknown { is_v6, .. }) = unknown {
            let kept_until = match &self.last_good {
                Some(good) if *is_v6 => good.v6_until,
                Some(good) => good.v4_until,
                None => now,
            };
            if *is_v6 {
                v6_until = kept_until;
            } else {
                v4_until = kept_until;
            }
            if let Some(good) = &self.last_good
                && now < kept_until
            {
                let kept = good
                    .addresses
                    .iter()
                    .filter(|kept| kept.is_ipv6() == *is_v6);
                addresses.extend(kept);
            }
        }
        // IPv6 first, and in one order whatever the order of the answer, so that the same set is
        // seen as the same.
        addresses.sort_unstable_by_key(|address| (address.is_ipv4(), *address));
        addresses.dedup();
        LastGood {
            addresses,
            fresh_until,
            v4_until,
            v6_until,
        }
    }

    fn outcome(&self, addresses: &[SocketAddr]) -> Result<Outcome, Failure> {
        let now = self.cell.load();
        let v6 = addresses.iter().filter(|address| address.is_ipv6()).count();
        if v6 <= 1 && addresses.len() - v6 <= 1 {
            return match (&now.outcome, Upstream::from_addresses(addresses)) {
                (Outcome::One(upstream), _) if upstream.addresses() == addresses => {
                    Ok(now.outcome.clone())
                }
                (_, Some(upstream)) => Ok(Outcome::One(upstream)),
                (_, None) => Err(self.headless(0)),
            };
        }
        let Headless::Spread(balance) = self.settings.headless else {
            return Err(self.headless(addresses.len()));
        };
        let before = match &now.outcome {
            Outcome::Spread(spread) => Some(spread),
            _ => None,
        };
        if let Some(before) = before
            && before.addresses().eq(addresses.iter().copied())
        {
            return Ok(now.outcome.clone());
        }
        Spread::new(addresses, balance, before.map(|before| &**before))
            .map(|spread| Outcome::Spread(Arc::new(spread)))
            .ok_or_else(|| self.headless(0))
    }

    fn headless(&self, count: usize) -> Failure {
        Failure::forbidden(Cause::Headless {
            name: self.name().clone(),
            count,
        })
    }

    fn fail(&mut self, failure: &Failure, now: Instant) -> Instant {
        self.stats.failures.add(1);
        let pause = self.apply_failure(failure, now);
        let next = now + pause;
        let stale = self
            .last_good
            .as_ref()
            .is_some_and(|good| good.fresh_until <= now);
        self.log_failure(&failure.error, pause);
        self.last_failed = true;
        self.cell.update(|snapshot| {
            snapshot.timing.next_refresh = Some(next);
            snapshot.last_error = Some(failure.error.clone());
            snapshot.refresh_state = if stale {
                RefreshState::Stale
            } else {
                RefreshState::Active
            };
            if self.last_good.is_none() {
                snapshot.outcome = Outcome::Failed(failure.error.clone());
            }
        });
        next
    }

    /// Decides whether the last good answer still holds, and how soon to look again.
    fn apply_failure(&mut self, failure: &Failure, now: Instant) -> Duration {
        match failure.class {
            Class::Unavailable => {
                self.unanswered = self.unanswered.saturating_add(1);
                self.last_good
                    .take_if(|good| now >= good.v4_until.max(good.v6_until));
                schedule::backoff(self.unanswered)
            }
            Class::Absent { ttl } => {
                self.unanswered = 0;
                if self.last_good.is_some() && !self.denied_once {
                    self.denied_once = true;
                    return schedule::confirm();
                }
                self.last_good = None;
                schedule::negative(ttl)
            }
            Class::Forbidden => {
                self.unanswered = 0;
                self.last_good = None;
                schedule::negative(Some(Duration::MAX))
            }
        }
    }

    fn freshness(&self, found: &Found) -> Duration {
        schedule::freshness(found.ttl, self.settings.min_ttl, self.settings.max_ttl)
    }

    fn name(&self) -> &Name {
        &self.question.name
    }

    fn log_change(&self, outcome: &Outcome, partial: Option<&ResolveError>) {
        let service = &self.question.service;
        let before = self.cell.load();
        let is_same = match (&before.outcome, outcome) {
            (Outcome::One(before), Outcome::One(now)) => before == now,
            (Outcome::Spread(before), Outcome::Spread(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let addresses = Addresses(outcome);
        match &before.outcome {
            _ if is_same && !self.last_failed => {}
            _ if is_same => {
                tracing::info!(%service, ?addresses, "cluster DNS answers again");
            }
            Outcome::Pending => tracing::info!(%service, ?addresses, "resolved"),
            Outcome::Failed(_) => {
                tracing::info!(%service, ?addresses, "resolved after failures");
            }
            before => tracing::info!(
                %service,
                before = ?Addresses(before),
                ?addresses,
                "the addresses have changed"
            ),
        }
        if let Some(error) = partial {
            tracing::debug!(%service, %error, "one family is unknown");
        }
    }

    fn log_failure(&self, error: &ResolveError, pause: Duration) {
        let service = &self.question.service;
        let lost = self.last_good.is_none() && self.cell.load().outcome.is_usable();
        if lost || !self.last_failed {
            let kept = self.last_good.is_some();
            let error_type = error.kind();
            tracing::warn!(%service, %error, %error_type, kept, retry_in = ?pause, "cannot resolve");
        } else {
            tracing::debug!(%service, %error, retry_in = ?pause, "still cannot resolve");
        }
    }
}

/// The addresses of an outcome, for log events.
struct Addresses<'a>(&'a Outcome);

impl std::fmt::Debug for Addresses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Outcome::One(upstream) => f.debug_list().entries(upstream.addresses()).finish(),
            Outcome::Spread(spread) => f.debug_list().entries(spread.addresses()).finish(),
            Outcome::Pending | Outcome::Failed(_) => f.debug_list().finish(),
        }
    }
}

#[cfg(test)]
mod tests;
