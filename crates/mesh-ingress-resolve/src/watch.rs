//! The address of one target, as requests see it.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use mesh_ingress_core::{Error, ServiceRef, Upstream};
use tokio::time::Instant;

use crate::slot::{Outcome, Slot, Snapshot, Upkeep};
use crate::spread::Backend;
use crate::{Balance, Changes, Ready, ResolveError, WatchSender};

/// How long a request waits for a target's first answer unless its resolver says otherwise.
pub(crate) const DEFAULT_RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The address of one target, kept up to date by whoever resolves it.
///
/// Made once a target, when routes are built, by [`Resolve::watch`](crate::Resolve::watch); cheap
/// to clone. Requests call [`get`](Self::get), which is one atomic load and a reference count:
/// name resolution itself is not on their path. When the last clone is dropped, resolving stops.
///
/// ```
/// use mesh_ingress_core::{ServiceRef, Upstream};
/// use mesh_ingress_resolve::Watch;
///
/// let web: ServiceRef = "web.default:80".parse()?;
/// let (sender, watch) = Watch::channel(web);
/// assert!(watch.get().is_none(), "no answer yet");
/// sender.send(Upstream::new("10.96.0.7:80".parse()?));
/// assert_eq!(watch.get().unwrap()?.addr().port(), 80);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Watch {
    /// That of the target, without the way there.
    slot: Arc<Slot>,
    target: Arc<Target>,
}

/// What the clones of a watch share. Dropping the last drops the keeper, which stops the work.
pub(crate) struct Target {
    service: ServiceRef,
    slot: Arc<Slot>,
    resolve_timeout: Duration,
    keeper: Option<Box<dyn Keep>>,
}

/// Tells one answer of a [`Watch`] from the next: see [`Watch::revision`]. Of different watches it
/// tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(NonZeroU64);

/// Whoever keeps a slot fresh in the background. Called off the hot path only.
pub(crate) trait Keep: fmt::Debug + Send + Sync {
    /// Starts keeping, if nobody does.
    fn start(&self) -> Result<(), ResolveError>;
    /// Asks for a refresh soon: the present address does not work.
    fn nudge(&self);
    /// An answer that has outlived its time was used.
    fn served_stale(&self);
}

/// What one request is given.
#[derive(Debug)]
pub(crate) struct Pick {
    pub(crate) upstream: Upstream,
    /// Where its outcome is noted, if there are several addresses.
    pub(crate) backend: Option<Arc<Backend>>,
    /// Whether the number of requests under way decides about the next.
    pub(crate) counted: bool,
}

impl Watch {
    /// An address that never changes.
    #[must_use]
    pub fn fixed(service: ServiceRef, upstream: Upstream) -> Self {
        let slot = Slot::new(Outcome::One(upstream), Upkeep::Kept);
        Self::new(service, slot, DEFAULT_RESOLVE_TIMEOUT, None)
    }

    /// An address that is fed by the sender. Requests wait at most two seconds for the first.
    #[must_use]
    pub fn channel(service: ServiceRef) -> (WatchSender, Self) {
        let slot = Slot::new(Outcome::Pending, Upkeep::Kept);
        let sender = WatchSender::new(Arc::clone(&slot));
        (
            sender,
            Self::new(service, slot, DEFAULT_RESOLVE_TIMEOUT, None),
        )
    }

    pub(crate) fn new(
        service: ServiceRef,
        slot: Arc<Slot>,
        resolve_timeout: Duration,
        keeper: Option<Box<dyn Keep>>,
    ) -> Self {
        Self::of(Arc::new(Target {
            service,
            slot,
            resolve_timeout,
            keeper,
        }))
    }

    fn of(target: Arc<Target>) -> Self {
        Self {
            slot: Arc::clone(&target.slot),
            target,
        }
    }

    /// The target.
    #[must_use]
    pub fn service(&self) -> &ServiceRef {
        &self.target.service
    }

    /// Where to send the next request, if that is known: one atomic load and one reference count,
    /// no lock, and no allocation unless it is an error.
    ///
    /// `None` until there is a first answer; [`ready`](Self::ready) waits for it. If there are
    /// several addresses to spread over, each call gives the next.
    #[must_use]
    pub fn get(&self) -> Option<Result<Upstream, Error>> {
        self.pick().map(|pick| pick.map(|pick| pick.upstream))
    }

