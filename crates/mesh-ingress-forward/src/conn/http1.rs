//! One HTTP/1.1 connection to an upstream, driven by the task that uses it.
//!
//! The connection has no task of its own, and no channel to one: the task of the request writes the
//! request and reads the response's head, and the task that reads the response's body drives the
//! rest. So a request costs no wake-up across tasks, and a slow client leaves its bytes in the
//! upstream's socket. Nothing drives an idle connection; its socket is checked when it is about to
//! be reused, and now and then by the maintenance task.
//!
//! hyper's client does the same work behind a handle and a future of its own. This one takes half
//! of the instructions, keeps the request whole until the response begins, so that it can be sent
//! once more, and parses the response strictly.

mod error;
mod keep_alive;
mod request;
mod response;

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use http_body::Frame;
use hyper::ext::ReasonPhrase;
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_http1::{Decoder, Limits, Malformed, response as head};
use mesh_ingress_io::{LazyTimer, ReadBuf};
#[cfg(target_os = "linux")]
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::error::ExchangeError;
use self::request::{RequestWriter, Written};
pub(crate) use self::response::{ConnectionPool, ResponseStream};
use super::{jittered, jittered_count};
use crate::body::RequestBody;
use crate::connect::{Stream, TlsState};
use crate::settings::Settings;

/// The head of a response, or why there is none.
pub(crate) type Reply = Result<Response<()>, SendError>;

/// A request without a response.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) error: ExchangeError,
    /// The request itself, if it may be sent again: nothing of it was sent, or it went out on a
    /// reused connection that the upstream may have been closing, is safe, and had no body
    /// (RFC 9110 §9.2.2).
    pub(crate) unsent: Option<Request<RequestBody>>,
}

/// A connection, idle or in use. It holds `G` while it is open.
///
/// Among a thousand connections, each has been evicted from the processor's caches when it is used
/// again, and every cache line it touches is a wait for memory. So it is small, and the fields that
/// are read first are next to each other.
#[repr(C)]
pub(crate) struct Connection<G> {
    /// When it became idle; or, in use, when it was taken for its request, just before that was
    /// sent.
    since: Instant,
    /// The generation of its pool when it was opened.
    generation: u64,
    retire_at: Option<Instant>,
    /// `u64::MAX` if there is no limit.
    requests_left: u64,
    /// The response does not end the connection.
    keep_alive: bool,
    /// Bytes were received since the request began.
    received: bool,
    reused: bool,
    tls: TlsState,
    stream: Stream,
    read_buf: ReadBuf,
    /// Decodes the rest of the response's body.
    body: Decoder,
    /// Whole until the response begins; then kept for the rest of its body.
    request: Option<Request<RequestBody>>,
    writer: RequestWriter,
    limits: Limits,
    /// How many more bytes of interim responses are accepted.
    interim_left: usize,
    timer: LazyTimer,
    /// The idle list it goes back to.
    shard: usize,
    guard: G,
}

impl<G> Connection<G> {
    /// A connection on a new stream: HTTP/1.1 has no handshake. `generation` and `shard` are for
    /// its pool; `guard` is dropped when the connection is closed.
    pub(crate) fn new(
        settings: &Settings,
        stream: Stream,
        generation: u64,
        shard: usize,
        guard: G,
    ) -> Box<Self> {
        let now = Instant::now();
        Box::new(Self {
            tls: stream.tls_state(),
            stream,
            writer: RequestWriter::default(),
            read_buf: ReadBuf::new(settings.max_buffer()),
            limits: Limits {
                bytes: settings.max_header_size,
                fields: settings.max_headers,
            },
            request: None,
            body: Decoder::Complete,
            keep_alive: true,
            received: false,
            interim_left: 0,
            timer: LazyTimer::default(),
            retire_at: settings.max_lifetime.map(|life| now + jittered(life)),
            requests_left: settings.max_requests.map_or(u64::MAX, jittered_count),
            reused: false,
            since: now,
            shard,
            generation,
            guard,
        })
    }

