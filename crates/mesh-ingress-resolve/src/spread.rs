//! One of several addresses, fairly, without those that just failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mesh_ingress_core::Upstream;
use tokio::time::Instant;

use crate::watch::Pick;

/// For how long an address is left alone after it failed, times the number of failures in a row.
const EJECTION: Duration = Duration::from_secs(10);
/// More failures in a row than this do not make it longer: a minute at most.
const MOST_EJECTIONS: u32 = 6;

/// How one of several addresses is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Of two at random the one with fewer requests outstanding ("power of two choices"): fair to
    /// slow addresses, without the herd that always taking the least loaded makes.
    ///
    /// A request is outstanding until its [`InFlight`] is dropped.
    LeastOutstanding,
}

/// A choice of addresses. The counters of an address outlive the set it came with.
#[derive(Debug)]
pub(crate) struct Spread {
    // Apart, so that there always is one.
    first: Arc<Backend>,
    all: Box<[Arc<Backend>]>,
    next: AtomicUsize,
    balance: Balance,
}

/// One address and how it fares.
#[derive(Debug)]
pub(crate) struct Backend {
    upstream: Upstream,
    outstanding: AtomicUsize,
    failures: AtomicU32,
    born: Instant,
    /// In milliseconds after birth; 0 while it is well.
    ejected_until: AtomicU64,
}

/// A request on its way to one of several addresses: a request extension, there only under
/// [`Balance::LeastOutstanding`].
///
/// The address counts as busy until the last clone is dropped. [`ServiceUpstream`] holds one until
/// the response's head is there; a forwarder that moves it into the response's body makes long
/// downloads count, too.
///
/// [`ServiceUpstream`]: crate::ServiceUpstream
#[derive(Clone, Debug)]
pub struct InFlight {
    _counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted(Arc<Backend>);

impl Spread {
    /// `None` if there are no addresses. Those that `before` had, too, keep their counters.
    pub(crate) fn new(
        addresses: &[SocketAddr],
        balance: Balance,
        before: Option<&Self>,
    ) -> Option<Self> {
        let all: Box<[_]> = addresses
            .iter()
            .map(|address| {
                before
                    .and_then(|before| before.backend(*address))
                    .map_or_else(|| Arc::new(Backend::new(*address)), Arc::clone)
            })
            .collect();
        let first = Arc::clone(all.first()?);
        Some(Self {
            first,
            // Else every restart of a gateway would begin with the same address.
            next: AtomicUsize::new(fastrand::usize(..)),
            all,
            balance,
        })
    }

    pub(crate) fn balance(&self) -> Balance {
        self.balance
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|backend| backend.upstream.addr())
    }

    pub(crate) fn backend(&self, address: SocketAddr) -> Option<&Arc<Backend>> {
        self.all
            .iter()
            .find(|backend| backend.upstream.addr() == address)
    }

    /// Chooses an address. Allocates nothing.
    pub(crate) fn pick(&self) -> &Arc<Backend> {
        let chosen = match self.balance {
            Balance::RoundRobin => self.at(self.next.fetch_add(1, Ordering::Relaxed)),
            Balance::LeastOutstanding => self.less_busy(),
        };
        if chosen.is_well() {
            return chosen;
        }
        // If none is well, the failures are not theirs: then all are tried.
        let from = fastrand::usize(..self.all.len());
        (0..self.all.len())
            .map(|step| self.at(from + step))
            .find(|backend| backend.is_well())
            .unwrap_or(chosen)
    }

    fn less_busy(&self) -> &Arc<Backend> {
        let count = self.all.len();
        if count < 2 {
            return &self.first;
        }
        let one = fastrand::usize(..count);
        // Distinct from the first, and each of the others equally likely.
        let other = (one + 1 + fastrand::usize(..count - 1)) % count;
        let (one, other) = (self.at(one), self.at(other));
        match (one.is_well(), other.is_well()) {
            (true, false) => one,
            (false, true) => other,
            _ if other.outstanding() < one.outstanding() => other,
            _ => one,
        }
    }

    fn at(&self, index: usize) -> &Arc<Backend> {
        self.all.get(index % self.all.len()).unwrap_or(&self.first)
    }
}

impl Backend {
    fn new(address: SocketAddr) -> Self {
        Self {
            upstream: Upstream::new(address),
            outstanding: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            born: Instant::now(),
            ejected_until: AtomicU64::new(0),
        }
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(crate) fn is_well(&self) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        // The clock is read only for the few that failed.
        until == 0 || until <= self.age()
    }

