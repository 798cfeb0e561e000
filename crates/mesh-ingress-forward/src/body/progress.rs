//! When a request body moved.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How far a request body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// A piece has come; the upstream has not asked for the next.
    FromClient,
    /// The upstream wants the next piece, and the client has not sent it.
    Awaited,
    /// All of it has come.
    Finished,
}

/// When a request body last moved.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    /// Milliseconds after `started`, shifted to make room for how it moved.
    moved: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            moved: AtomicU64::new(0),
        }
    }
}

impl Progress {
    pub(crate) fn note(&self, moved: Moved) {
        let (millis, before) = unpack(self.moved.load(Ordering::Relaxed));
        // To ask again for what has not come yet is no progress.
        let millis = if moved == Moved::Awaited && before == Moved::Awaited {
            millis
        } else {
            u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2)
        };
        self.moved.store(pack(millis, moved), Ordering::Relaxed);
    }

    /// When the body last moved, and how.
    pub(crate) fn last(&self) -> (Instant, Moved) {
        let (millis, moved) = unpack(self.moved.load(Ordering::Relaxed));
        (self.started + Duration::from_millis(millis), moved)
    }
}

fn pack(millis: u64, moved: Moved) -> u64 {
    millis << 2
        | match moved {
            Moved::FromClient => 0,
            Moved::Awaited => 1,
            Moved::Finished => 2,
        }
}

fn unpack(packed: u64) -> (u64, Moved) {
    let moved = match packed & 3 {
        0 => Moved::FromClient,
        1 => Moved::Awaited,
        _ => Moved::Finished,
    };
    (packed >> 2, moved)
}
