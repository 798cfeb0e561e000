//! What is believed of one target, and what of it requests see.

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
use crate::slot::{Outcome, Slot, Timing, Upkeep};
use crate::spread::Spread;

/// Weighs what lookups find against what was known, and publishes the result. All the rules about
/// time are here; nothing waits and nothing is asked.
#[derive(Debug)]
pub(super) struct Book {
    question: Arc<Question>,
    settings: Arc<Settings>,
    slot: Arc<Slot>,
    stats: Arc<Stats>,
    good: Option<Good>,
    /// Lookups in a row that nobody answered.
    unanswered: u32,
    /// The last answer denied what the one before said.
    doubted: bool,
    /// Whether the last lookup failed.
    ailing: bool,
}

/// The last good answer.
#[derive(Debug)]
struct Good {
    addresses: Vec<SocketAddr>,
    fresh_until: Instant,
    /// For each family by itself: one can fail alone.
    v4_until: Instant,
    v6_until: Instant,
}

impl Book {
    /// Goes on with what the slot has, which another runtime's task may have put there.
    pub(super) fn new(
        question: Arc<Question>,
        settings: Arc<Settings>,
        slot: Arc<Slot>,
        stats: Arc<Stats>,
    ) -> Self {
        let snapshot = Arc::clone(&slot.load());
        let addresses = match &snapshot.outcome {
            Outcome::One(upstream) => upstream.addresses().to_vec(),
            Outcome::Spread(spread) => spread.addresses().collect(),
            Outcome::Pending | Outcome::Failed(_) => Vec::new(),
        };
        let good = match (snapshot.timing.fresh_until, snapshot.timing.usable_until) {
            (Some(fresh_until), Some(until)) if !addresses.is_empty() => Some(Good {
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
            slot,
            stats,
            good,
            unanswered: 0,
            doubted: false,
            ailing: snapshot.last_error.is_some(),
        }
    }

    /// One family is there, the other may come. Requests need not wait for it.
    pub(super) fn early(&mut self, found: Found, now: Instant) {
        // What is wrong with it is said when all is there.
        let _ = self.take(found, now, None);
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
        match self.take(found, now, Some(next)) {
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

    fn take(
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
        self.tell_of(&outcome, last_error.as_ref());
        self.good = Some(good);
        self.unanswered = 0;
        self.doubted = false;
        self.ailing = false;
        self.slot.update(|snapshot| {
            snapshot.outcome = outcome.clone();
            snapshot.upkeep = Upkeep::Kept;
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
    ) -> Good {
        let until = fresh_until + self.settings.max_stale;
        let (mut v4_until, mut v6_until) = (until, until);
        if let Some(Unknown { is_v6, .. }) = unknown {
            let kept_until = match &self.good {
                Some(good) if *is_v6 => good.v6_until,
                Some(good) => good.v4_until,
                None => now,
            };
            if *is_v6 {
                v6_until = kept_until;
            } else {
                v4_until = kept_until;
            }
            if let Some(good) = &self.good
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
        Good {
            addresses,
            fresh_until,
            v4_until,
            v6_until,
        }
    }

    fn outcome(&self, addresses: &[SocketAddr]) -> Result<Outcome, Failure> {
        let now = self.slot.load();
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
        let pause = self.weigh(failure, now);
        let next = now + pause;
        let stale = self
            .good
            .as_ref()
            .is_some_and(|good| good.fresh_until <= now);
        self.tell_of_failure(&failure.error, pause);
        self.ailing = true;
        self.slot.update(|snapshot| {
            snapshot.timing.next_refresh = Some(next);
            snapshot.last_error = Some(failure.error.clone());
            snapshot.upkeep = if stale { Upkeep::Stale } else { Upkeep::Kept };
            if self.good.is_none() {
                snapshot.outcome = Outcome::Failed(failure.error.clone());
            }
        });
        next
    }

    /// Decides whether the last good answer still holds, and how soon to look again.
    fn weigh(&mut self, failure: &Failure, now: Instant) -> Duration {
        match failure.class {
            Class::Unavailable => {
                self.unanswered = self.unanswered.saturating_add(1);
                self.good
                    .take_if(|good| now >= good.v4_until.max(good.v6_until));
                schedule::back_off(self.unanswered)
            }
            Class::Absent { ttl } => {
                self.unanswered = 0;
                if self.good.is_some() && !self.doubted {
                    self.doubted = true;
                    return schedule::confirm();
                }
                self.good = None;
                schedule::negative(ttl)
            }
            Class::Forbidden => {
                self.unanswered = 0;
                self.good = None;
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

    fn tell_of(&self, outcome: &Outcome, partial: Option<&ResolveError>) {
        let service = &self.question.service;
        let before = self.slot.load();
        let is_same = match (&before.outcome, outcome) {
            (Outcome::One(before), Outcome::One(now)) => before == now,
            (Outcome::Spread(before), Outcome::Spread(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        let addresses = Addresses(outcome);
        match &before.outcome {
            _ if is_same && !self.ailing => {}
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

    fn tell_of_failure(&self, error: &ResolveError, pause: Duration) {
        let service = &self.question.service;
        let lost = self.good.is_none() && self.slot.load().outcome.is_usable();
        if lost || !self.ailing {
            let kept = self.good.is_some();
            let error_type = error.kind();
            tracing::warn!(%service, %error, %error_type, kept, retry_in = ?pause, "cannot resolve");
        } else {
            tracing::debug!(%service, %error, retry_in = ?pause, "still cannot resolve");
        }
    }
}

/// For events.
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
