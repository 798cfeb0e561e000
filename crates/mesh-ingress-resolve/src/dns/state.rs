//! The observable state of the resolver: targets and counters.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_ingress_core::{ClusterDomain, ServiceRef};
use tokio::time::Instant;

use crate::snapshot_cell::Outcome;
use crate::{ResolveError, Watch};

/// The state of one target at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetState {
    /// The target.
    pub service: ServiceRef,
    /// The name that is asked for, as it goes on the wire.
    pub name: String,
    /// The addresses in use, in the order they are tried; empty while there are none.
    pub addresses: Vec<SocketAddr>,
    /// How long ago they were last confirmed.
    pub age: Option<Duration>,
    /// Whether they have outlived their TTL, because no name server confirms them.
    pub stale: bool,
    /// The last error, until a lookup succeeds.
    pub last_error: Option<ResolveError>,
    /// When they are asked for again; `None` during a refresh, or while no task refreshes them.
    pub next_refresh: Option<Duration>,
}

/// Counters over all targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Questions put to a name server. Repetitions of a lost datagram are not counted.
    pub queries: u64,
    /// Targets looked up, with whatever result.
    pub refreshes: u64,
    /// Targets looked up without getting an address.
    pub failures: u64,
    /// Requests that were given addresses that had outlived their TTL.
    pub stale_served: u64,
    /// Addresses that the address policy refused.
    pub prohibited: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) queries: Counter,
    pub(super) refreshes: Counter,
    pub(super) failures: Counter,
    pub(super) stale_served: Counter,
    pub(super) prohibited: Counter,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: usize) {
        self.0
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            queries: self.queries.get(),
            refreshes: self.refreshes.get(),
            failures: self.failures.get(),
            stale_served: self.stale_served.get(),
            prohibited: self.prohibited.get(),
        }
    }
}

impl TargetState {
    pub(super) fn of(watch: &Watch, domain: &ClusterDomain) -> Self {
        let now = Instant::now();
        let service = watch.service();
        let snapshot = watch.cell().load();
        let addresses = match &snapshot.outcome {
            Outcome::One(upstream) => upstream.addresses().to_vec(),
            Outcome::Spread(spread) => spread.addresses().collect(),
            Outcome::Pending | Outcome::Failed(_) => Vec::new(),
        };
        let timing = snapshot.timing;
        Self {
            service: service.clone(),
            name: service
                .srv_name(domain)
                .unwrap_or_else(|| service.dns_name(domain)),
            age: timing
                .resolved
                .map(|resolved| now.saturating_duration_since(resolved)),
            stale: !addresses.is_empty() && timing.fresh_until.is_some_and(|until| until <= now),
            addresses,
            last_error: snapshot.last_error.clone(),
            next_refresh: timing
                .next_refresh
                .and_then(|next| next.checked_duration_since(now)),
        }
    }
}
