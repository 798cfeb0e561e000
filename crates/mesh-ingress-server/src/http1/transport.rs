//! A client's socket with its buffers: the part of a connection that its driver and the body of a
//! request share.

mod driver;
mod shared;

use std::io;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use mesh_ingress_headers::guard::{Refused, RequestGuard};
use mesh_ingress_http1::request::{self, Head};
use mesh_ingress_http1::{Decoder, Limits, Malformed};
use mesh_ingress_io::{Conn, ReadBuf, TryWrite, WriteBuf};

pub(super) use self::shared::{SharedTransport, TransportHandle};

/// Bounds of a header section.
pub(super) const LIMITS: Limits = Limits {
    bytes: crate::MAX_HEADER_BYTES,
    fields: 100,
};
/// How much of a request body that nobody wants is read to keep the connection.
pub(super) const MAX_DISCARDED: usize = 416 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's socket, what was read from it, and what is to be written to it. Only bytes that a
/// [`RequestGuard`] has let pass are parsed.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(super) conn: Conn,
    read_buf: ReadBuf,
    pub(super) write_buf: WriteBuf,
    guard: RequestGuard,
    refused: Option<Refused>,
    /// How many of the last bytes in the buffer the guard has not seen. They follow a request that asks
    /// for another protocol, and only the response tells what they are.
    unguarded: usize,
    /// The request under way asked for another protocol and was answered without one: what follows it
    /// is HTTP.
    not_switched: bool,
    /// How many bytes of an incomplete head have been searched for its end.
    scanned: usize,
    /// The client has sent its last byte.
    eof: bool,
    pub(super) body: BodyState,
    pub(super) expect: Expect100,
    /// The task that serves the connection: the only one that waits for the socket.
    driver: Waker,
    /// The driver is being polled and will look at everything before it pauses.
    driving: bool,
    /// The last read would have blocked, and the socket will wake the driver.
    read_registered: bool,
    reader: BodyReader,
    /// Bytes that may still be read of a body that nobody wants.
    discard_budget: usize,
    /// No request is read any more.
    closed: bool,
    /// Bytes have come since this was last asked.
    progressed: bool,
}

/// The body of the request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    /// There is none, or all of it has been read.
    Complete,
    /// The service has it.
    Held,
    /// The service has dropped it, and this is still to come.
    Abandoned(Decoder),
}

/// State of a client that waits for `100 Continue` with the body of its request (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect100 {
    None,
    /// `100 Continue`, once the service polls the body.
    Pending,
    /// Nothing any more: the final response has begun.
    Suppressed,
}

/// Why no head of a request was read.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The client has closed the connection.
    Closed,
    /// It is no request, or one that must not be served.
    Refused,
    TooLarge,
    Io(io::Error),
}

/// Another task than the driver that waits for a body. It is woken, too, when nothing comes any more.
#[derive(Debug, Default)]
struct BodyReader(Option<Waker>);

impl BodyReader {
    fn wake(&mut self) {
        if let Some(reader) = self.0.take() {
            reader.wake();
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        self.wake();
    }
}

impl Transport {
    /// `read_buf` holds what has been read from the connection already.
    pub(crate) fn new(conn: Conn, read_buf: ReadBuf) -> Self {
        let mut transport = Self {
            conn,
            unguarded: read_buf.bytes().len(),
            read_buf,
            write_buf: WriteBuf::default(),
            guard: RequestGuard::new(),
            refused: None,
            not_switched: false,
            scanned: 0,
            eof: false,
            body: BodyState::Complete,
            expect: Expect100::None,
            driver: Waker::noop().clone(),
            driving: false,
            read_registered: false,
            reader: BodyReader::default(),
            discard_budget: MAX_DISCARDED,
            closed: false,
            progressed: false,
        };
        transport.feed_guard();
        transport
    }

    /// Shows the guard what it has not seen.
    fn feed_guard(&mut self) {
        loop {
            let bytes = self.read_buf.bytes_mut();
            let seen = bytes.len().saturating_sub(self.unguarded);
            match self.guard.feed(&bytes[seen..]) {
                Ok(good) => self.unguarded -= good,
                Err(refused) => {
                    tracing::debug!("client connection: {refused}");
                    bytes.truncate(seen + refused.valid_up_to());
                    self.unguarded = 0;
                    self.refused = Some(refused);
                }
            }
            // A request may be answered before it is complete.
            if !(self.guard.is_undecided() && self.not_switched) {
                return;
            }
            self.not_switched = false;
            self.guard.stayed();
        }
    }

