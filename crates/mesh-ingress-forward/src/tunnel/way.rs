//! One of the two directions of a tunnel.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::bell::Bell;
use super::copy::End;

/// What is read at once. On the stack, and only while there is something to read: memory is held
/// only for a tunnel of which one end sends faster than the other reads.
const CHUNK: usize = 16 * 1024;
/// How often a tunnel that is always ready goes round before others of its thread have their turn.
const ROUNDS: usize = 16;

/// One of the two directions.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// What has been read and could not be written at once.
    left: Vec<u8>,
    left_from: usize,
    pub(super) state: State,
    unflushed: bool,
    /// What the sender rings when it has something to say, if it was asked in vain.
    bell: Option<Bell>,
    awaited: bool,
    pub(super) written: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Open,
    /// The sender has ended; the receiver is to be told.
    Ending,
    Ended,
}

/// What one step of a way has come to.
#[derive(Clone, Copy)]
struct Step {
    has_moved: bool,
    /// Nothing more moves at this moment.
    waits: bool,
}

impl Step {
    const MOVED: Self = Self {
        has_moved: true,
        waits: false,
    };

    const fn waits(has_moved: bool) -> Self {
        Self {
            has_moved,
            waits: true,
        }
    }
}

/// What has become of one way.
pub(super) struct Steps {
    pub(super) has_moved: bool,
    /// More could move at once.
    pub(super) goes_on: bool,
    pub(super) is_over: bool,
}

impl Way {
    /// `early` has been read already.
    pub(super) fn new(early: &[u8]) -> Self {
        Self {
            left: early.to_vec(),
            ..Self::default()
        }
    }

    /// How much memory is held for what has been read.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.left.capacity()
    }

    /// Whether the next octet of the sender would be read.
    pub(super) fn is_read(&self) -> bool {
        self.state == State::Open && self.left.is_empty()
    }

    /// Takes steps as long as something moves, but not for ever. Each way by itself: what waits, waits
    /// for its own two ends.
    pub(super) fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<Steps> {
        let mut has_moved = false;
        for _ in 0..ROUNDS {
            let step = self.poll(cx, from, to)?;
            has_moved |= step.has_moved;
            if step.waits {
                return Ok(Steps {
                    has_moved,
                    goes_on: false,
                    is_over: self.state == State::Ended,
                });
            }
        }
        Ok(Steps {
            has_moved: true,
            goes_on: true,
            is_over: false,
        })
    }

    /// Takes one step. Whoever waits is woken when there may be another.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<Step> {
        let mut has_moved = false;
        if !self.left.is_empty() {
            let before = self.written;
            let written = self.poll_left(cx, to)?;
            has_moved = self.written > before;
            if written.is_pending() {
                return Ok(Step::waits(has_moved));
            }
        }
        if self.state == State::Open {
            let step = self.poll_chunk(cx, from, to)?;
            has_moved |= step.has_moved;
            if step.waits && self.unflushed && Pin::new(&mut *to).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
            if self.state == State::Open {
                return Ok(Step { has_moved, ..step });
            }
        }
        if self.state == State::Ending {
            if Pin::new(to).poll_shutdown(cx)?.is_pending() {
                return Ok(Step::waits(has_moved));
            }
            self.state = State::Ended;
            has_moved = true;
        }
        Ok(Step::waits(has_moved))
    }

    /// Reads what is there and writes it.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl End,
        to: &mut impl End,
    ) -> io::Result<Step> {
        let bell = match &mut self.bell {
            Some(bell) if bell.is_of(cx.waker()) => {
                if self.awaited && !bell.has_rung() {
                    return Ok(Step::waits(false));
                }
                bell
            }
            bell => bell.insert(Bell::new(cx.waker())),
        };
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        let polled = Pin::new(&mut *from).poll_read(&mut bell.set(), &mut chunk)?;
        self.awaited = polled.is_pending();
        if self.awaited {
            return Ok(Step::waits(false));
        }
        let read = chunk.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Ok(Step::MOVED);
        }
        let written = match to.poll_pass(cx, read)? {
            Poll::Ready(written) => self.wrote(written)?,
            Poll::Pending => 0,
        };
        if written < read.len() {
            self.left = read.get(written..).unwrap_or_default().to_vec();
        } else if read.len() < CHUNK
            && let Some(bell) = &self.bell
        {
            self.awaited = from.poll_more(&mut bell.set()).is_pending();
            return Ok(Step {
                has_moved: true,
                waits: self.awaited,
            });
        }
        Ok(Step::MOVED)
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
    pub(super) fn pass_on(&mut self, cx: &mut Context<'_>, from: &mut impl End, to: &mut impl End) {
        for _ in 0..ROUNDS {
            let step = self.poll(cx, from, to);
            if step.map_or(true, |step| step.waits) {
                break;
            }
        }
    }
}