    pub(crate) fn failed(&self) {
        // Requests that were already under way to it say nothing new.
        if !self.is_well() {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let pause = EJECTION * failures.min(MOST_EJECTIONS);
        let until = self.age().saturating_add(millis(pause)).max(1);
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    pub(crate) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    fn age(&self) -> u64 {
        millis(self.born.elapsed())
    }
}

impl InFlight {
    /// Counts a request, where that decides about the next.
    pub(crate) fn of(pick: &Pick) -> Option<Self> {
        match &pick.backend {
            Some(backend) if pick.counted => Some(Self::new(Arc::clone(backend))),
            _ => None,
        }
    }

    fn new(backend: Arc<Backend>) -> Self {
        backend.outstanding.fetch_add(1, Ordering::Relaxed);
        Self {
            _counted: Arc::new(Counted(backend)),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count)
            .map(|n| SocketAddr::from(([10, 0, 0, n], 80)))
            .collect()
    }

    fn spread(count: u8, balance: Balance) -> Spread {
        Spread::new(&addresses(count), balance, None).unwrap()
    }

    fn count(spread: &Spread, picks: usize) -> HashMap<SocketAddr, usize> {
        let mut counts = HashMap::new();
        for _ in 0..picks {
            *counts.entry(spread.pick().upstream().addr()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn nothing_to_spread_over() {
        assert!(Spread::new(&[], Balance::RoundRobin, None).is_none());
    }

    #[test]
    fn round_robin_is_even() {
        let counts = count(&spread(3, Balance::RoundRobin), 300);
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [100; 3]);
    }

    #[test]
    fn the_turn_may_wrap_around() {
        let spread = spread(3, Balance::RoundRobin);
        spread.next.store(usize::MAX - 1, Ordering::Relaxed);
        assert_eq!(count(&spread, 9).len(), 3);
    }

    #[test]
    fn the_busier_of_two_is_left_alone() {
        let spread = spread(2, Balance::LeastOutstanding);
        let [first, second] = addresses(2)[..] else {
            unreachable!()
        };
        let busy = InFlight::new(Arc::clone(spread.backend(first).unwrap()));
        assert_eq!(count(&spread, 50), HashMap::from([(second, 50)]));
        let busier: Vec<_> = (0..2)
            .map(|_| InFlight::new(Arc::clone(spread.backend(second).unwrap())))
            .collect();
        assert_eq!(count(&spread, 50), HashMap::from([(first, 50)]));
        drop((busy, busier));
        assert!(spread.all.iter().all(|backend| backend.outstanding() == 0));
        assert_eq!(count(&spread, 200).len(), 2, "equal ones share");
    }

    #[test]
    fn one_address_is_always_the_choice() {
        for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
            let spread = spread(1, balance);
            spread.pick().failed();
            assert_eq!(count(&spread, 10).len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_is_left_alone_for_a_while() {
        for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
            let spread = spread(3, balance);
            let bad = addresses(3)[1];
            spread.backend(bad).unwrap().failed();
            assert!(!count(&spread, 100).contains_key(&bad));
            tokio::time::advance(EJECTION).await;
            assert!(count(&spread, 100).contains_key(&bad));
            // The second failure in a row counts double; a success forgives all.
            spread.backend(bad).unwrap().failed();
            tokio::time::advance(EJECTION).await;
            assert!(!count(&spread, 100).contains_key(&bad));
            spread.backend(bad).unwrap().succeeded();
            assert!(count(&spread, 100).contains_key(&bad));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_failures_at_once_are_one() {
        let spread = spread(2, Balance::RoundRobin);
        let backend = spread.backend(addresses(2)[0]).unwrap();
        for _ in 0..50 {
            backend.failed();
        }
        tokio::time::advance(EJECTION).await;
        assert!(backend.is_well());
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_failed_all_are_tried() {
        for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
            let spread = spread(3, balance);
            for backend in &spread.all {
                backend.failed();
            }
            assert_eq!(count(&spread, 300).len(), 3);
        }
    }

    #[test]
    fn counters_outlive_a_change_of_the_set() {
        let before = spread(3, Balance::RoundRobin);
        let kept = addresses(3)[2];
        before.backend(kept).unwrap().failed();
        let after = Spread::new(&addresses(4)[2..], Balance::RoundRobin, Some(&before)).unwrap();
        assert!(!after.backend(kept).unwrap().is_well());
        assert_eq!(after.addresses().count(), 2);
    }
}
