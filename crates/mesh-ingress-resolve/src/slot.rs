//! The atomic snapshot that requests read and resolvers write.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use mesh_ingress_core::Upstream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ResolveError;
use crate::spread::Spread;

/// Where the answers of one target are put. Written by one resolver, read by every request.
pub(crate) struct Slot {
    current: ArcSwap<Snapshot>,
    changed: Arc<Notify>,
}

/// All that is known of a target at one moment. Replaced as a whole, never edited. What requests look
/// at comes first, and is together therefore.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Snapshot {
    pub(crate) outcome: Outcome,
    pub(crate) upkeep: Upkeep,
    /// Grows with each new outcome; the same for a mere refresh of the same answer.
    pub(crate) generation: u64,
    pub(crate) timing: Timing,
    /// The last thing that went wrong, until something goes right again.
    pub(crate) last_error: Option<ResolveError>,
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Pending,
    One(Upstream),
    Spread(Arc<Spread>),
    Failed(ResolveError),
}

/// Whether a reader has to do more than to take the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "hickory"),
    expect(dead_code, reason = "only refreshed answers grow old")
)]
pub(crate) enum Upkeep {
    /// Somebody keeps it fresh.
    Kept,
    /// Somebody tries to, without success: the answer has outlived its time.
    Stale,
    /// Nobody does; the next reader inside a runtime is to start it.
    Stopped,
}

/// When things happened and will.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(
    not(feature = "hickory"),
    expect(dead_code, reason = "only refreshed answers grow old")
)]
pub(crate) struct Timing {
    /// When the addresses were last confirmed.
    pub(crate) resolved: Option<Instant>,
    /// Until when they are fresh.
    pub(crate) fresh_until: Option<Instant>,
    /// Until when they may be used if nothing better is to be had.
    pub(crate) usable_until: Option<Instant>,
    /// When they will be asked for again.
    pub(crate) next_refresh: Option<Instant>,
}

impl Slot {
    pub(crate) fn new(outcome: Outcome, upkeep: Upkeep) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Snapshot {
                outcome,
                upkeep,
                generation: 0,
                timing: Timing::default(),
                last_error: None,
            }),
            changed: Arc::new(Notify::new()),
        })
    }

    /// The hot path: no lock, no reference count.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Wakes whenever the generation or the upkeep may have changed.
    pub(crate) fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Edits a copy of the snapshot and puts it in place. The edit may run more than once.
    pub(crate) fn update(&self, edit: impl Fn(&mut Snapshot)) {
        let before = self.current.rcu(|current| {
            let mut next = Snapshot::clone(current);
            edit(&mut next);
            if !next.outcome.is_same(&current.outcome) {
                next.generation = current.generation.wrapping_add(1);
            } else if let Outcome::One(upstream) = &current.outcome {
                // Not one that is equal: whoever keeps something by it need not look into it.
                next.outcome = Outcome::One(upstream.clone());
            }
            next
        });
        let now = self.current.load();
        if now.generation != before.generation || now.upkeep != before.upkeep {
            self.changed.notify_waiters();
        }
    }

    /// Takes an answer away that is too old to be used.
    pub(crate) fn expire(&self, now: Instant) {
        let is_over = |snapshot: &Snapshot| {
            snapshot.outcome.is_usable()
                && snapshot.timing.usable_until.is_some_and(|end| end <= now)
        };
        if is_over(&self.load()) {
            self.update(|snapshot| {
                if is_over(snapshot) {
                    snapshot.outcome = Outcome::Pending;
                }
            });
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current.load().fmt(f)
    }
}

impl Outcome {
    /// Whether a request would be served the same.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pending, Self::Pending) => true,
            (Self::One(a), Self::One(b)) => a == b,
            (Self::Spread(a), Self::Spread(b)) => Arc::ptr_eq(a, b),
            (Self::Failed(a), Self::Failed(b)) => a.says_the_same(b),
            _ => false,
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        matches!(self, Self::One(_) | Self::Spread(_))
    }
}
