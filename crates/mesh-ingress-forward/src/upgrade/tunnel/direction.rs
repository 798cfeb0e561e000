//! One of the two directions of a tunnel.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::copy::TunnelEnd;
use super::wake_flag::WakeFlag;

/// The size of one read. The buffer is on the stack: a tunnel allocates only if one end sends
/// faster than the other reads.
const CHUNK: usize = 16 * 1024;
/// How many steps a tunnel that is always ready takes before it yields to other tasks.
const MAX_STEPS: usize = 16;

/// One of the two directions.
#[derive(Debug, Default)]
pub(super) struct CopyDirection {
    /// Bytes that were read and could not be written at once.
    buffer: Vec<u8>,
    /// How many bytes of `buffer` are written.
    buffer_written: usize,
    pub(super) state: State,
    unflushed: bool,
    /// Woken by the sender.
    wake_flag: Option<WakeFlag>,
    /// The last read was pending.
    read_pending: bool,
    pub(super) written: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Open,
    /// The sender has ended; the receiver is being shut down.
    ShuttingDown,
    Ended,
}

/// The outcome of one step.
#[derive(Clone, Copy)]
struct Step {
    has_moved: bool,
    /// Nothing more can be copied now.
    pending: bool,
}

impl Step {
    const MOVED: Self = Self {
        has_moved: true,
        pending: false,
    };

    const fn pending(has_moved: bool) -> Self {
        Self {
            has_moved,
            pending: true,
        }
    }
}

/// The outcome of several steps.
pub(super) struct Steps {
    pub(super) has_moved: bool,
    /// More can be copied at once.
    pub(super) more: bool,
    pub(super) ended: bool,
}

impl CopyDirection {
    /// `early` was read already.
    pub(super) fn new(early: &[u8]) -> Self {
        Self {
            buffer: early.to_vec(),
            ..Self::default()
        }
    }

    /// The memory allocated for bytes that were read.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether the next byte of the sender would be read.
    pub(super) fn is_read(&self) -> bool {
        self.state == State::Open && self.buffer.is_empty()
    }

    /// Copies until an end is pending, or other tasks must have their turn.
    pub(super) fn poll_steps(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl TunnelEnd,
        to: &mut impl TunnelEnd,
    ) -> io::Result<Steps> {
        let mut has_moved = false;
        for _ in 0..MAX_STEPS {
            let step = self.poll_step(cx, from, to)?;
            has_moved |= step.has_moved;
            if step.pending {
                return Ok(Steps {
                    has_moved,
                    more: false,
                    ended: self.state == State::Ended,
                });
            }
        }
        Ok(Steps {
            has_moved: true,
            more: true,
            ended: false,
        })
    }

    /// Takes one step. If it is pending, the task is woken when there may be another.
    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl TunnelEnd,
        to: &mut impl TunnelEnd,
    ) -> io::Result<Step> {
        let mut has_moved = false;
        if !self.buffer.is_empty() {
            let before = self.written;
            let written = self.poll_buffer(cx, to)?;
            has_moved = self.written > before;
            if written.is_pending() {
                return Ok(Step::pending(has_moved));
            }
        }
        if self.state == State::Open {
            let step = self.poll_chunk(cx, from, to)?;
            has_moved |= step.has_moved;
            if step.pending && self.unflushed && Pin::new(&mut *to).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
            }
            if self.state == State::Open {
                return Ok(Step { has_moved, ..step });
            }
        }
        if self.state == State::ShuttingDown {
            if Pin::new(to).poll_shutdown(cx)?.is_pending() {
                return Ok(Step::pending(has_moved));
            }
            self.state = State::Ended;
            has_moved = true;
        }
        Ok(Step::pending(has_moved))
    }

    /// Reads once and writes the bytes.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl TunnelEnd,
        to: &mut impl TunnelEnd,
    ) -> io::Result<Step> {
        let wake_flag = match &mut self.wake_flag {
            Some(wake_flag) if wake_flag.will_wake(cx.waker()) => {
                if self.read_pending && !wake_flag.is_woken() {
                    return Ok(Step::pending(false));
                }
                wake_flag
            }
            none => none.insert(WakeFlag::new(cx.waker())),
        };
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        let polled = Pin::new(&mut *from).poll_read(&mut wake_flag.context(), &mut chunk)?;
        self.read_pending = polled.is_pending();
        if self.read_pending {
            return Ok(Step::pending(false));
        }
        let read = chunk.filled();
        if read.is_empty() {
            self.state = State::ShuttingDown;
            return Ok(Step::MOVED);
        }
        let written = match to.poll_forward(cx, read)? {
            Poll::Ready(written) => self.count_written(written)?,
            Poll::Pending => 0,
        };
        if written < read.len() {
            self.buffer = read.get(written..).unwrap_or_default().to_vec();
        } else if read.len() < CHUNK
            && let Some(wake_flag) = &self.wake_flag
        {
            self.read_pending = from.poll_readable(&mut wake_flag.context()).is_pending();
            return Ok(Step {
                has_moved: true,
                pending: self.read_pending,
            });
        }
        Ok(Step::MOVED)
    }

    fn poll_buffer(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl TunnelEnd,
    ) -> io::Result<Poll<()>> {
        while let Some(rest) = self
            .buffer
            .get(self.buffer_written..)
            .filter(|rest| !rest.is_empty())
        {
            match Pin::new(&mut *to).poll_write(cx, rest)? {
                Poll::Ready(written) => self.buffer_written += self.count_written(written)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        // Frees the memory: the tunnel may be idle for hours.
        self.buffer = Vec::new();
        self.buffer_written = 0;
        Ok(Poll::Ready(()))
    }

    fn count_written(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += written as u64;
        self.unflushed = true;
        Ok(written)
    }

    /// The other direction has failed: forwards the bytes that have come already, such as the
    /// sender's reason.
    pub(super) fn drain(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl TunnelEnd,
        to: &mut impl TunnelEnd,
    ) {
        for _ in 0..MAX_STEPS {
            let step = self.poll_step(cx, from, to);
            if step.map_or(true, |step| step.pending) {
                break;
            }
        }
    }
}
