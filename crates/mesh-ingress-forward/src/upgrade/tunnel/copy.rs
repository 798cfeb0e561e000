//! Copying between two ends, in both directions.
//!
//! tokio's `copy_bidirectional` holds 16 KiB for an idle tunnel, has no timeouts, and does not find
//! out that an end is gone as long as the other sends nothing to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::LazyTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::direction::{CopyDirection, State};
use crate::settings::TunnelTimeouts;

/// How often an end is checked that is not read from, because it has ended or the other end does
/// not read: a reset is to be noticed within a second all the same.
const CHECK_PERIOD: Duration = Duration::from_millis(500);

/// Activity is recorded without reading the clock, which is read this often within a timeout. So a
/// timeout may take one part longer.
const TIMEOUT_PARTS: u32 = 8;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both ends have ended.
    Complete,
    /// There was no traffic for too long.
    Idle,
}

/// An end of a tunnel.
pub(crate) trait TunnelEnd: AsyncRead + AsyncWrite + Unpin {
    /// Makes a drop reset the connection, if it does not by itself: the peer must not take a tunnel
    /// that was cut off for one that ended.
    fn reset_on_drop(&mut self) {}

    /// Writes bytes that were read from the other end. That read has used cooperative budget
    /// already.
    fn poll_forward(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, bytes)
    }

    /// Pending if a read would be pending now, and wakes the task when it would not. Called after a
    /// read that did not fill its buffer. Ready if that is not known without a read.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}

/// Copies in both directions until both ends have ended, one has failed, or a timeout has passed.
/// Dropped before both have ended, it resets both. One task must poll it to its end.
pub(super) struct Copy<C: TunnelEnd, U: TunnelEnd> {
    client: C,
    upstream: U,
    up: CopyDirection,
    down: CopyDirection,
    timeouts: TunnelTimeouts,
    /// The time of the last known traffic, and whether there was more since.
    moved_at: Instant,
    has_moved: bool,
    /// When to check an end that is not read from.
    check_at: Option<Instant>,
    timer: LazyTimer,
}

impl<C: TunnelEnd, U: TunnelEnd> Copy<C, U> {
    /// `early` was read from the upstream already.
    pub(super) fn new(client: C, upstream: U, early: &[u8], timeouts: TunnelTimeouts) -> Self {
        Self {
            client,
            upstream,
            up: CopyDirection::default(),
            down: CopyDirection::new(early),
            timeouts,
            moved_at: Instant::now(),
            has_moved: false,
            check_at: None,
            timer: LazyTimer::default(),
        }
    }

    /// `early` was read from the client already.
    pub(super) fn with_client_early(mut self, early: &[u8]) -> Self {
        self.up = CopyDirection::new(early);
        self
    }

    /// How many bytes were written to the upstream, and how many to the client.
    pub(super) fn copied(&self) -> (u64, u64) {
        (self.up.written, self.down.written)
    }

    /// The memory allocated for bytes that were read.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.up.buffered() + self.down.buffered()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        let Self {
            client,
            upstream,
            up,
            down,
            ..
        } = self;
        let upward = match up.poll_steps(cx, client, upstream) {
            Ok(upward) => upward,
            Err(error) => {
                down.drain(cx, upstream, client);
                return Poll::Ready(Err(error));
            }
        };
        let downward = match down.poll_steps(cx, upstream, client) {
            Ok(downward) => downward,
            Err(error) => {
                up.drain(cx, client, upstream);
                return Poll::Ready(Err(error));
            }
        };
        self.has_moved |= upward.has_moved || downward.has_moved;
        if upward.ended && downward.ended {
            return Poll::Ready(Ok(Ended::Complete));
        }
        if upward.more || downward.more {
            // Yields to other tasks of this thread.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_timeouts(cx)
    }

    fn poll_timeouts(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            let idle = self.timeout().and_then(|timeout| {
                let timeout = if self.has_moved {
                    timeout / TIMEOUT_PARTS
                } else {
                    timeout
                };
                self.moved_at.checked_add(timeout)
            });
            if self.up.is_read() && self.down.is_read() {
                self.check_at = None;
            } else if self.check_at.is_none() {
                self.check_at = Some(Instant::now() + CHECK_PERIOD);
            }
            let due = match (idle, self.check_at) {
                (Some(idle), Some(check)) => idle.min(check),
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
            if self.check_at.is_some_and(|check| check <= now) {
                self.check_at = None;
                self.check(cx)?;
            }
        }
    }

    /// The timeout of the current state.
    fn timeout(&self) -> Option<Duration> {
        let TunnelTimeouts { idle, half_closed } = self.timeouts;
        if self.up.state == State::Open && self.down.state == State::Open {
            return idle;
        }
        match (idle, half_closed) {
            (Some(idle), Some(half_closed)) => Some(idle.min(half_closed)),
            (idle, half_closed) => half_closed.or(idle),
        }
    }

    /// Fails if an end that is not read from is found to be gone.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.up.is_read() {
            check(cx, &mut self.client, self.down.state)?;
        }
        if !self.down.is_read() {
            check(cx, &mut self.upstream, self.up.state)?;
        }
        Ok(())
    }
}

impl<C: TunnelEnd, U: TunnelEnd> Drop for Copy<C, U> {
    fn drop(&mut self) {
        if (self.up.state, self.down.state) != (State::Ended, State::Ended) {
            self.client.reset_on_drop();
            self.upstream.reset_on_drop();
        }
    }
}

/// Fails if `end` is gone; `state` is that of the direction towards it. An empty write fails on a
/// socket that was reset, a flush on an HTTP/2 stream that was.
fn check(cx: &mut Context<'_>, end: &mut impl TunnelEnd, state: State) -> io::Result<()> {
    if let Poll::Ready(Err(error)) = Pin::new(&mut *end).poll_flush(cx) {
        return Err(error);
    }
    // A socket that was shut down fails all writes.
    if state == State::Open
        && let Poll::Ready(Err(error)) = Pin::new(end).poll_write(cx, &[])
    {
        return Err(error);
    }
    Ok(())
}
