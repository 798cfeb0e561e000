//! What a client sends and is sent, as octets: the part of a connection that its driver and the body
//! of a request share.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use mesh_ingress::headers::guard::{Refused, RequestGuard};
use mesh_ingress_http1::request::{self, Head};
use mesh_ingress_http1::{Decoder, Inbox, Limits, Malformed, Outbox};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::connection::Rested;
use crate::linger::Linger;

/// Bounds to a header section.
pub(crate) const LIMITS: Limits = Limits {
    octets: 64 * 1024,
    fields: 100,
};
/// What may wait in memory of one connection, each way, as long as nobody takes it: as much as is
/// read at once from upstreams.
pub(crate) const BUFFER: usize = 416 * 1024;
/// What may wait of a protocol that is not agreed on yet.
const MAX_UNSEEN: usize = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's socket, and what was read from it and is to be written to it. Of what was read, only
/// what a [`RequestGuard`] has let pass is looked at.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    inbox: Inbox,
    pub(crate) outbox: Outbox,
    guard: RequestGuard,
    refused: Option<Refused>,
    /// How many of the last octets in the inbox the guard has not seen: they follow a request that
    /// asks for another protocol, and only the answer tells what they are.
    unseen: usize,
    /// How many octets of a head that is not complete have been looked at for its end.
    looked: usize,
    /// The client has said all it had to say.
    ended: bool,
    pub(crate) upload: Upload,
    pub(crate) go_ahead: GoAhead,
    /// The task that serves the connection: the only one that waits for the socket.
    driver: Waker,
    /// It is at it, and will look at everything before it pauses.
    driving: bool,
    /// Another one that waits for the body.
    reader: Option<Waker>,
}

/// The body of the request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// There is none, or all of it has been read.
    Complete,
    /// Somebody has it.
    Held,
    /// Nobody wants it any more, and this is still to come.
    Left(Decoder),
}

/// What is to be said to a client that waits to be told to send the body of its request
/// (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GoAhead {
    NotNeeded,
    /// `100 Continue`, when somebody asks for the body.
    Owed,
    /// Nothing any more: it has been answered.
    Withheld,
}

/// Why no head of a request was read.
#[derive(Debug)]
pub(crate) enum NoHead {
    /// The client has gone.
    Gone,
    /// It is no request, or one that must not be read.
    Refused,
    TooLarge,
    Io(io::Error),
}

/// A [`Wire`] with two owners.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Wire>>);

impl Shared {
    pub(crate) fn new(wire: Wire) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wire, if nobody else has it any more.
    pub(crate) fn into_inner(self) -> Option<Wire> {
        let wire = Arc::into_inner(self.0)?;
        Some(wire.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wire {
    /// `begun` has been read from the stream.
    pub(crate) fn new(stream: TcpStream, begun: Inbox) -> Self {
        let mut wire = Self {
            stream,
            unseen: begun.octets.len(),
            inbox: begun,
            outbox: Outbox::default(),
            guard: RequestGuard::new(),
            refused: None,
            looked: 0,
            ended: false,
            upload: Upload::Complete,
            go_ahead: GoAhead::NotNeeded,
            driver: Waker::noop().clone(),
            driving: false,
            reader: None,
        };
        wire.show();
        wire
    }

    /// Shows what is unseen to the guard.
    fn show(&mut self) {
        let octets = &mut self.inbox.octets;
        let seen = octets.len() - self.unseen;
        match self.guard.feed(&octets[seen..]) {
            Ok(good) => self.unseen -= good,
            Err(refused) => {
                tracing::debug!("client connection: {refused}");
                octets.truncate(seen + refused.good());
                self.unseen = 0;
                self.refused = Some(refused);
            }
        }
    }

    /// Reads something, and tells how much; `0` at the end of the stream. What is refused of it is
    /// not there, and an error the next time.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.refused {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refused)));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let read = ready!(self.inbox.poll_fill(&mut self.stream, cx))?;
        self.ended = read == 0;
        self.unseen += read;
        self.show();
        Poll::Ready(Ok(read))
    }

    /// Reads the head of the next request.
    pub(crate) fn poll_head(
        &mut self,
        headers: &mut HeaderMap,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, NoHead>> {
        loop {
            if self.may_be_complete() {
                match request::take(&mut self.inbox.octets, LIMITS, headers) {
                    Ok(Some(head)) => {
                        self.looked = 0;
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => {}
                    Err(Malformed::HeadTooLarge) => return Poll::Ready(Err(NoHead::TooLarge)),
                    Err(malformed) => {
                        tracing::debug!("client connection: {malformed}");
                        return Poll::Ready(Err(NoHead::Refused));
                    }
                }
            }
            self.looked = self.inbox.octets.len();
            if self.refused.is_some() {
                return Poll::Ready(Err(NoHead::Refused));
            }
            if ready!(self.poll_fill(cx)).map_err(NoHead::Io)? == 0 {
                return Poll::Ready(Err(NoHead::Gone));
            }
        }
    }

    /// Whether there may be a complete head: what comes in pieces is not read from its beginning
    /// with each of them.
    fn may_be_complete(&self) -> bool {
        let octets = &self.inbox.octets;
        match self.looked {
            0 => !octets.is_empty(),
            looked => {
                let new = &octets[looked.saturating_sub(3)..];
                octets.len() >= LIMITS.octets || new.windows(4).any(|end| end == b"\r\n\r\n")
            }
        }
    }

    /// The next piece of a request's body.
    pub(crate) fn poll_piece(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        if self.go_ahead == GoAhead::Owed {
            self.go_ahead = GoAhead::NotNeeded;
            // Not if it has begun already (RFC 9110 §10.1.1).
            if self.inbox.octets.is_empty() {
                self.outbox.framing().extend_from_slice(CONTINUE);
                // What cannot go out now goes out with the response.
                let _ = self.outbox.poll_write(&mut self.stream, cx);
            }
        }
        loop {
            match decoder.next(&mut self.inbox.octets, LIMITS) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if decoder.is_complete() => return Poll::Ready(None),
                Ok(None) => {}
                Err(malformed) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, malformed);
                    return Poll::Ready(Some(Err(error)));
                }
            }
            if ready!(self.poll_fill(cx))? == 0 {
                let gone = "the client has gone before the body was complete";
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, gone);
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// The same, for whoever has the body: `cx` is its own.
    pub(crate) fn poll_piece_for(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        if self.driver.will_wake(cx.waker()) {
            return self.poll_piece(decoder, cx);
        }
        // The socket wakes the driver only, and that wakes the reader.
        let driver = self.driver.clone();
        let piece = self.poll_piece(decoder, &mut Context::from_waker(&driver));
        if piece.is_pending() {
            self.reader = Some(cx.waker().clone());
        }
        piece
    }

    /// To be called first whenever the connection is driven.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        self.driving = true;
        if !self.driver.will_wake(cx.waker()) {
            self.driver = cx.waker().clone();
        }
        if let Some(reader) = self.reader.take() {
            if self.stream.poll_read_ready(cx).is_ready() {
                reader.wake();
            } else {
                self.reader = Some(reader);
            }
        }
    }

    /// To be called when the driver has looked at everything, and waits.
    pub(crate) fn pause(&mut self) {
        self.driving = false;
    }

    /// Has the connection driven once more, for what somebody else has changed.
    pub(crate) fn wake_driver(&self) {
        if !self.driving {
            self.driver.wake_by_ref();
        }
    }

    /// The final response begins.
    pub(crate) fn answered(&mut self) {
        if self.go_ahead == GoAhead::Owed {
            self.go_ahead = GoAhead::Withheld;
        }
    }

    /// What there is to do while the client waits for its response.
    pub(crate) fn poll_answering(&mut self, cx: &mut Context<'_>) -> Poll<Rested> {
        // A `100`, if that could not go out before.
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Rested::Failed(error.into()));
        }
        let gone = self.poll_gone(cx);
        self.pause();
        gone.map(|()| Rested::Ended)
    }

