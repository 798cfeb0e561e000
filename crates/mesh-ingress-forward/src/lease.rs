//! The right to send one request: on a connection of its own, or on a stream of a shared one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_core::Error;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::error::Failure;
use crate::pool::Pool;
use crate::waiting::Turn;
use crate::{dial, h1, h2};

/// What a request is sent on.
pub(crate) enum Lease {
    Http1(Box<h1::Connection>),
    Http2(h2::Stream),
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}

/// How long a connection under way may take before another is begun beside it. Only where many
/// wait for one (HTTP/2): kube-proxy may choose a better pod for the second.
const HEDGE: Duration = Duration::from_millis(500);

/// A place in the queue for a lease. Dropped, it gives the place up.
pub(crate) struct Ticket {
    pool: Arc<Pool>,
    place: Place,
}

enum Place {
    /// Not in the queue yet: that takes a runtime.
    Outside,
    Inside {
        turn: Turn,
        timer: Option<Timer>,
    },
    /// Not in the queue at all: it opens a connection of its own.
    Beside(Pin<Box<dyn Future<Output = Result<Lease, Error>> + Send>>),
    Served,
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    since: Instant,
    due: Option<Instant>,
}

impl Ticket {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let place = Place::Outside;
        Self { pool, place }
    }

    /// For a request that has met too many connections on their way out: one that has never been
    /// used, unless all that are allowed are in use at this moment.
    pub(crate) fn for_fresh(pool: Arc<Pool>) -> Self {
        let place = match pool.permit_for_fresh() {
            Some(permit) => {
                let pool = Arc::clone(&pool);
                Place::Beside(Box::pin(async move { dial::open(&pool, permit).await }))
            }
            None => Place::Outside,
        };
        Self { pool, place }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Lease, Error>> {
        loop {
            match &mut self.place {
                Place::Outside => match self.enter() {
                    Ok(place) => self.place = place,
                    Err(error) => {
                        self.place = Place::Served;
                        return Poll::Ready(Err(error));
                    }
                },
                Place::Inside { turn, timer } => {
                    let Poll::Ready(turn) = Pin::new(turn).poll(cx) else {
                        let timer = timer.as_mut();
                        let overdue =
                            timer.map_or(Poll::Pending, |timer| timer.poll(&self.pool, cx));
                        let error = ready!(overdue);
                        self.leave();
                        return Poll::Ready(Err(error));
                    };
                    self.place = Place::Served;
                    // A pool lives as long as those who wait in it: the sender is not lost.
                    return Poll::Ready(turn.unwrap_or_else(|_| Err(self.pool.limit_reached())));
                }
                Place::Beside(opened) => {
                    let opened = ready!(opened.as_mut().poll(cx));
                    self.place = Place::Served;
                    // Its further streams.
                    self.pool.serve();
                    return Poll::Ready(opened);
                }
                Place::Served => return Poll::Pending,
            }
        }
    }

    fn enter(&self) -> Result<Place, Error> {
        let pool = &self.pool;
        let runtime = Handle::try_current().map_err(|_| Failure::NoRuntime.into_error())?;
        let turn = pool.join(runtime).ok_or_else(|| pool.limit_reached())?;
        // Something may have become idle before we were in the queue.
        pool.serve();
        pool.dial_for_waiting();
        let since = Instant::now();
        let settings = &pool.settings;
        // Who dials is bound by the time that connecting may take, and whoever shares in a dial or
        // may lose his to another, by both times.
        let timeout = if pool.is_short() {
            settings.queue_timeout
        } else if pool.shares() || pool.is_bounded() {
            let both = settings.connect_timeout.zip(settings.queue_timeout);
            both.map(|(connect, queue)| connect + queue)
        } else {
            None
        };
        let due = timeout.map(|timeout| since + timeout);
        let hedge = pool.shares().then(|| since + HEDGE);
        let first = match (due, hedge) {
            (Some(due), Some(hedge)) => Some(due.min(hedge)),
            (due, hedge) => due.or(hedge),
        };
        let timer = first.map(|first| Timer {
            sleep: Box::pin(tokio::time::sleep_until(first)),
            since,
            due,
        });
        Ok(Place::Inside { turn, timer })
    }

    fn leave(&mut self) {
        let place = std::mem::replace(&mut self.place, Place::Served);
        let Place::Inside { mut turn, .. } = place else {
            return;
        };
        turn.close();
        if let Ok(Ok(lease)) = turn.try_recv() {
            self.pool.hand(lease);
        }
        self.pool.call_off();
    }
}

impl Timer {
    fn poll(&mut self, pool: &Arc<Pool>, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.due.is_some_and(|due| due <= now) {
                let waited = now - self.since;
                return Poll::Ready(pool.waited_too_long(waited));
            }
            pool.hedge(HEDGE);
            let next = now + HEDGE;
            let next = self.due.map_or(next, |due| due.min(next));
            self.sleep.as_mut().reset(next);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}
