//! Getting a connection for one request: waiting in the queue for it, or opening one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_core::Error;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use super::limits::LimitedPool as _;
use super::queue::Waiter;
use super::{Pool, PooledConnection, dial};
use crate::error::ForwardError;

/// How long a dial may take before another begins beside it. Only if one connection serves many
/// requests (HTTP/2): kube-proxy may choose a better pod for the second.
const HEDGE_DELAY: Duration = Duration::from_millis(500);

/// Resolves to a connection of a pool. Dropped, it leaves the queue.
pub(crate) struct Checkout {
    pool: Arc<Pool>,
    state: State,
}

enum State {
    /// Not in the queue yet: to join it takes a runtime.
    Unqueued,
    Queued {
        waiter: Waiter<PooledConnection>,
        timer: Option<QueueTimer>,
    },
    /// Opens a connection for this request alone, outside of the queue.
    Dialing(Pin<Box<dyn Future<Output = Result<PooledConnection, Error>> + Send>>),
    Done,
}

/// Fires for the next hedged dial and for the timeout of the request, whichever is first.
struct QueueTimer {
    sleep: Pin<Box<Sleep>>,
    since: Instant,
    timeout_at: Option<Instant>,
}

impl Checkout {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let state = State::Unqueued;
        Self { pool, state }
    }

    /// For a request whose connections were closed under it too often: opens a connection that was
    /// never used, unless all that are allowed are in use.
    pub(crate) fn fresh(pool: Arc<Pool>) -> Self {
        let state = match pool.permit_for_fresh() {
            Some(permit) => {
                let pool = Arc::clone(&pool);
                State::Dialing(Box::pin(async move { dial::open(&pool, permit).await }))
            }
            None => State::Unqueued,
        };
        Self { pool, state }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<PooledConnection, Error>> {
        loop {
            match &mut self.state {
                State::Unqueued => match self.enqueue() {
                    Ok(state) => self.state = state,
                    Err(error) => {
                        self.state = State::Done;
                        return Poll::Ready(Err(error));
                    }
                },
                State::Queued { waiter, timer } => {
                    let Poll::Ready(offered) = Pin::new(waiter).poll(cx) else {
                        let timer = timer.as_mut();
                        let timed_out =
                            timer.map_or(Poll::Pending, |timer| timer.poll(&self.pool, cx));
                        let error = ready!(timed_out);
                        self.cancel();
                        return Poll::Ready(Err(error));
                    };
                    self.state = State::Done;
                    // The pool, and with it the sender, lives as long as this checkout.
                    return Poll::Ready(offered.unwrap_or_else(|_| Err(self.pool.limit_reached())));
                }
                State::Dialing(opened) => {
                    let opened = ready!(opened.as_mut().poll(cx));
                    self.state = State::Done;
                    // The other streams of the new connection serve waiting requests.
                    self.pool.serve();
                    return Poll::Ready(opened);
                }
                State::Done => return Poll::Pending,
            }
        }
    }

    fn enqueue(&self) -> Result<State, Error> {
        let pool = &self.pool;
        let runtime = Handle::try_current().map_err(|_| ForwardError::NoRuntime.into_error())?;
        let waiter = pool.join(runtime).ok_or_else(|| pool.limit_reached())?;
        // A connection may have become idle before this request was in the queue.
        pool.serve();
        pool.dial_for_waiting();
        let since = Instant::now();
        let settings = &pool.settings;
        // The connect timeout applies to a request with a dial of its own. A request that shares a
        // dial, or may lose its dial to another, may take as long as both timeouts.
        let timeout = if pool.is_starved() {
            settings.queue_timeout
        } else if pool.is_multiplexed() || pool.is_limited() {
            let both = settings.connect.timeout.zip(settings.queue_timeout);
            both.map(|(connect, queue)| connect + queue)
        } else {
            None
        };
        let timeout_at = timeout.map(|timeout| since + timeout);
        let hedge_at = pool.is_multiplexed().then(|| since + HEDGE_DELAY);
        let first = match (timeout_at, hedge_at) {
            (Some(timeout), Some(hedge)) => Some(timeout.min(hedge)),
            (timeout, hedge) => timeout.or(hedge),
        };
        let timer = first.map(|first| QueueTimer {
            sleep: Box::pin(tokio::time::sleep_until(first)),
            since,
            timeout_at,
        });
        Ok(State::Queued { waiter, timer })
    }

    /// Leaves the queue. A connection that was handed over just now goes to the next request.
    fn cancel(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Done);
        let State::Queued { mut waiter, .. } = state else {
            return;
        };
        waiter.close();
        if let Ok(Ok(connection)) = waiter.try_recv() {
            self.pool.offer(connection);
        }
        self.pool.abort_surplus_dials();
    }
}

impl QueueTimer {
    fn poll(&mut self, pool: &Arc<Pool>, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.timeout_at.is_some_and(|at| at <= now) {
                let waited = now - self.since;
                return Poll::Ready(pool.queue_timeout(waited));
            }
            pool.hedge(HEDGE_DELAY);
            let next = now + HEDGE_DELAY;
            let next = self.timeout_at.map_or(next, |at| at.min(next));
            self.sleep.as_mut().reset(next);
        }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.cancel();
    }
}
