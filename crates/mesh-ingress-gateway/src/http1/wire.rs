//! What a client sends and is sent, as octets: the part of a connection that its driver and the body
//! of a request share.

mod shared;
mod watch;

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use mesh_ingress::headers::guard::{Refused, RequestGuard};
use mesh_ingress_http1::request::{self, Head};
use mesh_ingress_http1::{Decoder, Limits, Malformed};
use mesh_ingress_io::{Conn, ReadBuf, TryWrite, WriteBuf};

pub(crate) use self::shared::{Lent, Shared};

/// Bounds to a header section.
pub(crate) const LIMITS: Limits = Limits {
    bytes: 64 * 1024,
    fields: 100,
};
/// What may wait in memory of one connection, each way, as long as nobody takes it: as much as is
/// read at once from upstreams.
pub(crate) const BUFFER: usize = 416 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's socket, and what was read from it and is to be written to it. Of what was read, only
/// what a [`RequestGuard`] has let pass is looked at.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: Conn,
    inbox: ReadBuf,
    pub(crate) outbox: WriteBuf,
    guard: RequestGuard,
    refused: Option<Refused>,
    /// How many of the last octets in the inbox the guard has not seen: they follow a request that
    /// asks for another protocol, and only the answer tells what they are.
    unseen: usize,
    /// The request under way asked for another protocol, and its answer was that there is none: what
    /// follows it is HTTP.
    stays: bool,
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
    /// The socket was asked in vain, and will wake the driver when something comes.
    awaited: bool,
    reader: Reader,
    /// Octets that may still be read of a body nobody wants.
    scrap: usize,
    /// Nothing that comes is of a request any more.
    closed: bool,
    /// Something has come since that was last asked.
    moved: bool,
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

/// Another task than the one that serves the connection, waiting for a body. It is told, too, that
/// nothing comes any more.
#[derive(Debug, Default)]
struct Reader(Option<Waker>);

impl Reader {
    fn wake(&mut self) {
        if let Some(reader) = self.0.take() {
            reader.wake();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Writes what there is, without asking the runtime where it is small.
fn poll_flush(
    outbox: &mut WriteBuf,
    stream: &mut Conn,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    match stream {
        Conn::Tcp(stream) => outbox.poll_write(&mut TryWrite(stream), cx),
        stream => outbox.poll_write(stream, cx),
    }
}

impl Wire {
    /// `begun` has been read from the stream.
    pub(crate) fn new(stream: Conn, begun: ReadBuf) -> Self {
        let mut wire = Self {
            stream,
            unseen: begun.bytes().len(),
            inbox: begun,
            outbox: WriteBuf::default(),
            guard: RequestGuard::new(),
            refused: None,
            stays: false,
            looked: 0,
            ended: false,
            upload: Upload::Complete,
            go_ahead: GoAhead::NotNeeded,
            driver: Waker::noop().clone(),
            driving: false,
            awaited: false,
            reader: Reader::default(),
            scrap: BUFFER,
            closed: false,
            moved: false,
        };
        wire.show();
        wire
    }

    /// Shows what is unseen to the guard.
    fn show(&mut self) {
        loop {
            let octets = self.inbox.bytes_mut();
            let seen = octets.len().saturating_sub(self.unseen);
            match self.guard.feed(&octets[seen..]) {
                Ok(good) => self.unseen -= good,
                Err(refused) => {
                    tracing::debug!("client connection: {refused}");
                    octets.truncate(seen + refused.valid_up_to());
                    self.unseen = 0;
                    self.refused = Some(refused);
                }
            }
            // It may have been answered before it was complete.
            if !(self.guard.is_undecided() && self.stays) {
                return;
            }
            self.stays = false;
            self.guard.stayed();
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
        if self.is_quiet(cx) {
            return Poll::Pending;
        }
        let polled = self.inbox.poll_fill(&mut self.stream, cx);
        self.asked(polled.is_pending(), cx);
        let read = ready!(polled)?;
        self.ended = read == 0;
        self.moved = true;
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
            if self.unseen > 0 && self.unseen == self.inbox.bytes().len() {
                // What the guard has not looked at is no request.
                return Poll::Ready(Err(NoHead::Refused));
            }
            if self.may_be_complete() {
                match request::parse(self.inbox.bytes_mut(), LIMITS, headers) {
                    Ok(Some(head)) => {
                        self.inbox.settle();
                        self.looked = 0;
                        self.stays = false;
                        self.scrap = BUFFER;
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
            self.looked = self.inbox.bytes().len();
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
        let octets = self.inbox.bytes();
        match self.looked {
            0 => !octets.is_empty(),
            looked => {
                let new = octets.get(looked.saturating_sub(3)..).unwrap_or_default();
                octets.len() >= LIMITS.bytes || new.windows(4).any(|end| end == b"\r\n\r\n")
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
            if self.inbox.bytes().is_empty() {
                self.outbox.buffer().extend_from_slice(CONTINUE);
                // What cannot go out now goes out with the response.
                let _ = poll_flush(&mut self.outbox, &mut self.stream, cx);
            }
        }
        loop {
            let next = decoder.next(self.inbox.bytes_mut(), LIMITS);
            self.inbox.settle();
            match next {
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
        if self.closed {
            let gone = "the connection was closed before the body was complete";
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, gone);
            return Poll::Ready(Some(Err(error)));
        }
        if self.driver.will_wake(cx.waker()) {
            return self.poll_piece(decoder, cx);
        }
        // The socket wakes the driver only, and that wakes the reader.
        let driver = self.driver.clone();
        let piece = self.poll_piece(decoder, &mut Context::from_waker(&driver));
        // The thread of that task may not be the one that the socket is watched on.
        self.awaited = false;
        if piece.is_pending() {
            // Not a new `Reader`: the one before would wake whoever it is that is polled here.
            self.reader.0 = Some(cx.waker().clone());
        }
        piece
    }

    /// Whether a part of a request has been read, and its rest is to come.
    pub(crate) fn is_amid_request(&self) -> bool {
        !self.guard.is_between_requests()
    }

    /// The request that asked for another protocol was answered, and HTTP goes on.
    pub(crate) fn stayed(&mut self) {
        self.stays = true;
        self.show();
    }

    /// What was read behind the request that has been answered with another protocol; an error if
    /// that request is not complete, because its rest would be taken for the other protocol.
    pub(crate) fn switched(mut self) -> Result<(Conn, Bytes), Refused> {
        self.guard.switched()?;
        let early: BytesMut = std::mem::take(self.inbox.bytes_mut());
        Ok((self.stream, early.freeze()))
    }

    /// Gives memory back.
    pub(crate) fn rest(&mut self) {
        self.inbox.reset();
    }
}