    /// Reads something and returns how much; `0` at the end of the stream. Refused bytes are not kept:
    /// the next read is an error.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.refused {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refused)));
        }
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.is_known_empty(cx) {
            return Poll::Pending;
        }
        let polled = self.read_buf.poll_fill(&mut self.conn, cx);
        self.note_read(&polled, cx);
        let read = ready!(polled)?;
        self.eof = read == 0;
        self.progressed = true;
        self.unguarded += read;
        self.feed_guard();
        Poll::Ready(Ok(read))
    }

    /// Reads the head of the next request. `headers` is an empty map whose capacity it reuses.
    pub(super) fn poll_head(
        &mut self,
        headers: &mut HeaderMap,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, NoHead>> {
        loop {
            if self.unguarded > 0 && self.unguarded == self.read_buf.bytes().len() {
                // Bytes that the guard has not seen are no request.
                return Poll::Ready(Err(NoHead::Refused));
            }
            if self.may_be_complete() {
                match request::parse(self.read_buf.bytes_mut(), LIMITS, headers) {
                    Ok(Some(head)) => {
                        self.read_buf.settle();
                        self.scanned = 0;
                        self.not_switched = false;
                        self.discard_budget = MAX_DISCARDED;
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
            self.scanned = self.read_buf.bytes().len();
            if self.refused.is_some() {
                return Poll::Ready(Err(NoHead::Refused));
            }
            if ready!(self.poll_fill(cx)).map_err(NoHead::Io)? == 0 {
                return Poll::Ready(Err(NoHead::Closed));
            }
        }
    }

    /// Whether the head may be complete, so that one that comes in many pieces is not parsed from its
    /// beginning with each of them.
    fn may_be_complete(&self) -> bool {
        let bytes = self.read_buf.bytes();
        match self.scanned {
            0 => !bytes.is_empty(),
            scanned => {
                let new = bytes.get(scanned.saturating_sub(3)..).unwrap_or_default();
                bytes.len() >= LIMITS.bytes || new.windows(4).any(|end| end == b"\r\n\r\n")
            }
        }
    }

    /// The next frame of a request's body.
    fn poll_frame(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        if self.expect == Expect100::Pending {
            self.expect = Expect100::None;
            // Not if the body has begun already (RFC 9110 §10.1.1).
            if self.read_buf.bytes().is_empty() {
                self.write_buf.buffer().extend_from_slice(CONTINUE);
                // Bytes that the socket does not take now go out with the response.
                let _ = self.poll_flush(cx);
            }
        }
        loop {
            let next = decoder.next(self.read_buf.bytes_mut(), LIMITS);
            self.read_buf.settle();
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

    /// The same for the service, in whatever task it polls the body.
    pub(super) fn poll_frame_of_service(
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
            return self.poll_frame(decoder, cx);
        }
        // The socket wakes only the driver, and the driver wakes the reader.
        let driver = self.driver.clone();
        let frame = self.poll_frame(decoder, &mut Context::from_waker(&driver));
        // That task may run on another thread than the one that watches the socket.
        self.read_registered = false;
        if frame.is_pending() {
            // Not a new `BodyReader`: dropping the old one would wake the task that is polled here.
            self.reader.0 = Some(cx.waker().clone());
        }
        frame
    }

    /// Whether a part of a request has been read, and its rest is to come.
    pub(super) fn is_amid_request(&self) -> bool {
        !self.guard.is_between_requests()
    }

    /// The request that asked for another protocol was answered without one, and HTTP goes on.
    pub(super) fn stay_http(&mut self) {
        self.not_switched = true;
        self.feed_guard();
    }

    /// The connection and what was read behind the request that was answered with a switch. An error
    /// if that request is not complete: its rest would be taken for the other protocol.
    pub(super) fn into_upgraded(mut self) -> Result<(Conn, Bytes), Refused> {
        self.guard.switched()?;
        let early: BytesMut = std::mem::take(self.read_buf.bytes_mut());
        Ok((self.conn, early.freeze()))
    }

    /// Writes what waits, without asking the runtime where that is little.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_buf.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.conn {
            Conn::Tcp(stream) => self.write_buf.poll_write(&mut TryWrite(stream), cx),
            conn => self.write_buf.poll_write(conn, cx),
        }
    }

    /// Whether it is as it was when it was made: then a new one can take its place.
    fn is_pristine(&self) -> bool {
        self.read_buf.bytes().is_empty()
            && self.write_buf.is_empty()
            && self.body == BodyState::Complete
            && self.refused.is_none()
            && !self.eof
            && self.guard.is_between_requests()
    }

    /// Frees what an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        self.read_buf.reset();
        self.write_buf.shrink();
    }
}
