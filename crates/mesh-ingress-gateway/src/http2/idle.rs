//! How long there has been no request.

use std::time::Duration;

use tokio::time::Instant;

/// Knows since when a client has asked for nothing. It is told from time to time, so that a request
/// costs nothing here.
#[derive(Debug)]
pub(super) struct Idle {
    /// `None` lets it be idle for ever.
    max: Option<Duration>,
    since: Instant,
    /// The last stream there was when it was told.
    last: u32,
}

impl Idle {
    pub(super) fn new(max: Option<Duration>) -> Self {
        Self {
            max,
            since: Instant::now(),
            last: 0,
        }
    }

    /// Whether there has been no request for so long that the client is let go. `last` is the number
    /// of the last stream that it has begun: one may have come and gone unseen.
    pub(super) fn is_over(&mut self, now: Instant, any_open: bool, last: u32) -> bool {
        if any_open || last != self.last {
            (self.since, self.last) = (now, last);
            return false;
        }
        self.max
            .is_some_and(|max| now.duration_since(self.since) >= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_or_has_come_and_gone_counts() {
        const MAX: Duration = Duration::from_secs(60);
        let mut idle = Idle::new(Some(MAX));
        let begin = Instant::now();
        let mut at = |seconds, any_open, last| {
            idle.is_over(begin + Duration::from_secs(seconds), any_open, last)
        };
        assert!(!at(50, false, 0));
        assert!(at(61, false, 0));
        // It has come and gone since then.
        assert!(!at(70, false, 1));
        assert!(!at(129, false, 1));
        // One that lasts.
        for seconds in (140..1000).step_by(20) {
            assert!(!at(seconds, true, 3), "{seconds}");
        }
        assert!(!at(1039, false, 3));
        assert!(at(1040, false, 3));
    }

    #[test]
    fn without_a_bound_nobody_is_let_go() {
        let mut idle = Idle::new(None);
        assert!(!idle.is_over(Instant::now() + Duration::from_secs(1 << 30), false, 0));
    }
}
