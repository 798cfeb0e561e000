//! Recording a request body, to send it again.

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

/// The most frames recorded: the frames of a client that sends single bytes take a thousand times
/// their size.
const MAX_FRAMES: usize = 1024;

/// Records a body while it streams through, for the next attempt.
///
/// One attempt reads at a time. The connection of a cancelled attempt may still hold its body, in
/// another task: that is woken, gets an error, and has no effect any more.
pub(super) struct ReplayBuffer<B> {
    state: Arc<Mutex<State<B>>>,
}

/// The body of one attempt. Made by [`ReplayBuffer::begin`].
pub(super) struct ReplayBody<B> {
    state: Arc<Mutex<State<B>>>,
    attempt: u32,
}

struct State<B> {
    /// The part of the body that was not read yet; `None` after its end.
    rest: Option<B>,
    /// The size hint of the whole body: every attempt is framed alike.
    size: SizeHint,
    recording: Recording,
    /// The attempt that may read.
    attempt: u32,
    /// Bytes that this attempt got, and whether it was polled to any frame or the end.
    delivered: u64,
    begun: bool,
    broken: bool,
    /// The task that waits for the client.
    reader: Option<Waker>,
    waiting: bool,
    /// When the last frame came.
    last_frame: Instant,
}

struct Recording {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// The next frame for this attempt, and whether it got the trailers.
    next: usize,
    trailers_delivered: bool,
    /// Bytes that may still be recorded.
    room: u64,
    /// Whether new frames are recorded, and replayed ones kept.
    active: bool,
    /// Whether every frame that was read is recorded.
    complete: bool,
}

/// Why the body of an attempt ends with an error.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error("the request is being sent again: this attempt was given up")]
    Cancelled,
    #[error("the request's body broke off before")]
    Broken,
}

impl<B> ReplayBuffer<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Records up to `limit` bytes of a body; nothing if its known size exceeds that.
    pub(super) fn new(body: B, limit: usize) -> Self {
        let state = State {
            size: body.size_hint(),
            rest: Some(body),
            recording: Recording {
                frames: VecDeque::new(),
                trailers: None,
                next: 0,
                trailers_delivered: false,
                room: limit as u64,
                active: true,
                complete: true,
            },
            attempt: 0,
            delivered: 0,
            begun: false,
            broken: false,
            reader: None,
            waiting: false,
            last_frame: Instant::now(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The body for the next attempt, from its start. The attempt before gets no more of it.
    pub(super) fn begin(&self) -> ReplayBody<B> {
        let mut state = lock(&self.state);
        let reader = state.next_attempt();
        // The start of the body is lost: the rest alone must not be sent.
        state.broken |= !state.recording.complete;
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

    /// Whether the body could be sent again from its start.
    pub(super) fn can_replay(&self) -> bool {
        lock(&self.state).recording.complete
    }

    /// Takes the body from its attempt, if it could be sent again.
    pub(super) fn recall(&self) -> bool {
        let mut state = lock(&self.state);
        if !state.recording.complete {
            return false;
        }
        let reader = state.next_attempt();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    /// This is the last attempt: drops the frames that it has got.
    pub(super) fn stop_recording(&self) {
        lock(&self.state).recording.stop();
    }

    /// When an attempt times out. The clock is stopped while it waits for the client, and starts
    /// anew with each frame.
    pub(super) fn timeout_at(&self, now: Instant, timeout: Duration) -> Instant {
        let state = lock(&self.state);
        let since = if state.waiting { now } else { state.last_frame };
        since + timeout
    }
}

impl<B> State<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Begins the next attempt. Returns the waker of the one before, which is to be woken.
    fn next_attempt(&mut self) -> Option<Waker> {
        self.attempt = self.attempt.wrapping_add(1);
        self.recording.next = 0;
        self.recording.trailers_delivered = false;
        self.delivered = 0;
        self.begun = false;
        self.waiting = false;
        self.last_frame = Instant::now();
        self.reader.take()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        if let Some(frame) = self.recording.replay() {
            return Poll::Ready(Some(Ok(self.deliver(frame))));
        }
        if self.broken {
            return Poll::Ready(Some(Err(ReplayError::Broken.into())));
        }
        let Some(rest) = &mut self.rest else {
            self.begun = true;
            return Poll::Ready(None);
        };
        match Pin::new(&mut *rest).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.recording.record(&frame, rest.size_hint().lower());
                if frame.is_trailers() {
                    self.rest = None;
                }
                Poll::Ready(Some(Ok(self.deliver(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                self.rest = None;
                self.broken = true;
                self.recording.lose();
                self.waiting = false;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.rest = None;
                self.frame_came();
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
        self.frame_came();
        frame
    }

    fn frame_came(&mut self) {
        self.begun = true;
        self.waiting = false;
        self.last_frame = Instant::now();
    }

    fn is_end_stream(&self) -> bool {
        // Not before it was begun: a body that turns out to be empty is still framed as one.
        self.begun
            && !self.broken
            && self.recording.is_replayed()
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

impl Recording {
    /// The next recorded frame for this attempt.
    fn replay(&mut self) -> Option<Frame<Bytes>> {
        let frame = if self.active {
            self.frames.get(self.next).cloned()
        } else {
            self.frames.pop_front()
        };
        if let Some(frame) = frame {
            self.next += usize::from(self.active);
            self.complete &= self.active;
            return Some(Frame::data(frame));
        }
        if self.trailers_delivered {
            return None;
        }
        let trailers = if self.active {
            self.trailers.clone()
        } else {
            self.trailers.take()
        }?;
        self.trailers_delivered = true;
        self.complete &= self.active;
        Some(Frame::trailers(trailers))
    }

    fn is_replayed(&self) -> bool {
        let trailers_due = self.trailers.is_some() && !self.trailers_delivered;
        self.next >= self.frames.len() && !trailers_due
    }

    /// Records a frame that was read for the first time; at least `more` bytes are to come.
    fn record(&mut self, frame: &Frame<Bytes>, more: u64) {
        let size = if let Some(data) = frame.data_ref() {
            data.len() as u64
        } else {
            frame.trailers_ref().map_or(0, size_of_fields)
        };
        if size == 0 {
            // Empty frames change nothing, and there could be any number of them.
            return;
        }
        let fits = size.saturating_add(more) <= self.room && self.frames.len() < MAX_FRAMES;
        if !self.active || !fits {
            self.lose();
            return;
        }
        self.room -= size;
        if let Some(data) = frame.data_ref() {
            self.frames.push_back(data.clone());
            self.next += 1;
        } else {
            self.trailers = frame.trailers_ref().cloned();
            self.trailers_delivered = true;
        }
    }

    /// A frame is not recorded: the recording is of no use any more.
    fn lose(&mut self) {
        self.complete = false;
        self.active = false;
        self.frames = VecDeque::new();
        self.next = 0;
        self.trailers = None;
    }

    fn stop(&mut self) {
        self.active = false;
        self.complete &= self.next == 0 && !self.trailers_delivered;
        self.frames.drain(..self.next.min(self.frames.len()));
        self.next = 0;
        if self.trailers_delivered {
            self.trailers = None;
        }
        self.frames.shrink_to_fit();
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
            // Not a clean end: the upstream would take half a body for a whole one.
            return Poll::Ready(Some(Err(ReplayError::Cancelled.into())));
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

/// The state stays consistent if the inner body panics.
fn lock<B>(state: &Mutex<State<B>>) -> MutexGuard<'_, State<B>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
