//! When to look up again.

use std::time::Duration;

/// A negative answer is used for at most this long, so that a Service that is created later is found.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// And for at least this long, whatever its TTL.
const MIN_NEGATIVE_TTL: Duration = Duration::from_secs(1);
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How long after a name turned absent the absence is confirmed by a second lookup.
const ABSENCE_CONFIRMATION: Duration = Duration::from_secs(1);
/// The shortest time between two lookups when requests ask for a refresh.
pub(super) const MIN_REQUESTED_INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer is fresh.
pub(super) fn freshness(ttl: Duration, min: Duration, max: Duration) -> Duration {
    ttl.max(min).min(max)
}

/// When a fresh answer is refreshed: ahead of its end, and not all targets at once.
pub(super) fn refresh(fresh: Duration) -> Duration {
    jitter(fresh, 0.75, 0.95)
}

/// When a negative answer is looked up again.
pub(super) fn negative(ttl: Option<Duration>) -> Duration {
    // Without a SOA an absence should not be remembered (RFC 2308 §5).
    let ttl = ttl.unwrap_or(MIN_NEGATIVE_TTL);
    jitter(ttl.clamp(MIN_NEGATIVE_TTL, MAX_NEGATIVE_TTL), 0.8, 1.0)
}

/// When the absence of a name that just had addresses is confirmed by a second lookup.
pub(super) fn confirm() -> Duration {
    jitter(ABSENCE_CONFIRMATION, 0.8, 1.0)
}

/// When to look up again after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = INITIAL_BACKOFF * 2u32.pow(doublings);
    jitter(pause.min(MAX_BACKOFF), 0.8, 1.2).min(MAX_BACKOFF)
}

fn jitter(duration: Duration, from: f64, to: f64) -> Duration {
    duration.mul_f64(from + fastrand::f64() * (to - from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(5);
    const MAX: Duration = Duration::from_secs(60);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ttl_has_a_floor_and_a_ceiling() {
        assert_eq!(freshness(secs(0), MIN, MAX), MIN);
        assert_eq!(freshness(secs(30), MIN, MAX), secs(30));
        assert_eq!(freshness(secs(u64::from(u32::MAX)), MIN, MAX), MAX);
    }

    #[test]
    fn refresh_is_ahead_of_the_end_and_jittered() {
        let points: Vec<_> = (0..1000).map(|_| refresh(secs(30))).collect();
        assert!(points.iter().all(|at| *at >= secs(22) && *at < secs(29)));
        let (first, last) = (points.iter().min().unwrap(), points.iter().max().unwrap());
        assert!(*last - *first > secs(3), "{first:?}..{last:?}");
    }

    #[test]
    fn negative_answers_last_five_seconds_at_most() {
        for _ in 0..1000 {
            assert!(negative(Some(secs(3600))) <= secs(5));
            assert!(negative(Some(secs(0))) >= Duration::from_millis(800));
            assert!(negative(None) <= secs(1));
        }
    }

    #[test]
    fn back_off_doubles_from_a_tenth_of_a_second_to_five() {
        for _ in 0..1000 {
            let first = backoff(1).as_millis();
            assert!((80..=120).contains(&first), "{first}");
            let fourth = backoff(4).as_millis();
            assert!((640..=960).contains(&fourth), "{fourth}");
            let late = backoff(u32::MAX);
            assert!(late >= secs(4) && late <= secs(5), "{late:?}");
        }
    }
}
