//! A request body that can be sent again.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mesh_ingress_core::BoxError;
use tokio::time::Instant;

/// How many pieces are remembered at most: a client that sends single bytes must not cost a
/// thousand times what it sent.
const MAX_PIECES: usize = 1024;

/// Remembers a body while it streams through, for another attempt to begin with.
///
/// One attempt reads at a time. Whoever drives the upstream connection may still hold the body of an
/// attempt that was given up, in another task: it is woken, gets an error, and touches nothing any
/// more.
pub(crate) struct Replay<B> {
    state: Arc<Mutex<State<B>>>,
}

/// The body of one attempt. Made by [`Replay::begin`].
pub(crate) struct ReplayBody<B> {
    state: Arc<Mutex<State<B>>>,
    attempt: u32,
}

struct State<B> {
    /// What was not read yet; `None` after its end.
    rest: Option<B>,
    /// What the body said of its size before it was begun: every attempt is framed alike.
    size: SizeHint,
    memory: Memory,
    /// The attempt that may read.
    attempt: u32,
    /// Bytes that this attempt got, and whether it got anything at all.
    delivered: u64,
    begun: bool,
    broken: bool,
    /// Who waits for the client.
    reader: Option<Waker>,
    waiting: bool,
    moved: Instant,
}

struct Memory {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// The next piece for this attempt, and whether it got the trailers.
    next: usize,
    trailers_told: bool,
    /// Bytes that may still be remembered.
    room: u64,
    /// Whether what comes is remembered, and what was replayed is kept.
    keep: bool,
    /// Whether everything that was read is here.
    intact: bool,
}

