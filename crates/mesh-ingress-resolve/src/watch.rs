//! The address of one target, as requests see it.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use mesh_ingress_core::{Error, ServiceRef, Upstream};
use tokio::time::Instant;

use crate::snapshot_cell::{Outcome, RefreshState, Snapshot, SnapshotCell};
use crate::spread::Backend;
use crate::{Balance, Changes, Ready, ResolveError, WatchSender};

/// How long a request waits for a target's first answer unless its resolver says otherwise.
pub(crate) const DEFAULT_RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The address of one target, kept up to date by its resolver.
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
    /// The same as in `target`: reached without a second pointer.
    cell: Arc<SnapshotCell>,
    target: Arc<Target>,
}

/// Shared by the clones of a watch. Dropping the last drops the refresh task, which stops resolving.
pub(crate) struct Target {
    service: ServiceRef,
    cell: Arc<SnapshotCell>,
    resolve_timeout: Duration,
    refresh: Option<Box<dyn Refresh>>,
}

/// Tells one answer of a [`Watch`] from the next: see [`Watch::revision`]. Of different watches it
/// tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(NonZeroU64);

/// Refreshes a cell in the background. Called off the hot path only.
pub(crate) trait Refresh: fmt::Debug + Send + Sync {
    /// Starts refreshing, unless a task already does.
    fn start(&self) -> Result<(), ResolveError>;
    /// Asks for a refresh soon, because the present address does not work.
    fn request_refresh(&self);
    /// Counts the use of an answer that has outlived its TTL.
    fn count_stale(&self);
}

/// The address that one request is given.
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
        let cell = SnapshotCell::new(Outcome::One(upstream), RefreshState::Active);
        Self::new(service, cell, DEFAULT_RESOLVE_TIMEOUT, None)
    }

    /// An address that is fed by the sender. Requests wait at most two seconds for the first.
    #[must_use]
    pub fn channel(service: ServiceRef) -> (WatchSender, Self) {
        let cell = SnapshotCell::new(Outcome::Pending, RefreshState::Active);
        let sender = WatchSender::new(Arc::clone(&cell));
        (
            sender,
            Self::new(service, cell, DEFAULT_RESOLVE_TIMEOUT, None),
        )
    }

    pub(crate) fn new(
        service: ServiceRef,
        cell: Arc<SnapshotCell>,
        resolve_timeout: Duration,
        refresh: Option<Box<dyn Refresh>>,
    ) -> Self {
        Self::of(Arc::new(Target {
            service,
            cell,
            resolve_timeout,
            refresh,
        }))
    }

    fn of(target: Arc<Target>) -> Self {
        Self {
            cell: Arc::clone(&target.cell),
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

    /// The revision of the address that [`get`](Self::get) gives: it changes whenever the address
    /// does, for callers that keep something by the address, such as a pool. One atomic load, which
    /// costs less than `get`.
    ///
    /// Read it before `get`, not after: if the address changes in between, the next read tells.
    /// `None` means that `get` must be called each time: it gives one of several addresses, an error
    /// or nothing, or it has to restart the refresh of an answer.
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
        self.cell.revision().map(Revision)
    }

    /// Whether requests are spread over several addresses, and reports of their outcome decide over
    /// which.
    #[must_use]
    pub fn is_spread(&self) -> bool {
        matches!(self.cell.load().outcome, Outcome::Spread(_))
    }

    /// How long ago the address was last confirmed; `None` if it never was, or is fixed.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let resolved = self.cell.load().timing.resolved?;
        Some(Instant::now().saturating_duration_since(resolved))
    }

    /// Waits for the first answer, good or bad, for at most the resolver's resolve timeout (two
    /// seconds by default). Later requests do not wait: they have [`get`](Self::get).
    pub fn ready(&self) -> Ready {
        Ready::new(self.clone())
    }

    /// Follows the changes of the address, for a connection pool or a readiness probe. The present answer is the first change.
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
        if let Outcome::Spread(spread) = &self.cell.load().outcome
            && let Some(backend) = spread.backend(address)
        {
            backend.failed();
        }
        if let Some(refresh) = &self.target.refresh {
            refresh.request_refresh();
        }
    }

    /// Tells that an address works: ends its being left alone.
    pub fn report_success(&self, address: SocketAddr) {
        if let Outcome::Spread(spread) = &self.cell.load().outcome
            && let Some(backend) = spread.backend(address)
        {
            backend.succeeded();
        }
    }

    pub(crate) fn pick(&self) -> Option<Result<Pick, Error>> {
        let mut snapshot = self.cell.load();
        if snapshot.refresh_state != RefreshState::Active {
            self.handle_stale(&snapshot);
            snapshot = self.cell.load();
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

    /// Restarts a stopped refresh, and counts the use of a stale answer.
    #[cold]
    fn handle_stale(&self, snapshot: &Snapshot) {
        let Some(refresh) = &self.target.refresh else {
            return;
        };
        let now = Instant::now();
        if snapshot.refresh_state == RefreshState::Stopped {
            // Without a runtime an old answer is better than none, while it lasts.
            self.cell.expire(now);
            let _ = refresh.start();
        }
        if snapshot.outcome.is_usable() && snapshot.timing.fresh_until.is_some_and(|end| end <= now)
        {
            refresh.count_stale();
        }
    }

    /// Starts the refresh task if it is stopped.
    pub(crate) fn start(&self) -> Result<(), ResolveError> {
        match &self.target.refresh {
            Some(refresh) if self.cell.load().refresh_state == RefreshState::Stopped => {
                refresh.start()
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn cell(&self) -> &Arc<SnapshotCell> {
        &self.cell
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
            .field("snapshot", &self.cell)
            .finish()
    }
}

#[cfg(test)]
mod tests;