    /// Takes a request, and fields to add to its own; [`poll_reply`](Self::poll_reply) sends it.
    pub(crate) fn send(
        &mut self,
        request: Request<RequestBody>,
        extra_headers: Option<&PreparedFields>,
    ) {
        self.writer.begin(&request, extra_headers);
        self.request = Some(request);
        self.received = false;
        self.interim_left = self.limits.bytes;
        self.requests_left = self.requests_left.saturating_sub(1);
    }

    /// Sends the request and reads until the response's head is complete.
    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let error = match ready!(self.poll_head(cx)) {
            Ok(response) => return Poll::Ready(Ok(response)),
            Err(error) => error,
        };
        let again = match error {
            ExchangeError::Unsent => self.writer.is_whole(),
            // A new connection cannot have been closed for being idle: its failure has another
            // cause.
            _ => error.is_disconnect() && self.reused && !self.received && self.is_repeatable(),
        };
        let unsent = if again { self.request.take() } else { None };
        self.keep_alive = false;
        Poll::Ready(Err(SendError { error, unsent }))
    }

    fn is_repeatable(&self) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|request| request.method().is_safe() && self.writer.is_bodiless())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, ExchangeError>> {
        let mut written = Written::More;
        if self.writer.is_unsent() {
            // The upstream may have closed it since the last check; nothing is lost yet.
            if !self.stream.is_quiet() {
                return Poll::Ready(Err(ExchangeError::Unsent));
            }
            written = self.poll_write(cx)?;
        }
        // A response may come before the request is complete, and the request may have no end.
        loop {
            if let Poll::Ready(head) = self.poll_receive(cx) {
                return Poll::Ready(head);
            }
            if written != Written::More {
                return Poll::Pending;
            }
            written = self.poll_write(cx)?;
            if written != Written::More {
                // The read above was pending, and wakes the task, too.
                return Poll::Pending;
            }
        }
    }

    /// Reads until the response's head is complete.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, ExchangeError>> {
        loop {
            let parsed = self.read_buf.bytes().len();
            if ready!(self.read_buf.poll_fill(&mut self.stream, cx))? == 0 {
                return Poll::Ready(Err(self
                    .writer
                    .take_error()
                    .unwrap_or(ExchangeError::Incomplete)));
            }
            self.received = true;
            let bytes = self.read_buf.bytes();
            if !head::may_begin(bytes) {
                let reason = "it does not begin with HTTP/1";
                return Poll::Ready(Err(Malformed::Head(reason.into()).into()));
            }
            // Without another line end the head is not complete, and need not be parsed again.
            if !bytes[parsed..].contains(&b'\n') && bytes.len() < self.limits.bytes {
                continue;
            }
            while let Some(response) = self.take_head()? {
                match response.status() {
                    StatusCode::CONTINUE => self.release_body(),
                    status if !is_interim(status) => return Poll::Ready(Ok(response)),
                    _ => {}
                }
            }
        }
    }

    /// Takes the head of a response off the read buffer, if it is complete.
    fn take_head(&mut self) -> Result<Option<Response<()>>, ExchangeError> {
        if self.read_buf.bytes().is_empty() {
            return Ok(None);
        }
        let before = self.read_buf.bytes().len();
        let Some(request) = &mut self.request else {
            return Ok(None);
        };
        // The request's own fields are not needed any more: the response's reuse their memory.
        let mut headers = std::mem::take(request.headers_mut());
        headers.clear();
        let bytes = self.read_buf.bytes_mut();
        let head = head::parse(bytes, request.method(), self.limits, &mut headers)?;
        let Some(mut head) = head else {
            *request.headers_mut() = headers;
            return Ok(None);
        };
        if is_interim(head.response.status()) {
            let bytes = before - self.read_buf.bytes().len();
            let left = self.interim_left.checked_sub(bytes);
            self.interim_left = left.ok_or(ExchangeError::EndlessInterim)?;
            return Ok(Some(head.response));
        }
        self.read_buf.settle();
        self.body = head.body;
        if !head.response.extensions().is_empty() {
            keep_reason(head.response.extensions_mut());
        }
        self.keep_alive = head.keep_alive;
        if self.writer.is_done() {
            self.request = None;
        }
        Ok(Some(head.response))
    }

    fn release_body(&mut self) {
        if let Some(request) = &mut self.request {
            request.body_mut().release();
        }
    }

    /// Writes as much of the request as the stream takes.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Written, ExchangeError> {
        let request = self.request.as_mut();
        self.writer.poll(&mut self.stream, request, cx)
    }

    /// The next frame of the response's body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let mut written = match self.poll_write(cx) {
            Ok(written) => written,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        loop {
            let next = self.body.next(self.read_buf.bytes_mut(), self.limits);
            self.read_buf.settle();
            if let Some(next) = next.transpose() {
                return Poll::Ready(Some(next.map_err(ExchangeError::from)));
            }
            if self.body.is_complete() {
                return Poll::Ready(None);
            }
            match self.read_buf.poll_fill(&mut self.stream, cx) {
                // A failed write takes the socket's error, so that a reset reads as an end here.
                Poll::Ready(Ok(0)) => match (self.writer.take_error(), self.body) {
                    (None, Decoder::UntilClose) => {
                        self.body = Decoder::Complete;
                        self.keep_alive = false;
                    }
                    (error, _) => {
                        let error = error.unwrap_or(ExchangeError::Incomplete);
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending if written != Written::More => return Poll::Pending,
                Poll::Pending => match self.poll_write(cx) {
                    Ok(more) => written = more,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }

    /// The socket that the rest of the response's body can be spliced from, and its remaining
    /// length.
    #[cfg(target_os = "linux")]
    pub(crate) fn spliceable(&mut self) -> Option<(&TcpStream, &mut u64)> {
        let ready = self.read_buf.bytes().is_empty() && self.writer.is_done();
        match (&self.stream, &mut self.body) {
            (Stream::Plain(stream), Decoder::Length(left)) if ready => Some((stream, left)),
            _ => None,
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn is_plain_tcp(&self) -> bool {
        matches!(self.stream, Stream::Plain(_))
    }

    /// Its bodies are spliced: the read buffer shrinks to the size of heads.
    #[cfg(target_os = "linux")]
    pub(crate) fn begin_splice(&mut self) {
        self.read_buf.reset();
    }

    /// All of the body has been spliced.
    #[cfg(target_os = "linux")]
    pub(crate) fn end_splice(&mut self) {
        self.body = Decoder::Complete;
    }

    /// The response is complete: writes as much of the request as the stream takes without waiting,
    /// and ends the exchange.
    fn finish(&mut self) {
        if !self.writer.is_done() {
            // A few frames at most. If that is not all, the connection is not reused.
            let written = std::future::poll_fn(|cx| {
                let _ = self.poll_write(cx);
                Poll::Ready(())
            });
            let written = std::pin::pin!(tokio::task::unconstrained(written));
            let _ = written.poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
        self.request = None;
    }

    /// When its request was sent.
    pub(crate) fn sent_at(&self) -> Instant {
        self.since
    }

    /// A timer for the exchange on the connection.
    pub(crate) fn timer(&mut self) -> &mut LazyTimer {
        &mut self.timer
    }

    pub(crate) fn tls(&self) -> &TlsState {
        &self.tls
    }

    /// The stream of a connection that has switched to another protocol, the bytes of that protocol
    /// that were read already, and the guard. `None` if the request is not complete.
    pub(crate) fn into_upgraded(self) -> Option<(Stream, Bytes, G)> {
        self.writer
            .is_done()
            .then(|| (self.stream, self.read_buf.into_bytes(), self.guard))
    }
}

/// Keeps a reason phrase as hyper does, for whatever server comes next.
#[cold]
fn keep_reason(extensions: &mut Extensions) {
    let reason = extensions.remove::<head::ReasonPhrase>();
    if let Some(Ok(reason)) = reason.map(|reason| ReasonPhrase::try_from(reason.0)) {
        extensions.insert(reason);
    }
}

/// Whether another response follows: the final one or one more interim one.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

impl<G> fmt::Debug for Connection<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("reused", &self.reused)
            .field("writer", &self.writer)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