/// Why the body of an attempt ends with an error.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error("the request is being sent again: this attempt was given up")]
    TakenOver,
    #[error("the request's body broke off before")]
    Broken,
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Remembers up to `limit` bytes of a body. Of a larger one that has a known size, nothing.
    pub(crate) fn new(body: B, limit: usize) -> Self {
        let state = State {
            size: body.size_hint(),
            rest: Some(body),
            memory: Memory {
                pieces: VecDeque::new(),
                trailers: None,
                next: 0,
                trailers_told: false,
                room: limit as u64,
                keep: true,
                intact: true,
            },
            attempt: 0,
            delivered: 0,
            begun: false,
            broken: false,
            reader: None,
            waiting: false,
            moved: Instant::now(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The body of the next attempt, from its start on. The one before gets no more of it.
    pub(crate) fn begin(&self) -> ReplayBody<B> {
        let mut state = lock(&self.state);
        let reader = state.give_up();
        // What was lost cannot be sent: better nothing than the rest alone.
        state.broken |= !state.memory.intact;
        let attempt = state.attempt;
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        ReplayBody {
            state: Arc::clone(&self.state),
            attempt,
        }
    }

    /// Whether the body could be sent from its start on once more.
    pub(crate) fn can_replay(&self) -> bool {
        lock(&self.state).memory.intact
    }

    /// Takes the body from the attempt that has it, if it could be sent once more.
    pub(crate) fn recall(&self) -> bool {
        let mut state = lock(&self.state);
        if !state.memory.intact {
            return false;
        }
        let reader = state.give_up();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    /// There will be no other attempt: keeps nothing that this one has got.
    pub(crate) fn forget(&self) {
        lock(&self.state).memory.forget();
    }

    /// When an attempt that may take `timeout` is overdue. The clock waits for a client that is
    /// still sending, and starts anew with each piece.
    pub(crate) fn due(&self, now: Instant, timeout: Duration) -> Instant {
        let state = lock(&self.state);
        let since = if state.waiting { now } else { state.moved };
        since + timeout
    }
}

impl<B> State<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Turns to the next attempt; whoever waits for the one before is to be woken.
    fn give_up(&mut self) -> Option<Waker> {
        self.attempt = self.attempt.wrapping_add(1);
        self.memory.next = 0;
        self.memory.trailers_told = false;
        self.delivered = 0;
        self.begun = false;
        self.waiting = false;
        self.moved = Instant::now();
        self.reader.take()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        if let Some(frame) = self.memory.replay() {
            return Poll::Ready(Some(Ok(self.deliver(frame))));
        }
        if self.broken {
            return Poll::Ready(Some(Err(Gone::Broken.into())));
        }
        let Some(rest) = &mut self.rest else {
            self.begun = true;
            return Poll::Ready(None);
        };
        match Pin::new(&mut *rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.memory.remember(&frame, rest.size_hint().lower());
                if frame.is_trailers() {
                    self.rest = None;
                }
                Poll::Ready(Some(Ok(self.deliver(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.rest = None;
                self.broken = true;
                self.memory.lose();
                self.waiting = false;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.rest = None;
                self.moved();
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.waiting = true;
                match &mut self.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    fn deliver(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.delivered += frame.data_ref().map_or(0, |data| data.len() as u64);
        self.moved();
        frame
    }

    fn moved(&mut self) {
        self.begun = true;
        self.waiting = false;
        self.moved = Instant::now();
    }

    fn is_end_stream(&self) -> bool {
        // Not before it was begun: a body that turned out to be empty is still framed as one.
        self.begun
            && !self.broken
            && self.memory.is_replayed()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        // The upper bound first: a lower one may not exceed it, and the other way round.
        if let Some(upper) = self.size.upper() {
            hint.set_upper(upper.saturating_sub(self.delivered));
        }
        hint.set_lower(self.size.lower().saturating_sub(self.delivered));
        hint
    }
}

impl Memory {
    /// What comes next for an attempt that begins with what others have read.
    fn replay(&mut self) -> Option<Frame<Bytes>> {
        let piece = if self.keep {
            self.pieces.get(self.next).cloned()
        } else {
            self.pieces.pop_front()
        };
        if let Some(piece) = piece {
            self.next += usize::from(self.keep);
            self.intact &= self.keep;
            return Some(Frame::data(piece));
        }
        if self.trailers_told {
            return None;
        }
        let trailers = if self.keep {
            self.trailers.clone()
        } else {
            self.trailers.take()
        }?;
        self.trailers_told = true;
        self.intact &= self.keep;
        Some(Frame::trailers(trailers))
    }

    fn is_replayed(&self) -> bool {
        let trailers_due = self.trailers.is_some() && !self.trailers_told;
        self.next >= self.pieces.len() && !trailers_due
    }

    /// Remembers what was read for the first time; `more` bytes are sure to come.
    fn remember(&mut self, frame: &Frame<Bytes>, more: u64) {
        let size = if let Some(data) = frame.data_ref() {
            data.len() as u64
        } else {
            frame.trailers_ref().map_or(0, size_of_fields)
        };
        if size == 0 {
            // It changes nothing, and there could be any number of them.
            return;
        }
        let fits = size.saturating_add(more) <= self.room && self.pieces.len() < MAX_PIECES;
        if !self.keep || !fits {
            self.lose();
            return;
        }
        self.room -= size;
        if let Some(data) = frame.data_ref() {
            self.pieces.push_back(data.clone());
            self.next += 1;
        } else {
            self.trailers = frame.trailers_ref().cloned();
            self.trailers_told = true;
        }
    }

    /// What was read cannot be had again: of no use any more.
    fn lose(&mut self) {
        self.intact = false;
        self.keep = false;
        self.pieces = VecDeque::new();
        self.next = 0;
        self.trailers = None;
    }

    fn forget(&mut self) {
        self.keep = false;
        self.intact &= self.next == 0 && !self.trailers_told;
        self.pieces.drain(..self.next.min(self.pieces.len()));
        self.next = 0;
        if self.trailers_told {
            self.trailers = None;
        }
        self.pieces.shrink_to_fit();
    }
}

fn size_of_fields(fields: &HeaderMap) -> u64 {
    let sizes = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum::<usize>() as u64
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = lock(&self.state);
        if state.attempt != self.attempt {
            // Never a clean end: the upstream would take half a body for a whole one.
            return Poll::Ready(Some(Err(Gone::TakenOver.into())));
        }
        state.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        state.attempt == self.attempt && state.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let state = lock(&self.state);
        if state.attempt == self.attempt {
            state.size_hint()
        } else {
            SizeHint::default()
        }
    }
}

/// A panic of the body inside is the task's that polled it; what is remembered stays right.
fn lock<B>(state: &Mutex<State<B>>) -> MutexGuard<'_, State<B>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
