//! Whether, and how long, a connection is kept between requests.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;

impl Connection {
    /// Whether it could carry another request now. Looks for what the upstream may have sent
    /// meanwhile: its end, or octets that belong to nothing.
    pub(crate) fn is_usable(&mut self, now: Instant) -> bool {
        // Whoever uses it looks at its timer soon. Where a thousand connections are in use, that comes
        // from memory, as does what is looked at here: it comes at the same time.
        self.timer.prefetch();
        self.is_worth_keeping(now) && self.stream.is_quiet()
    }

    /// A request is going to be sent on it now. The time-outs of that count from here.
    pub(crate) fn use_from(&mut self, now: Instant) {
        self.since = now;
    }

    /// Whether it is worth a look later, as far as can be told without one now.
    pub(crate) fn is_worth_keeping(&self, now: Instant) -> bool {
        self.keep_alive
            && self.sending.is_done()
            && self.body.is_complete()
            && self.read_buf.bytes().is_empty()
            && self.session.is_current()
            && self.requests_left > 0
            && self.retire_at.is_none_or(|at| now < at)
    }

    /// Gives memory back that is not needed while nothing is sent.
    pub(crate) fn rest(&mut self) {
        self.read_buf.reset();
    }

    /// Whether it has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// How often its pool had been drained when it was opened.
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// The thread that opened it, as a number.
    pub(crate) fn home(&self) -> usize {
        self.home
    }

    /// How long it has been idle.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Marks the begin of a pause.
    pub(crate) fn park(&mut self, now: Instant) {
        self.reused = true;
        self.since = now;
    }
}
