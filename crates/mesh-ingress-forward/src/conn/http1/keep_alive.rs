//! Whether, and how long, a connection is kept between requests.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;

impl<G> Connection<G> {
    /// Whether it could carry another request now. Reads from the socket to find out whether the
    /// upstream has closed it, or has sent bytes that belong to no response.
    pub(crate) fn is_usable(&mut self, now: Instant) -> bool {
        // The exchange to come polls the timer soon. With a thousand connections in use both the
        // timer and the fields below come from memory: fetched together, they cost one wait.
        self.timer.prefetch();
        self.is_worth_keeping(now) && self.stream.is_quiet()
    }

    /// A request is about to be sent on it: the timeouts of the exchange count from here.
    pub(crate) fn use_from(&mut self, now: Instant) {
        self.since = now;
    }

    /// The part of [`is_usable`](Self::is_usable) that needs no system call.
    pub(crate) fn is_worth_keeping(&self, now: Instant) -> bool {
        self.keep_alive
            && self.writer.is_done()
            && self.body.is_complete()
            && self.read_buf.bytes().is_empty()
            && self.tls.is_current()
            && self.requests_left > 0
            && self.retire_at.is_none_or(|at| now < at)
    }

    /// Frees memory that an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.read_buf.reset();
    }

    /// Whether it has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// The generation of its pool when it was opened.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The idle list it goes back to.
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    /// How long it has been idle.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Marks it as idle from now on.
    pub(crate) fn park(&mut self, now: Instant) {
        self.reused = true;
        self.since = now;
    }
}