    /// Writes what is to be written.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.outbox.is_empty() {
            true => Poll::Ready(Ok(())),
            false => self.outbox.poll_write(&mut self.stream, cx),
        }
    }

    /// Closes the connection; ready when it may be dropped.
    pub(crate) fn poll_close(&mut self, linger: &mut Linger, cx: &mut Context<'_>) -> Poll<()> {
        self.pause();
        let sending = self.upload != Upload::Complete && !self.ended;
        linger.poll(&mut self.stream, sending, cx)
    }

    /// Looks for whether the client has gone while it waits for its response. Ready when there is
    /// nobody to answer.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upload != Upload::Complete {
            // Whoever reads it finds out; but nobody may be reading.
            return match self.reader {
                Some(_) => Poll::Pending,
                None => self.poll_reset(cx),
            };
        }
        loop {
            let most = match self.guard.is_undecided() {
                true => MAX_UNSEEN,
                false => 1,
            };
            // What it asks for next can wait. That it has said all it had to say does not mean that
            // it has gone, if that was more than was asked for.
            if self.inbox.octets.len() >= most || self.refused.is_some() || self.ended {
                return self.poll_reset(cx);
            }
            // First, so that no room is made for what does not come.
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.inbox.octets.is_empty() => return Poll::Ready(()),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Ready if the connection has been reset.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut octet = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut octet)) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            // Something to read, or a client that has said all it had to say.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Reads and drops what is left of a body nobody wants, as far as that can be had at once. Tells
    /// whether that was all of it.
    pub(crate) fn drain(&mut self, mut decoder: Decoder, cx: &mut Context<'_>) -> bool {
        let mut left = BUFFER;
        // Whoever waits to be told to send may send it or not.
        if self.go_ahead != GoAhead::NotNeeded && self.inbox.octets.is_empty() {
            return false;
        }
        self.go_ahead = GoAhead::NotNeeded;
        loop {
            match self.poll_piece(&mut decoder, cx) {
                Poll::Ready(None) => {
                    self.upload = Upload::Complete;
                    return true;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let octets = frame.data_ref().map_or(0, Bytes::len);
                    match left.checked_sub(octets) {
                        Some(less) => left = less,
                        None => return false,
                    }
                }
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
    }

    /// Whether a part of a request has been read, and its rest is to come.
    pub(crate) fn is_amid_request(&self) -> bool {
        !self.guard.is_between_requests()
    }

    /// The request that asked for another protocol was answered, and HTTP goes on.
    pub(crate) fn stayed(&mut self) {
        self.guard.stayed();
        self.show();
    }

    /// What was read behind the request that has been answered with another protocol; an error if
    /// that request is not complete, because its rest would be taken for the other protocol.
    pub(crate) fn switched(mut self) -> Result<(TcpStream, Bytes), Refused> {
        self.guard.switched()?;
        let early: BytesMut = std::mem::take(&mut self.inbox.octets);
        Ok((self.stream, early.freeze()))
    }

    /// Gives memory back.
    pub(crate) fn rest(&mut self) {
        self.inbox.rest();
        self.inbox.octets = match self.inbox.octets.is_empty() {
            true => BytesMut::new(),
            false => std::mem::take(&mut self.inbox.octets),
        };
        self.outbox.shrink(0);
    }
}
