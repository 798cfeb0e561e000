//! The state that the exchanges of a forwarder share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mesh_ingress_core::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ForwardError;
use crate::pool::PoolSet;
use crate::settings::Settings;
use crate::upgrade::Tunnels;

/// Shared by all clones of a forwarder, and by the exchanges that they began.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pools: PoolSet,
    pub(crate) tunnels: Tunnels,
    /// A permit for each request in flight, if there is a limit.
    pub(crate) in_flight: Option<Arc<Semaphore>>,
    /// Whether the maintenance task runs.
    pub(crate) maintained: AtomicBool,
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> Self {
        let max_in_flight = settings.max_in_flight;
        Self {
            in_flight: max_in_flight
                .map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)))),
            tunnels: Tunnels::new(settings.tunnels),
            pools: PoolSet::new(settings),
            maintained: AtomicBool::new(false),
        }
    }

    /// A permit for one more request in flight; `None` if there is no limit.
    ///
    /// # Errors
    /// `connection_limit_reached` at the limit.
    pub(crate) fn in_flight_permit(&self) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let Some(in_flight) = &self.in_flight else {
            return Ok(None);
        };
        let permit = Arc::clone(in_flight).try_acquire_owned();
        let max = self.pools.settings.max_in_flight.unwrap_or_default();
        permit
            .map(Some)
            .map_err(|_| ForwardError::InFlight { max }.into_error())
    }
}
