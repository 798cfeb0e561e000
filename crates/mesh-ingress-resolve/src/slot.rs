//! The atomic snapshot that requests read and resolvers write.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use mesh_ingress_core::Upstream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ResolveError;
use crate::spread::Spread;

/// Where the answers of one target are put. Written by one resolver, read by every request.
pub(crate) struct Slot {
    current: ArcSwap<Snapshot>,
    /// The [`Snapshot::revision`] of the current one, zero for none. Beside the way there, so that
    /// who only wants to know whether all is as it was need not go it.
    revision: AtomicU64,
    changed: Arc<Notify>,
    /// Held while both are replaced. Readers do not wait for it.
    updating: Mutex<()>,
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
    all(not(feature = "hickory"), not(test)),
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
        let snapshot = Snapshot {
            outcome,
            upkeep,
            generation: 0,
            timing: Timing::default(),
            last_error: None,
        };
        Arc::new(Self {
            revision: AtomicU64::new(snapshot.revision()),
            current: ArcSwap::from_pointee(snapshot),
            changed: Arc::new(Notify::new()),
            updating: Mutex::default(),
        })
    }

    /// A number that changes whenever requests are served differently; `None` if the snapshot must be
    /// looked at.
    pub(crate) fn revision(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.revision.load(Ordering::Acquire))
    }

    /// The hot path: no lock, no reference count.
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Wakes whenever the generation or the upkeep may have changed.
    pub(crate) fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Edits a copy of the snapshot and puts it in place.
    pub(crate) fn update(&self, edit: impl FnOnce(&mut Snapshot)) {
        // Nothing is left half done at any point where a panic could strike.
        let updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let mut next = Snapshot::clone(&before);
        edit(&mut next);
        if !next.outcome.is_same(&before.outcome) {
            next.generation = before.generation.wrapping_add(1);
        }
        let changed = next.generation != before.generation || next.upkeep != before.upkeep;
        let revision = next.revision();
        self.current.store(Arc::new(next));
        // Not before: who finds it finds what it stands for, or something newer.
        self.revision.store(revision, Ordering::Release);
        drop(updating);
        if changed {
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

impl Snapshot {
    /// Zero if each request has to look by itself.
    fn revision(&self) -> u64 {
        match (&self.outcome, self.upkeep) {
            (Outcome::One(_), Upkeep::Kept) => self.generation.wrapping_add(1),
            _ => 0,
        }
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
