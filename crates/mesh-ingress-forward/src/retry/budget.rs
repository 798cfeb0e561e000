//! How many retries an upstream can bear.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::RetryPolicy;

/// The window is divided into this many buckets of one second.
const SECONDS: usize = 10;

/// Allows retries as a share of the requests of the last ten seconds.
///
/// Each upstream has its own: otherwise a failing upstream uses up the budget of a healthy one. It
/// has no lock: a request costs one addition.
#[derive(Debug)]
pub(crate) struct Budget {
    started: Instant,
    percent: u64,
    min_retries: u64,
    requests: Window,
    retries: Window,
}

/// Counts events of the last seconds.
///
/// A bucket has the number of its second in the upper half and a count in the lower. The sum of the
/// current buckets is exact unless a thread sleeps for ten seconds in the middle of an addition.
#[derive(Debug, Default)]
struct Window([AtomicU64; SECONDS]);

impl Budget {
    pub(crate) fn new(policy: &RetryPolicy, now: Instant) -> Self {
        Self {
            started: now,
            percent: policy.budget_percent.into(),
            min_retries: policy.min_retries.into(),
            requests: Window::default(),
            retries: Window::default(),
        }
    }

    /// Counts a new request.
    pub(crate) fn deposit(&self, now: Instant) {
        self.requests.add(self.second(now));
    }

    /// Takes one retry out of the budget, if there is one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        // Counted before it is compared: of two threads, at least one sees both retries.
        self.retries.add(second);
        let earned = self.requests.sum(second).saturating_mul(self.percent) / 100;
        let granted = self.retries.sum(second) <= earned.max(self.min_retries);
        if !granted {
            self.retries.undo(second);
        }
        granted
    }

    /// The number of the second `now` is in. Wraps after 136 years.
    fn second(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.started);
        u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
    }
}

impl Window {
    fn add(&self, second: u32) {
        let Some(bucket) = self.bucket(second) else {
            return;
        };
        let mut seen = bucket.load(Ordering::SeqCst);
        // A late addition counts in the bucket's next second.
        while second_of(seen) < second {
            let fresh = u64::from(second) << 32 | 1;
            match bucket.compare_exchange_weak(seen, fresh, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
        bucket.fetch_add(1, Ordering::SeqCst);
    }

    /// Undoes an [`add`](Self::add) of the same second.
    fn undo(&self, second: u32) {
        let Some(bucket) = self.bucket(second) else {
            return;
        };
        // A bucket of a later second has no such addition any more.
        let less = |seen| (second_of(seen) == second).then(|| seen.saturating_sub(1));
        let _ = bucket.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }

    fn sum(&self, second: u32) -> u64 {
        self.0
            .iter()
            .map(|bucket| bucket.load(Ordering::SeqCst))
            .filter(|&seen| {
                // Another thread may be in the next second already.
                let age = i64::from(second) - i64::from(second_of(seen));
                age < SECONDS as i64
            })
            .map(|seen| seen & u64::from(u32::MAX))
            .sum()
    }

    fn bucket(&self, second: u32) -> Option<&AtomicU64> {
        self.0.get(second as usize % SECONDS)
    }
}

fn second_of(bucket: u64) -> u32 {
    (bucket >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    fn budget(percent: u32, min_retries: u32) -> (Budget, Instant) {
        let now = Instant::now();
        let policy = RetryPolicy::builder()
            .budget(percent)
            .min_retries(min_retries);
        (Budget::new(&policy.build().unwrap(), now), now)
    }

    fn drain(budget: &Budget, now: Instant) -> usize {
        (0..100_000).take_while(|_| budget.withdraw(now)).count()
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let (budget, now) = budget(20, 0);
        assert!(!budget.withdraw(now));
        for _ in 0..999 {
            budget.deposit(now);
        }
        assert_eq!(drain(&budget, now), 199);
        budget.deposit(now);
        assert_eq!(drain(&budget, now), 1);
    }

    #[test]
    fn min_retries_do_not_add_to_the_share() {
        let (budget, now) = budget(20, 10);
        assert_eq!(drain(&budget, now), 10);
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert_eq!(drain(&budget, now), 10);
    }

    #[test]
    fn min_retries_are_per_window() {
        let (budget, start) = budget(0, 10);
        assert_eq!(drain(&budget, start), 10);
        assert_eq!(drain(&budget, after(start, 9_999)), 0);
        assert_eq!(drain(&budget, after(start, 10_000)), 10);
        // Long after, it is no more than that.
        assert_eq!(drain(&budget, after(start, 3_600_000)), 10);
    }

    #[test]
    fn requests_count_within_the_window_only() {
        let (budget, start) = budget(100, 0);
        budget.deposit(start);
        budget.deposit(after(start, 5_000));
        assert!(budget.withdraw(after(start, 9_999)));
        // The retry counts against the remaining request, until the window has passed.
        assert!(!budget.withdraw(after(start, 10_000)));
        budget.deposit(after(start, 12_000));
        assert!(budget.withdraw(after(start, 12_500)));
        assert!(!budget.withdraw(after(start, 12_600)));
    }

    #[test]
    fn refused_retries_are_not_counted() {
        let (budget, start) = budget(50, 0);
        for _ in 0..1000 {
            assert!(!budget.withdraw(start));
        }
        budget.deposit(after(start, 1_000));
        budget.deposit(after(start, 1_000));
        assert!(budget.withdraw(after(start, 1_000)));
    }

    #[test]
    fn earlier_time_is_harmless() {
        let (budget, start) = budget(0, 2);
        assert!(budget.withdraw(after(start, 3_000)));
        assert!(budget.withdraw(start.checked_sub(Duration::from_secs(1)).unwrap_or(start)));
        assert!(!budget.withdraw(after(start, 3_000)));
    }

    #[test]
    fn concurrent_retries_never_exceed_the_budget() {
        let (budget, start) = budget(20, 0);
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (budget, granted) = (&budget, &granted);
                scope.spawn(move || {
                    for request in 0..5_000 {
                        // All within one window, across its buckets.
                        let now = after(start, request);
                        budget.deposit(now);
                        for _ in 0..=thread {
                            if budget.withdraw(now) {
                                granted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(budget.requests.sum(5), 20_000);
        let granted = granted.into_inner();
        assert!(granted <= 4_000, "{granted}");
        // Concurrent refusals may refuse one too many; none of the budget is lost.
        assert_eq!(granted + drain(&budget, after(start, 5_000)), 4_000);
    }
}
