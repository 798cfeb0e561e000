//! Copying between two ends, both ways.
//!
//! Tokio's `copy_bidirectional` holds 16 KiB for a tunnel that nothing goes through, knows no time,
//! and waits for ever for an end that is gone while the other has nothing to say to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::LazyTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::way::{State, Way};

/// How often an end is looked at that nobody reads from, because it has nothing left to say or
/// there is no place for it: that it was reset is to be noticed within a second all the same.
const LOOK: Duration = Duration::from_millis(500);

/// The clock is looked at as often within the time that nothing may move, and not whenever something
/// does: that is noticed a part of it late.
const PARTS: u32 = 8;

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// While both ends are open.
    pub(crate) idle: Option<Duration>,
    /// When one end has ended.
    pub(crate) half_closed: Option<Duration>,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both ends have said all they had to say.
    Complete,
    /// Nothing has moved for too long.
    Idle,
}

/// An end of a tunnel.
pub(crate) trait End: AsyncRead + AsyncWrite + Unpin {
    /// Has it look cut off when it is dropped, if that is not how it looks anyway: whoever is
    /// there must not take what came so far for all there is.
    fn cut_off(&mut self) {}

    /// Writes what was read from the other end, for which the task has paid of its budget.
    fn poll_pass(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, octets)
    }

    /// Pending if a read now would be, and the task is woken when it would not. To be asked after a
    /// read that brought less than it could have. Ready where that is not known.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}

/// Copies both ways until both ends have ended, one has failed, or time is up. Dropped before both
/// have ended, it cuts both off. It is polled by one task, from the first time to the last.
pub(crate) struct Copy<C: End, U: End> {
    client: C,
    upstream: U,
    up: Way,
    down: Way,
    limits: Limits,
    /// When something was last known to have moved, and whether something has since.
    moved_at: Instant,
    has_moved: bool,
    /// When to look at an end that is not read from, if there is one.
    look_at: Option<Instant>,
    timer: LazyTimer,
}

impl<C: End, U: End> Copy<C, U> {
    /// `early` has been read from the upstream already.
    pub(crate) fn new(client: C, upstream: U, early: &[u8], limits: Limits) -> Self {
        Self {
            client,
            upstream,
            up: Way::default(),
            down: Way::new(early),
            limits,
            moved_at: Instant::now(),
            has_moved: false,
            look_at: None,
            timer: LazyTimer::default(),
        }
    }

    /// The same, of the client.
    pub(crate) fn behind(mut self, early: &[u8]) -> Self {
        self.up = Way::new(early);
        self
    }

    /// How many octets have gone to the upstream, and how many to the client.
    pub(crate) fn copied(&self) -> (u64, u64) {
        (self.up.written, self.down.written)
    }

    /// How much memory is held for what has been read.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.up.buffered() + self.down.buffered()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        let Self {
            client,
            upstream,
            up,
            down,
            ..
        } = self;
        let upward = match up.poll_all(cx, client, upstream) {
            Ok(upward) => upward,
            Err(error) => {
                down.pass_on(cx, upstream, client);
                return Poll::Ready(Err(error));
            }
        };
        let downward = match down.poll_all(cx, upstream, client) {
            Ok(downward) => downward,
            Err(error) => {
                up.pass_on(cx, client, upstream);
                return Poll::Ready(Err(error));
            }
        };
        self.has_moved |= upward.has_moved || downward.has_moved;
        if upward.is_over && downward.is_over {
            return Poll::Ready(Ok(Ended::Complete));
        }
        if upward.goes_on || downward.goes_on {
            // After others of this thread.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_time(cx)
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            let idle = self.limit().and_then(|limit| {
                let limit = if self.has_moved { limit / PARTS } else { limit };
                self.moved_at.checked_add(limit)
            });
            if self.up.is_read() && self.down.is_read() {
                self.look_at = None;
            } else if self.look_at.is_none() {
                self.look_at = Some(Instant::now() + LOOK);
            }
            let due = match (idle, self.look_at) {
                (Some(idle), Some(look)) => idle.min(look),
                (Some(due), None) | (None, Some(due)) => due,
                (None, None) => return Poll::Pending,
            };
            ready!(self.timer.poll_in_task(cx, due));
            let now = Instant::now();
            if idle.is_some_and(|idle| idle <= now) {
                if !self.has_moved {
                    return Poll::Ready(Ok(Ended::Idle));
                }
                self.moved_at = now;
                self.has_moved = false;
            }
            if self.look_at.is_some_and(|look| look <= now) {
                self.look_at = None;
                self.look(cx)?;
            }
        }
    }

    /// How long nothing may move from now on.
    fn limit(&self) -> Option<Duration> {
        let Limits { idle, half_closed } = self.limits;
        if self.up.state == State::Open && self.down.state == State::Open {
            return idle;
        }
        match (idle, half_closed) {
            (Some(idle), Some(half_closed)) => Some(idle.min(half_closed)),
            (idle, half_closed) => half_closed.or(idle),
        }
    }

    /// Fails if an end that is not read from is found to be gone.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.up.is_read() {
            look(cx, &mut self.client, self.down.state)?;
        }
        if !self.down.is_read() {
            look(cx, &mut self.upstream, self.up.state)?;
        }
        Ok(())
    }
}

impl<C: End, U: End> Drop for Copy<C, U> {
    fn drop(&mut self) {
        if (self.up.state, self.down.state) != (State::Ended, State::Ended) {
            self.client.cut_off();
            self.upstream.cut_off();
        }
    }
}

/// Fails if `end` is gone; `state` is that of the way towards it. A write of nothing finds a reset
/// of a socket, a flush that of an HTTP/2 stream.
fn look(cx: &mut Context<'_>, end: &mut impl End, state: State) -> io::Result<()> {
    if let Poll::Ready(Err(error)) = Pin::new(&mut *end).poll_flush(cx) {
        return Err(error);
    }
    // A socket that has been told the end fails all writes.
    if state == State::Open
        && let Poll::Ready(Err(error)) = Pin::new(end).poll_write(cx, &[])
    {
        return Err(error);
    }
    Ok(())
}
