//! Clients that cause more work than they have themselves.

use std::time::Instant;

/// How many of its own requests a client may cancel or spoil, beyond those that it lets be answered:
/// nghttp2's number.
const MAX_RESETS: u32 = 1000;
/// How many of these are forgiven each second: nghttp2's number.
const FORGIVEN_PER_SECOND: u32 = 33;
/// Frames in a row that carry nothing.
const MAX_EMPTY: u32 = 1000;

/// Counts what costs a client nothing: rapid reset (CVE-2023-44487), empty frames (CVE-2019-9518).
#[derive(Debug)]
pub(super) struct ResetBudget {
    used: u32,
    /// Resets before this time have been forgiven.
    since: Instant,
    empty: u32,
}

/// The budget is used up: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

impl ResetBudget {
    pub(super) fn new() -> Self {
        Self {
            used: 0,
            since: Instant::now(),
            empty: 0,
        }
    }

    /// A request has ended before its response, by the client's doing.
    pub(super) fn on_reset(&mut self) -> Result<(), Exceeded> {
        self.used += 1;
        if self.used <= MAX_RESETS {
            return Ok(());
        }
        let forgiven = self.since.elapsed().as_secs_f64() * f64::from(FORGIVEN_PER_SECOND);
        if forgiven < 1.0 {
            return Err(Exceeded);
        }
        self.since = Instant::now();
        self.used = self.used.saturating_sub(forgiven as u32);
        Ok(())
    }

    /// A response has been sent.
    pub(super) fn on_response(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// A frame has come that carries nothing.
    pub(super) fn on_empty_frame(&mut self) -> Result<(), Exceeded> {
        self.empty += 1;
        match self.empty > MAX_EMPTY {
            true => Err(Exceeded),
            false => Ok(()),
        }
    }

    /// A frame has come that carries something.
    pub(super) fn on_useful_frame(&mut self) {
        self.empty = 0;
    }
}
