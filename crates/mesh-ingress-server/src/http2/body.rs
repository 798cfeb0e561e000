//! The body of an HTTP/2 request, between the connection that receives it and the service that reads it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use mesh_ingress_core::BoxError;

use super::STREAM_WINDOW;
use super::ready_queue::StreamWaker;

/// Shorter pieces are copied.
const MIN_PIECE: usize = 2 * 1024;
/// So many bytes are worth a `WINDOW_UPDATE`.
const WORTH_UPDATE: usize = STREAM_WINDOW as usize / 2;

/// The connection's end: what the client has sent of a body and the service has not read, at most the
/// flow-control window of a stream.
#[derive(Clone, Debug)]
pub(super) struct RecvBody(Arc<Mutex<Inner>>);

/// The service's end.
#[derive(Debug)]
pub(crate) struct Http2Body(RecvBody);

#[derive(Debug)]
struct Inner {
    pieces: VecDeque<Bytes>,
    /// Behind these: small pieces, copied together.
    gathered: BytesMut,
    trailers: Option<HeaderMap>,
    state: State,
    /// How much is still to be read, if the body has a length.
    left: Option<u64>,
    /// Bytes that have been read and for which the client has no window yet.
    released: usize,
    reader: Option<Waker>,
    wanted: bool,
    /// The service has its end.
    held: bool,
    expect: Expect100,
    waker: Arc<StreamWaker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Failed(&'static str),
}

/// Whether the client waits to be told to send the body (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect100 {
    None,
    Pending,
    /// The service has polled the body: the client is to be told.
    Due,
}

/// Frames that the connection has to send for a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// By how many bytes the stream's window grows.
    pub(super) window: u32,
    /// `100 Continue`.
    pub(super) send_continue: bool,
}

impl RecvBody {
    pub(super) fn new(
        waker: &Arc<StreamWaker>,
        length: Option<u64>,
        expects_continue: bool,
    ) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            pieces: VecDeque::new(),
            gathered: BytesMut::new(),
            trailers: None,
            state: State::Open,
            left: length,
            released: 0,
            reader: None,
            wanted: true,
            held: false,
            expect: match expects_continue {
                true => Expect100::Pending,
                false => Expect100::None,
            },
            waker: Arc::clone(waker),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece has come. Returned if nobody wants it. `capacity` is the memory that it keeps alive: a
    /// piece that is only a small part of that, or small at all, is copied, so that what waits here is not
    /// a multiple of what the client's window allows.
    pub(super) fn push(&self, piece: Bytes, capacity: usize) -> Result<(), Bytes> {
        let mut inner = self.lock();
        // A body that has begun needs no `100 Continue`.
        inner.expect = Expect100::None;
        if !inner.wanted {
            return Err(piece);
        }
        if piece.len() < MIN_PIECE.max(capacity / 4) {
            inner.gathered.extend_from_slice(&piece);
        } else {
            inner.close_gathered();
            inner.pieces.push_back(piece);
        }
        inner.wake_reader();
        Ok(())
    }

    /// All has come.
    pub(super) fn complete(&self, trailers: Option<HeaderMap>) {
        let mut inner = self.lock();
        inner.state = State::Complete;
        inner.trailers = trailers;
        inner.wake_reader();
    }

    /// The stream has ended. Unless the body is complete, it has failed.
    pub(super) fn fail(&self, why: &'static str) {
        let mut inner = self.lock();
        if !inner.held {
            inner.discard();
        }
        if inner.state == State::Open {
            inner.state = State::Failed(why);
            inner.discard();
            inner.wake_reader();
        }
    }

    /// Nobody will read it.
    pub(super) fn refuse(&self) {
        let mut inner = self.lock();
        inner.wanted = false;
        inner.discard();
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// Takes what the connection has to send.
    pub(super) fn take_due(&self) -> Due {
        let mut inner = self.lock();
        let mut due = Due::default();
        if inner.expect == Expect100::Due {
            inner.expect = Expect100::None;
            due.send_continue = true;
        }
        if inner.state == State::Open && inner.released >= WORTH_UPDATE {
            due.window = u32::try_from(std::mem::take(&mut inner.released)).unwrap_or_default();
        }
        due
    }
}

impl Inner {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Closes the gathered piece: the next one goes behind it.
    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.pieces.push_back(gathered.freeze());
        }
    }

    /// Drops what has come.
    fn discard(&mut self) {
        self.close_gathered();
        let bytes = self.pieces.drain(..).map(|piece| piece.len()).sum();
        self.trailers = None;
        if bytes > 0 {
            self.waker.queue().release_capacity(bytes);
        }
    }

    fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.pieces.is_empty() {
            self.close_gathered();
        }
        if let Some(piece) = self.pieces.pop_front() {
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(piece.len() as u64);
            }
            self.waker.queue().release_capacity(piece.len());
            let before = self.released;
            self.released += piece.len();
            let crosses = before < WORTH_UPDATE && self.released >= WORTH_UPDATE;
            if crosses && self.state == State::Open {
                self.waker.notify();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match self.state {
            State::Complete => Poll::Ready(None),
            State::Failed(why) => {
                let error = io::Error::new(io::ErrorKind::ConnectionAborted, why);
                Poll::Ready(Some(Err(error.into())))
            }
            State::Open => {
                if self.expect == Expect100::Pending {
                    self.expect = Expect100::Due;
                    self.waker.notify();
                }
                match &mut self.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    reader => *reader = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl Http2Body {
    pub(super) fn of(body: &RecvBody) -> Self {
        body.lock().held = true;
        Self(body.clone())
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.lock().poll_frame(cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let inner = self.0.lock();
        let is_empty =
            inner.pieces.is_empty() && inner.gathered.is_empty() && inner.trailers.is_none();
        is_empty && inner.state == State::Complete
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let left = self.0.lock().left;
        left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.wanted = false;
        inner.reader = None;
        inner.discard();
        if inner.state == State::Open {
            inner.waker.notify();
        }
    }
}
