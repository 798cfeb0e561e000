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

/// Holds the current snapshot of one target. Written by one resolver, read by every request.
pub(crate) struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    /// The [`Snapshot::revision`] of the current snapshot, zero for none. Stored beside the pointer, so
    /// that a reader learns whether anything has changed without following it.
    revision: AtomicU64,
    changed: Arc<Notify>,
    /// Held while both are replaced. Readers do not wait for it.
    updating: Mutex<()>,
}

/// The state of a target at one moment. Replaced as a whole, never edited. The fields that requests
/// read come first, to share a cache line.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Snapshot {
    pub(crate) outcome: Outcome,
    pub(crate) refresh_state: RefreshState,
    /// Grows with each new outcome; the same for a mere refresh of the same answer.
    pub(crate) generation: u64,
    pub(crate) timing: Timing,
    /// The last error, until a lookup succeeds.
    pub(crate) last_error: Option<ResolveError>,
}

#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Pending,
    One(Upstream),
    Spread(Arc<Spread>),
    Failed(ResolveError),
}

/// How the background refresh of a target stands, and so whether a reader has more to do than to take
/// the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    all(not(feature = "hickory"), not(test)),
    expect(dead_code, reason = "only refreshed answers grow old")
)]
pub(crate) enum RefreshState {
    /// The outcome is kept fresh, or needs no refresh.
    Active,
    /// Refreshing goes on but fails, and the answer has outlived its TTL.
    Stale,
    /// No task refreshes it; the next reader inside a runtime starts one.
    Stopped,
}

/// When the addresses were resolved, expire and are refreshed.
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

impl SnapshotCell {
    pub(crate) fn new(outcome: Outcome, refresh_state: RefreshState) -> Arc<Self> {
        let snapshot = Snapshot {
            outcome,
            refresh_state,
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

    /// Wakes whenever the generation or the refresh state may have changed.
    pub(crate) fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    /// Edits a copy of the snapshot and puts it in place.
    pub(crate) fn update(&self, edit: impl FnOnce(&mut Snapshot)) {
        // A poisoned lock is fine: no panic can leave an update half done.
        let updating = self.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let mut next = Snapshot::clone(&before);
        edit(&mut next);
        if !next.outcome.is_same(&before.outcome) {
            next.generation = before.generation.wrapping_add(1);
        }
        let changed =
            next.generation != before.generation || next.refresh_state != before.refresh_state;
        let revision = next.revision();
        self.current.store(Arc::new(next));
        // After the snapshot: a reader of this revision finds its snapshot, or a newer one.
        self.revision.store(revision, Ordering::Release);
        drop(updating);
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// Removes an answer that is too old to be used.
    pub(crate) fn expire(&self, now: Instant) {
        let is_expired = |snapshot: &Snapshot| {
            snapshot.outcome.is_usable()
                && snapshot.timing.usable_until.is_some_and(|end| end <= now)
        };
        if is_expired(&self.load()) {
            self.update(|snapshot| {
                if is_expired(snapshot) {
                    snapshot.outcome = Outcome::Pending;
                }
            });
        }
    }
}

impl fmt::Debug for SnapshotCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current.load().fmt(f)
    }
}

impl Snapshot {
    /// Zero if each request has to look by itself.
    fn revision(&self) -> u64 {
        match (&self.outcome, self.refresh_state) {
            (Outcome::One(_), RefreshState::Active) => self.generation.wrapping_add(1),
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
            (Self::Failed(a), Self::Failed(b)) => a.is_equivalent(b),
            _ => false,
        }
    }

    pub(crate) fn is_usable(&self) -> bool {
        matches!(self, Self::One(_) | Self::Spread(_))
    }
}
