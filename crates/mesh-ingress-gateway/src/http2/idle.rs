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
