//! The progress of a request body.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The last step of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyStep {
    /// A frame has come; the upstream connection has not polled for the next.
    FromClient,
    /// The upstream connection polls for the next frame, and the client has not sent it.
    Awaited,
    /// The whole body has come.
    Finished,
}

/// The last step of a request body, and when it was.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    /// Milliseconds after `started`, and the step in the two lowest bits.
    packed: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            packed: AtomicU64::new(0),
        }
    }
}

impl Progress {
    pub(crate) fn note(&self, step: BodyStep) {
        let (millis, before) = unpack(self.packed.load(Ordering::Relaxed));
        // Polling again for the same frame is no progress.
        let millis = if step == BodyStep::Awaited && before == BodyStep::Awaited {
            millis
        } else {
            u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2)
        };
        self.packed.store(pack(millis, step), Ordering::Relaxed);
    }

    /// When the last step was, and which.
    pub(crate) fn last(&self) -> (Instant, BodyStep) {
        let (millis, step) = unpack(self.packed.load(Ordering::Relaxed));
        (self.started + Duration::from_millis(millis), step)
    }
}

fn pack(millis: u64, step: BodyStep) -> u64 {
    millis << 2
        | match step {
            BodyStep::FromClient => 0,
            BodyStep::Awaited => 1,
            BodyStep::Finished => 2,
        }
}

fn unpack(packed: u64) -> (u64, BodyStep) {
    let step = match packed & 3 {
        0 => BodyStep::FromClient,
        1 => BodyStep::Awaited,
        _ => BodyStep::Finished,
    };
    (packed >> 2, step)
}
