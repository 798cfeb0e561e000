//! One attempt of a request, counted by the circuit breaker of its upstream.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mesh_ingress_core::Error;
use tokio::time::Instant;

use super::{Exchange, Reply};
use crate::breaker::{Admission, Breaker, Change, Rejected};
use crate::pool::Pool;

/// An exchange whose outcome is counted, if the upstream has a circuit breaker.
pub(super) struct Attempt {
    exchange: Exchange,
    counted: Option<Counted>,
}

struct Counted {
    pool: Arc<Pool>,
    breaker: Arc<Breaker>,
    admission: Admission,
}

impl Attempt {
    /// Begins an exchange, unless the circuit breaker rejects it.
    pub(super) fn begin(
        pool: &Arc<Pool>,
        exchange: impl FnOnce() -> Result<Exchange, Error>,
    ) -> Result<Self, Error> {
        let counted = match &pool.breaker {
            None => None,
            Some(breaker) => Some(Counted {
                admission: breaker
                    .admit(Instant::now())
                    .map_err(Rejected::into_error)?,
                pool: Arc::clone(pool),
                breaker: Arc::clone(breaker),
            }),
        };
        let exchange = exchange()?;
        Ok(Self { exchange, counted })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        if self.counted.is_none() {
            // Returned in place: `outcome` below is a copy.
            return self.exchange.poll(cx);
        }
        let outcome = ready!(self.exchange.poll(cx));
        if let Some(counted) = self.counted.take() {
            counted.record(&outcome);
        }
        Poll::Ready(outcome)
    }
}

impl Counted {
    fn record(self, outcome: &Reply) {
        let upstream = self.pool.addr;
        let change = self.breaker.record(self.admission, outcome, Instant::now());
        match change {
            Some(Change::Opened(penalty)) => {
                tracing::warn!(%upstream, ?penalty, "upstream failed repeatedly, circuit opened");
            }
            Some(Change::Closed) => tracing::info!(%upstream, "upstream recovered, circuit closed"),
            None => {}
        }
    }
}
