//! How long a connection has had no request.

use std::time::Duration;

use tokio::time::Instant;

/// Knows since when a client has sent no request. It is asked from time to time, so that a request costs
/// nothing here.
#[derive(Debug)]
pub(super) struct IdleTimeout {
    /// `None` is for ever.
    timeout: Option<Duration>,
    since: Instant,
    /// The last stream there was when it was asked.
    last_stream: u32,
}

impl IdleTimeout {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            since: Instant::now(),
            last_stream: 0,
        }
    }

    /// Whether the client has sent no request for too long. `last_stream` is the last one that it has
    /// begun: a stream may have come and gone since this was last asked.
    pub(super) fn is_over(&mut self, now: Instant, any_open: bool, last_stream: u32) -> bool {
        if any_open || last_stream != self.last_stream {
            (self.since, self.last_stream) = (now, last_stream);
            return false;
        }
        self.timeout
            .is_some_and(|timeout| now.duration_since(self.since) >= timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_and_past_streams_restart_the_timeout() {
        const TIMEOUT: Duration = Duration::from_secs(60);
        let mut idle = IdleTimeout::new(Some(TIMEOUT));
        let begin = Instant::now();
        let mut at = |seconds, any_open, last| {
            idle.is_over(begin + Duration::from_secs(seconds), any_open, last)
        };
        assert!(!at(50, false, 0));
        assert!(at(61, false, 0));
        // A stream has come and gone.
        assert!(!at(70, false, 1));
        assert!(!at(129, false, 1));
        // A stream that lasts.
        for seconds in (140..1000).step_by(20) {
            assert!(!at(seconds, true, 3), "{seconds}");
        }
        assert!(!at(1039, false, 3));
        assert!(at(1040, false, 3));
    }

    #[test]
    fn without_a_timeout_a_client_may_stay() {
        let mut idle = IdleTimeout::new(None);
        assert!(!idle.is_over(Instant::now() + Duration::from_secs(1 << 30), false, 0));
    }
}
