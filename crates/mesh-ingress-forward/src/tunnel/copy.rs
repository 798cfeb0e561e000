//! Copying between two ends, both ways.
//!
//! Tokio's `copy_bidirectional` holds 16 KiB for a tunnel that nothing goes through, knows no time,
//! and waits for ever for an end that is gone while the other has nothing to say to it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use crate::alarm::Alarm;

/// What is read at once. On the stack, and only while there is something to read: memory is held
/// only for a tunnel of which one end sends faster than the other reads.
const CHUNK: usize = 16 * 1024;
/// How often a tunnel that is always ready goes round before others of its thread have their turn.
const ROUNDS: usize = 16;
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

    /// Whether a read would be in vain as the last one was, and whoever read then is still the one to
    /// be woken. To be told that costs less than to try. `false` where it is not known.
    fn has_nothing_yet(&self) -> bool {
        false
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
    alarm: Alarm,
}

/// One of the two directions.
#[derive(Debug, Default)]
struct Way {
    /// What has been read and could not be written at once.
    left: Vec<u8>,
    left_from: usize,
    state: State,
    unflushed: bool,
    /// The sender was asked in vain, and will wake the task when it has something to say.
    awaited: bool,
    read: u64,
    written: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The sender has ended; the receiver is to be told.
    Ending,
    Ended,
}

/// What has become of one way.
struct Steps {
    has_moved: bool,
    /// More could move at once.
    goes_on: bool,
    is_over: bool,
}

impl<C: End, U: End> Copy<C, U> {
    /// `early` has been read from the upstream already.
    pub(crate) fn new(client: C, upstream: U, early: &[u8], limits: Limits) -> Self {
        Self {
            client,
            upstream,
            up: Way::default(),
            down: Way {
                left: early.to_vec(),
                ..Way::default()
            },
            limits,
            moved_at: Instant::now(),
            has_moved: false,
            look_at: None,
            alarm: Alarm::default(),
        }
    }

    /// The same, of the client.
    pub(crate) fn behind(mut self, early: &[u8]) -> Self {
        self.up.left = early.to_vec();
        self
    }

    /// How many octets have gone to the upstream, and how many to the client.
    pub(crate) fn copied(&self) -> (u64, u64) {
        (self.up.written, self.down.written)
    }

    /// How much memory is held for what has been read.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.up.left.capacity() + self.down.left.capacity()
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
            ready!(self.alarm.poll_in_task(cx, due));
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

impl Way {
    /// Whether the next octet of the sender would be read.
    fn is_read(&self) -> bool {
        self.state == State::Open && self.left.is_empty()
    }

    /// Changes with everything that happens.
    fn progress(&self) -> (u64, u64, State) {
        (self.read, self.written, self.state)
    }

    /// Takes steps as long as something moves, but not for ever. Each way by itself: what waits, waits
    /// for its own two ends.
    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<Steps> {
        let begin = self.progress();
        let mut before = begin;
        for _ in 0..ROUNDS {
            let is_over = self.poll(cx, from, to)?.is_ready();
            let now = self.progress();
            if is_over || now == before {
                return Ok(Steps {
                    has_moved: now != begin,
                    goes_on: false,
                    is_over,
                });
            }
            before = now;
        }
        Ok(Steps {
            has_moved: true,
            goes_on: true,
            is_over: false,
        })
    }

    /// Takes one step; ready when all is done. Without progress, whoever waits is woken when there
    /// may be some.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<Poll<()>> {
        if !self.left.is_empty() && self.poll_left(cx, to)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if self.state == State::Open && self.poll_chunk(cx, from, to)?.is_pending() {
            if self.unflushed && Pin::new(&mut *to).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
            return Ok(Poll::Pending);
        }
        if self.state == State::Ending && Pin::new(to).poll_shutdown(cx)?.is_ready() {
            self.state = State::Ended;
        }
        Ok(match self.state {
            State::Ended => Poll::Ready(()),
            _ => Poll::Pending,
        })
    }

    /// Reads what is there and writes it; pending if nothing is there.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<Poll<()>> {
        if self.awaited && from.has_nothing_yet() {
            return Ok(Poll::Pending);
        }
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        let polled = Pin::new(from).poll_read(cx, &mut chunk)?;
        // Without a budget it was not asked, and the task is woken at once.
        self.awaited = polled.is_pending() && has_budget_remaining();
        if polled.is_pending() {
            return Ok(Poll::Pending);
        }
        let read = chunk.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Ok(Poll::Ready(()));
        }
        self.read += read.len() as u64;
        let written = match Pin::new(to).poll_write(cx, read)? {
            Poll::Ready(written) => self.wrote(written)?,
            Poll::Pending => 0,
        };
        self.left = read.get(written..).unwrap_or_default().to_vec();
        Ok(Poll::Ready(()))
    }

    fn poll_left(&mut self, cx: &mut Context<'_>, to: &mut impl End) -> io::Result<Poll<()>> {
        while let Some(left) = self
            .left
            .get(self.left_from..)
            .filter(|left| !left.is_empty())
        {
            match Pin::new(&mut *to).poll_write(cx, left)? {
                Poll::Ready(written) => self.left_from += self.wrote(written)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // Gives the memory back: the tunnel may be idle for hours.
        self.left = Vec::new();
        self.left_from = 0;
        Ok(Poll::Ready(()))
    }

    fn wrote(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += written as u64;
        self.unflushed = true;
        Ok(written)
    }

    /// The other way has failed: passes on what is there already, such as the sender's reason.
    fn pass_on(&mut self, cx: &mut Context<'_>, from: &mut impl End, to: &mut impl End) {
        for _ in 0..ROUNDS {
            let before = self.progress();
            if self.poll(cx, from, to).is_err() || self.progress() == before {
                break;
            }
        }
    }
}
