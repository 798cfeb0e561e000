//! The sending half of a [`Watch`](crate::Watch), for resolvers of other crates.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_ingress_core::{ErrorKind, Upstream};
use tokio::time::Instant;

use crate::snapshot_cell::{Outcome, SnapshotCell};
use crate::spread::Spread;
use crate::{Balance, ResolveError};

/// Feeds a [`Watch`](crate::Watch), for a resolver of your own. Made by [`Watch::channel`](crate::Watch::channel).
///
/// Dropping it leaves the last answer in place; if there is none yet, waiting requests fail.
#[derive(Debug)]
pub struct WatchSender(Arc<SnapshotCell>);

impl WatchSender {
    pub(crate) fn new(cell: Arc<SnapshotCell>) -> Self {
        Self(cell)
    }

    /// The service has this address now.
    pub fn send(&self, upstream: Upstream) {
        self.put(&Outcome::One(upstream));
    }

    /// The service has several addresses, and requests are to be spread over them. Those it had
    /// before keep their counters. No addresses is a failure.
    pub fn send_spread(&self, addresses: &[SocketAddr], balance: Balance) {
        let before = self.0.load();
        let before = match &before.outcome {
            Outcome::Spread(spread) => Some(&**spread),
            _ => None,
        };
        match Spread::new(addresses, balance, before) {
            Some(spread) => self.put(&Outcome::Spread(Arc::new(spread))),
            None => self.fail(ResolveError::new(
                ErrorKind::DestinationUnavailable,
                "the service has no addresses",
            )),
        }
    }

    /// The service cannot be resolved. Requests fail with this until the next answer.
    pub fn fail(&self, error: ResolveError) {
        self.put(&Outcome::Failed(error));
    }

    fn put(&self, outcome: &Outcome) {
        self.0.update(|snapshot| {
            snapshot.outcome = outcome.clone();
            match outcome {
                Outcome::Failed(error) => snapshot.last_error = Some(error.clone()),
                _ => {
                    snapshot.last_error = None;
                    snapshot.timing.resolved = Some(Instant::now());
                }
            }
        });
    }
}

impl Drop for WatchSender {
    fn drop(&mut self) {
        if matches!(self.0.load().outcome, Outcome::Pending) {
            self.fail(ResolveError::new(
                ErrorKind::DnsError,
                "the resolver of this service went away before it had an answer",
            ));
        }
    }
}
