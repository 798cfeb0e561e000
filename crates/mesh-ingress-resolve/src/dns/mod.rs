//! Resolving Services through cluster DNS, in the background.

mod builder;
mod cache_entry;
mod cause;
mod client;
mod lookup;
mod message;
#[cfg(test)]
mod mock_name_server;
mod options;
mod question;
mod refresh_loop;
mod refresh_task;
mod resolv_conf;
mod schedule;
mod servers;
mod state;
mod transport;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mesh_ingress_core::{ClusterDomain, ServiceRef};
use tokio::sync::Semaphore;

use self::builder::Settings;
pub use self::builder::{BuildError, ClusterDnsBuilder};
use self::client::Client;
pub use self::options::{ExternalNames, Headless, IpFamilies};
use self::question::Question;
use self::refresh_task::RefreshTask;
use self::state::Stats;
pub use self::state::{Counters, TargetState};
use crate::snapshot_cell::{Outcome, RefreshState, SnapshotCell};
use crate::watch::Target;
use crate::{Resolve, Watch};

/// How many targets may be asked for at once. Each question holds a socket or two: a gateway with
/// a thousand routes that starts, or meets a dead name server, must not use up its descriptors.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

/// Resolves Services through cluster DNS.
///
/// For each target one task asks in the background, ahead of the TTL, and puts the answer where a
/// [`Watch`] reads it. Requests never wait for DNS, except the first request for a
/// target.
///
/// Cheap to clone; clones share their targets: two watches of one service are fed by one task.
/// The task starts with [`watch`](Self::watch) if that is called inside a Tokio runtime, else with
/// the first request, and ends with the last clone of the watch. The runtime needs I/O and time
/// enabled (`Builder::enable_all`). Should a runtime end before its watches do, another one that
/// uses them takes over.
///
/// # What is asked
///
/// One absolute name, `web.default.svc.cluster.local.` with the dot, so that neither `ndots:5` nor
/// a search list makes other names of it: one question for each record type and refresh. Neither
/// `/etc/hosts` nor the `search` and `options` lines of `resolv.conf` are used.
///
/// * a port given by number: A and AAAA, see [`IpFamilies`];
/// * a port given by name: SRV `_port._tcp.…` (Kubernetes DNS specification §2.3.2), and A and AAAA
///   only if the answer does not bring the addresses along.
///
/// # When it goes wrong
///
/// A name server that does not answer, or answers SERVFAIL or REFUSED, makes the next one in the
/// list be asked, and the one that answers stays the first choice. If none does, the last good
/// answer is used on, for up to [`max_stale`](ClusterDnsBuilder::max_stale) after its TTL, while the
/// question is repeated after 100 ms, 200 ms and so on up to 5 s. Without a good answer, requests
/// fail at once with what is known: `dns_error` or `dns_timeout`.
///
/// NXDOMAIN and NODATA are answers. After a good one they are believed only when a second question,
/// about a second later, says the same: name servers that start are known to be wrong for a moment,
/// and an address that is no longer this Service's may soon be another's. They are asked again
/// within 5 s, whatever their TTL.
#[derive(Clone)]
pub struct ClusterDns(Arc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    client: Arc<Client>,
    stats: Arc<Stats>,
    permits: Arc<Semaphore>,
    targets: Mutex<Targets>,
}

/// The targets that are watched. Locked when routes are built, never by a request.
#[derive(Default)]
struct Targets {
    by_service: HashMap<ServiceRef, Weak<Target>>,
    /// At this many targets, those without a watch are removed.
    prune_at: usize,
}

impl ClusterDns {
    /// Asks the name servers of `/etc/resolv.conf`, with the defaults of
    /// [`builder`](Self::builder).
    ///
    /// # Errors
    /// When the file cannot be read or has no name server in it.
    pub fn from_system() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// Starts with the defaults, which suit a pod.
    pub fn builder() -> ClusterDnsBuilder {
        ClusterDnsBuilder::default()
    }

    /// The address of a service, now and as it changes. For when routes are built: it locks.
    #[must_use]
    pub fn watch(&self, service: &ServiceRef) -> Watch {
        let watch = {
            let mut targets = self.targets();
            let known = targets.by_service.get(service).and_then(Watch::upgrade);
            known.unwrap_or_else(|| {
                let watch = self.new_watch(service);
                targets.insert(service.clone(), watch.downgrade());
                watch
            })
        };
        // Outside a runtime the first request will start it.
        let _ = watch.start();
        watch
    }

    /// The zone in which names are asked.
    #[must_use]
    pub fn domain(&self) -> &ClusterDomain {
        &self.0.settings.domain
    }

    /// The state of every watched target, sorted by service. For a status page
    /// or a log, not for requests.
    #[must_use]
    pub fn snapshot(&self) -> Vec<TargetState> {
        let watches: Vec<Watch> = self
            .targets()
            .by_service
            .values()
            .filter_map(Watch::upgrade)
            .collect();
        let mut states: Vec<_> = watches
            .iter()
            .map(|watch| TargetState::of(watch, self.domain()))
            .collect();
        states.sort_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// The counters since this was built, over all targets.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.stats.counters()
    }

    fn from_parts(settings: Settings, client: Client, stats: Arc<Stats>) -> Self {
        Self(Arc::new(Shared {
            settings: Arc::new(settings),
            client: Arc::new(client),
            stats,
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_LOOKUPS)),
            targets: Mutex::default(),
        }))
    }

    fn new_watch(&self, service: &ServiceRef) -> Watch {
        let cell = SnapshotCell::new(Outcome::Pending, RefreshState::Stopped);
        let refresh = RefreshTask::new(
            Arc::clone(&self.0.client),
            Arc::new(Question::new(service, &self.0.settings.domain)),
            Arc::clone(&self.0.settings),
            Arc::clone(&cell),
            Arc::clone(&self.0.stats),
            Arc::clone(&self.0.permits),
        );
        Watch::new(
            service.clone(),
            cell,
            self.0.settings.resolve_timeout,
            Some(Box::new(refresh)),
        )
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.0
            .targets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Targets {
    fn insert(&mut self, service: ServiceRef, target: Weak<Target>) {
        if self.by_service.len() >= self.prune_at {
            self.by_service
                .retain(|_, target| target.strong_count() > 0);
            // Doubling keeps the cost of this in proportion to the number of inserts.
            self.prune_at = (2 * self.by_service.len()).max(64);
        }
        self.by_service.insert(service, target);
    }
}

impl Resolve for ClusterDns {
    fn watch(&self, service: &ServiceRef) -> Watch {
        self.watch(service)
    }
}

impl fmt::Debug for ClusterDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterDns")
            .field("settings", &self.0.settings)
            .field("client", &self.0.client)
            .field("targets", &self.targets().by_service.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwatched_targets_are_removed() {
        let server = "10.96.0.10:53".parse().unwrap();
        let dns = ClusterDns::builder().nameserver(server).build().unwrap();
        let held: Vec<_> = (0..100)
            .map(|index| dns.watch(&format!("held{index}.default:80").parse().unwrap()))
            .collect();
        for index in 0..10_000 {
            drop(dns.watch(&format!("dropped{index}.default:80").parse().unwrap()));
        }
        assert!(dns.targets().by_service.len() <= 4 * held.len());
        assert_eq!(dns.snapshot().len(), held.len());
    }
}