    /// What changes whenever the address that [`get`](Self::get) gives does: for those who keep
    /// something by the address, a pool for example. One atomic load, which costs less than `get`.
    ///
    /// Ask for it before `get`, not after: if the address changes in between, it is the next look
    /// that tells. `None` means that `get` is to be asked each time: it gives one of several
    /// addresses, an error or nothing, or it has to see to an answer that nobody keeps fresh.
    ///
    /// ```
    /// use mesh_ingress_core::{ServiceRef, Upstream};
    /// use mesh_ingress_resolve::Watch;
    ///
    /// let web: ServiceRef = "web.default:80".parse()?;
    /// let (sender, watch) = Watch::channel(web);
    /// assert!(watch.revision().is_none(), "no answer yet");
    /// sender.send(Upstream::new("10.96.0.7:80".parse()?));
    /// let seen = watch.revision();
    /// sender.send(Upstream::new("10.96.0.7:80".parse()?));
    /// assert!(seen.is_some() && watch.revision() == seen);
    /// sender.send(Upstream::new("10.96.0.8:80".parse()?));
    /// assert!(watch.revision() != seen);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.slot.revision().map(Revision)
    }

    /// Whether requests are spread over several addresses, and reports of their outcome decide over
    /// which.
    #[must_use]
    pub fn is_spread(&self) -> bool {
        matches!(self.slot.load().outcome, Outcome::Spread(_))
    }

    /// How long ago the address was last confirmed; `None` if it never was, or is fixed.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let resolved = self.slot.load().timing.resolved?;
        Some(Instant::now().saturating_duration_since(resolved))
    }

    /// Waits for the first answer, good or bad, for at most the resolver's resolve timeout (two
    /// seconds by default). Later requests do not wait: they have [`get`](Self::get).
    pub fn ready(&self) -> Ready {
        Ready::new(self.clone())
    }

    /// Follows the changes of the address, for those who keep something by it: a connection pool,
    /// a readiness probe. The present answer is the first change.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(self.clone())
    }

    /// Tells that nothing could be reached at an address that this watch gave out. One of several
    /// is left alone for a while (10 s, longer if it keeps failing); of a single one a fresh
    /// answer is asked for, at most once a second.
    ///
    /// [`ServiceUpstream`](crate::ServiceUpstream) does this by itself.
    pub fn report_failure(&self, address: SocketAddr) {
        if let Outcome::Spread(spread) = &self.slot.load().outcome
            && let Some(backend) = spread.backend(address)
        {
            backend.failed();
        }
        if let Some(keeper) = &self.target.keeper {
            keeper.nudge();
        }
    }

    /// Tells that an address works: ends its being left alone.
    pub fn report_success(&self, address: SocketAddr) {
        if let Outcome::Spread(spread) = &self.slot.load().outcome
            && let Some(backend) = spread.backend(address)
        {
            backend.succeeded();
        }
    }

    pub(crate) fn pick(&self) -> Option<Result<Pick, Error>> {
        let mut snapshot = self.slot.load();
        if snapshot.upkeep != Upkeep::Kept {
            self.look_after(&snapshot);
            snapshot = self.slot.load();
        }
        match &snapshot.outcome {
            Outcome::Pending => None,
            Outcome::One(upstream) => Some(Ok(Pick {
                upstream: upstream.clone(),
                backend: None,
                counted: false,
            })),
            Outcome::Spread(spread) => {
                let backend = spread.pick();
                Some(Ok(Pick {
                    upstream: backend.upstream().clone(),
                    backend: Some(Arc::clone(backend)),
                    counted: spread.balance() == Balance::LeastOutstanding,
                }))
            }
            Outcome::Failed(error) => Some(Err(error.clone().into())),
        }
    }

    /// What a reader has to do when all is not well.
    #[cold]
    fn look_after(&self, snapshot: &Snapshot) {
        let Some(keeper) = &self.target.keeper else {
            return;
        };
        let now = Instant::now();
        if snapshot.upkeep == Upkeep::Stopped {
            // Without a runtime an old answer is better than none, while it lasts.
            self.slot.expire(now);
            let _ = keeper.start();
        }
        if snapshot.outcome.is_usable() && snapshot.timing.fresh_until.is_some_and(|end| end <= now)
        {
            keeper.served_stale();
        }
    }

    /// Sees to it that an answer can come.
    pub(crate) fn start(&self) -> Result<(), ResolveError> {
        match &self.target.keeper {
            Some(keeper) if self.slot.load().upkeep == Upkeep::Stopped => keeper.start(),
            _ => Ok(()),
        }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn resolve_timeout(&self) -> Duration {
        self.target.resolve_timeout
    }

    #[cfg(feature = "hickory")]
    pub(crate) fn downgrade(&self) -> std::sync::Weak<Target> {
        Arc::downgrade(&self.target)
    }

    #[cfg(feature = "hickory")]
    pub(crate) fn upgrade(target: &std::sync::Weak<Target>) -> Option<Self> {
        target.upgrade().map(Self::of)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("service", &self.target.service)
            .field("snapshot", &self.slot)
            .finish()
    }
}

#[cfg(test)]
mod tests;
