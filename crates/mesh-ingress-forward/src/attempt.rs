//! One try of a request, and what it tells of its upstream.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use mesh_ingress_core::Error;
use tokio::time::Instant;

use crate::body::ResponseBody;
use crate::breaker::{Admission, Breaker, Change, Rejected};
use crate::exchange::Exchange;
use crate::pool::Pool;

type Reply = Result<Response<ResponseBody>, Error>;

/// An exchange whose outcome is counted, where failures are.
pub(crate) struct Attempt {
    exchange: Exchange,
    counted: Option<Counted>,
}

struct Counted {
    pool: Arc<Pool>,
    breaker: Arc<Breaker>,
    admission: Admission,
}

impl Attempt {
    /// Begins an exchange, unless its upstream is left alone at this moment.
    pub(crate) fn begin(
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

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        if self.counted.is_none() {
            // What is not looked at is not copied.
            return self.exchange.poll(cx);
        }
        let outcome = ready!(self.exchange.poll(cx));
        if let Some(counted) = self.counted.take() {
            counted.settle(&outcome);
        }
        Poll::Ready(outcome)
    }
}

impl Counted {
    fn settle(self, outcome: &Reply) {
        let upstream = self.pool.addr;
        let change = self.breaker.settle(self.admission, outcome, Instant::now());
        match change {
            Some(Change::Opened(penalty)) => {
                tracing::warn!(%upstream, ?penalty, "upstream failed repeatedly and is left alone");
            }
            Some(Change::Closed) => tracing::info!(%upstream, "upstream is well again"),
            None => {}
        }
    }
}
