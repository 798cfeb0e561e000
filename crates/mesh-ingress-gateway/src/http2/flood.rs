//! Clients that cause more work than they have themselves.

use std::time::Instant;

/// How many of its own requests a client may give up, or spoil, beyond those that it lets be
/// answered: nghttp2's number.
const DEBT: u32 = 1000;
/// How much of that is forgiven each second: nghttp2's number.
const FORGIVEN: u32 = 33;
/// Frames in a row that bring nothing.
const EMPTY: u32 = 1000;

/// Counts what costs a client nothing (CVE-2023-44487, CVE-2019-9518).
#[derive(Debug)]
pub(super) struct Flood {
    debt: u32,
    /// What was before has been forgiven.
    since: Instant,
    empty: u32,
}

/// The client is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flooded;

impl Flood {
    pub(super) fn new() -> Self {
        Self {
            debt: 0,
            since: Instant::now(),
            empty: 0,
        }
    }

    /// A request has ended before its answer, by the client's doing.
    pub(super) fn spoilt(&mut self) -> Result<(), Flooded> {
        self.debt += 1;
        if self.debt <= DEBT {
            return Ok(());
        }
        let forgiven = self.since.elapsed().as_secs_f64() * f64::from(FORGIVEN);
        if forgiven < 1.0 {
            return Err(Flooded);
        }
        self.since = Instant::now();
        self.debt = self.debt.saturating_sub(forgiven as u32);
        Ok(())
    }

    /// A request has been answered.
    pub(super) fn answered(&mut self) {
        self.debt = self.debt.saturating_sub(1);
    }

    /// A frame has come that brings nothing.
    pub(super) fn empty(&mut self) -> Result<(), Flooded> {
        self.empty += 1;
        match self.empty > EMPTY {
            true => Err(Flooded),
            false => Ok(()),
        }
    }

    /// A frame has come that brings something.
    pub(super) fn useful(&mut self) {
        self.empty = 0;
    }
}
