//! The body of a request, between the connection it comes on and whoever reads it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mesh_ingress::BoxError;

use super::STREAM_WINDOW;
use super::signals::Bell;

/// What the client has sent of a body, and nobody has read: no more than the window of a stream.
#[derive(Clone, Debug)]
pub(super) struct Upload(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    pieces: VecDeque<Bytes>,
    /// Behind these: what came in small pieces, copied.
    gathered: BytesMut,
    trailers: Option<HeaderMap>,
    state: State,
    /// How much is still to be read, if that was said.
    left: Option<u64>,
    /// Read, and the client has got no window for it.
    unpaid: usize,
    reader: Option<Waker>,
    wanted: bool,
    /// Somebody has it to read from.
    held: bool,
    go_ahead: GoAhead,
    bell: Arc<Bell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Complete,
    Failed(&'static str),
}

/// Whether the client is to be told to send the body (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoAhead {
    NotNeeded,
    Owed,
    Asked,
}

/// What the connection has to do for a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Octets that the client may send again.
    pub(super) window: u32,
    /// It is to be told to go ahead.
    pub(super) go_ahead: bool,
}

impl Upload {
    pub(super) fn new(bell: &Arc<Bell>, length: Option<u64>, expects_continue: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            pieces: VecDeque::new(),
            gathered: BytesMut::new(),
            trailers: None,
            state: State::Open,
            left: length,
            unpaid: 0,
            reader: None,
            wanted: true,
            held: false,
            go_ahead: match expects_continue {
                true => GoAhead::Owed,
                false => GoAhead::NotNeeded,
            },
            bell: Arc::clone(bell),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece has come. Gives it back if nobody wants it. `room` is how much memory it holds on to:
    /// of one that is only a small part of that, or small at all, a copy is kept, so that what waits
    /// here is not a multiple of what the client's window allows.
    pub(super) fn push(&self, piece: Bytes, room: usize) -> Result<(), Bytes> {
        let mut inner = self.lock();
        // Not if it has begun already.
        inner.go_ahead = GoAhead::NotNeeded;
        if !inner.wanted {
            return Err(piece);
        }
        if piece.len() < SMALL.max(room / 4) {
            inner.gathered.extend_from_slice(&piece);
        } else {
            inner.close_gathered();
            inner.pieces.push_back(piece);
        }
        inner.wake();
        Ok(())
    }

    /// All has come.
    pub(super) fn complete(&self, trailers: Option<HeaderMap>) {
        let mut inner = self.lock();
        inner.state = State::Complete;
        inner.trailers = trailers;
        inner.wake();
    }

    /// Its stream has ended. Unless it is complete, that is not all of it.
    pub(super) fn fail(&self, why: &'static str) {
        let mut inner = self.lock();
        if !inner.held {
            inner.scrap();
        }
        if inner.state == State::Open {
            inner.state = State::Failed(why);
            inner.scrap();
            inner.wake();
        }
    }

    /// Nobody wants it.
    pub(super) fn refuse(&self) {
        let mut inner = self.lock();
        inner.wanted = false;
        inner.scrap();
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// What there is to do; asked, it is taken to be done.
    pub(super) fn due(&self) -> Due {
        let mut inner = self.lock();
        let mut due = Due::default();
        if inner.go_ahead == GoAhead::Asked {
            inner.go_ahead = GoAhead::NotNeeded;
            due.go_ahead = true;
        }
        if inner.state == State::Open && inner.unpaid >= UNPAID {
            due.window = u32::try_from(std::mem::take(&mut inner.unpaid)).unwrap_or_default();
        }
        due
    }
}

/// Pieces that are shorter than this are copied.
const SMALL: usize = 2 * 1024;
/// So many octets are worth to tell the client at once.
const UNPAID: usize = STREAM_WINDOW as usize / 2;

impl Inner {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// What comes now goes behind what was gathered.
    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.pieces.push_back(gathered.freeze());
        }
    }

    /// Drops what has come.
    fn scrap(&mut self) {
        self.close_gathered();
        let octets = self.pieces.drain(..).map(|piece| piece.len()).sum();
        self.trailers = None;
        if octets > 0 {
            self.bell.signals().release(octets);
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.pieces.is_empty() {
            self.close_gathered();
        }
        if let Some(piece) = self.pieces.pop_front() {
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(piece.len() as u64);
            }
            self.bell.signals().release(piece.len());
            let before = self.unpaid;
            self.unpaid += piece.len();
            if before < UNPAID && self.unpaid >= UNPAID && self.state == State::Open {
                self.bell.ring();
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
                if self.go_ahead == GoAhead::Owed {
                    self.go_ahead = GoAhead::Asked;
                    self.bell.ring();
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

/// The body of a request, read from its stream.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<Upload>);

impl RequestBody {
    /// No body.
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn of(upload: &Upload) -> Self {
        upload.lock().held = true;
        Self(Some(upload.clone()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &self.0 {
            Some(upload) => upload.lock().poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| {
            let inner = upload.lock();
            let nothing =
                inner.pieces.is_empty() && inner.gathered.is_empty() && inner.trailers.is_none();
            nothing && inner.state == State::Complete
        })
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some(upload) => upload
                .lock()
                .left
                .map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            let mut inner = upload.lock();
            inner.wanted = false;
            inner.reader = None;
            inner.scrap();
            if inner.state == State::Open {
                inner.bell.ring();
            }
        }
    }
}
