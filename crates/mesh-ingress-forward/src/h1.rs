//! One HTTP/1.1 connection to an upstream, driven by whoever uses it.
//!
//! There is no task of the connection's own, and no channel to one: the task of the request writes
//! the request, reads the response's head, and reads its body while whoever wants the response asks
//! for it. So a request costs no wake-up across tasks, and what waits for a slow client waits in
//! the upstream's socket. An idle connection is driven by nobody; it is looked at when it is about
//! to be used, and now and then by the maintenance task.
//!
//! hyper's client does the same work behind a handle and a future of its own. Written for this one
//! use it takes half of the instructions; the request stays whole until the response begins, so
//! that it can be sent once more; and what is read of the upstream is read strictly.

mod fault;
mod response;
mod reuse;
mod sending;

use std::fmt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use hyper::ext::ReasonPhrase;
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_http1::{Decoder, Limits, Malformed, response as head};
use mesh_ingress_io::{LazyTimer, ReadBuf};
#[cfg(target_os = "linux")]
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) use fault::Fault;
pub(crate) use response::ResponseStream;
use sending::{Sending, Sent};

use crate::body::RequestBody;
use crate::permit::Permit;
use crate::pool::Pool;
use crate::shard;
use crate::stream::Stream;
use crate::tls::Session;

/// The head of a response, or why there is none.
pub(crate) type Reply = Result<Response<()>, Unanswered>;

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) fault: Fault,
    /// The request itself, if it may be sent again: nothing of it was sent, or it went out on a
    /// reused connection that the upstream may have been closing, is safe, and had no body
    /// (RFC 9110 §9.2.2).
    pub(crate) unsent: Option<Request<RequestBody>>,
}

/// A connection, idle or in use.
///
/// Of a thousand connections, each has been pushed out of the processor's caches by the others when
/// it is its turn, and each line of memory that is looked at is waited for. So it is small, and what
/// is looked at first is together.
#[repr(C)]
pub(crate) struct Connection {
    /// When it became idle; or when what it carries was sent, or rather when this connection was taken
    /// for that, a moment before.
    since: Instant,
    /// How often its pool had been drained when it was opened.
    era: u64,
    retire_at: Option<Instant>,
    /// `u64::MAX` if there is no bound.
    requests_left: u64,
    /// The response does not end the connection.
    keep_alive: bool,
    /// Something came since the request was begun.
    heard: bool,
    reused: bool,
    session: Session,
    stream: Stream,
    read_buf: ReadBuf,
    /// What of the response's body is to come.
    body: Decoder,
    /// Whole until something comes back; then for the rest of its body.
    request: Option<Request<RequestBody>>,
    sending: Sending,
    limits: Limits,
    /// Octets of interim responses there may still be.
    interim: usize,
    timer: LazyTimer,
    /// The thread that opened it.
    home: usize,
    permit: Permit,
}

/// A connection on a new transport. HTTP/1.1 has no handshake.
pub(crate) fn open(pool: &Pool, stream: Stream, permit: Permit) -> Box<Connection> {
    let settings = &pool.settings;
    let now = Instant::now();
    Box::new(Connection {
        session: stream.session(),
        stream,
        sending: Sending::default(),
        read_buf: ReadBuf::new(settings.max_buffer()),
        limits: Limits {
            bytes: settings.max_header_size,
            fields: settings.max_headers,
        },
        request: None,
        body: Decoder::Complete,
        keep_alive: true,
        heard: false,
        interim: 0,
        timer: LazyTimer::default(),
        retire_at: settings.max_lifetime.map(|life| now + jittered(life)),
        requests_left: settings.max_requests.map_or(u64::MAX, jittered_count),
        reused: false,
        since: now,
        home: shard::of_this_thread(),
        era: pool.era(),
        permit,
    })
}

/// Up to a tenth less, so that connections opened together do not all end together.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 - 0.1 * fastrand::f64())
}

pub(crate) fn jittered_count(count: u64) -> u64 {
    count - fastrand::u64(0..=count / 10)
}

impl Connection {
    /// Takes a request, and what it is to have besides its own fields; [`poll_reply`](Self::poll_reply)
    /// sends it.
    pub(crate) fn send(&mut self, request: Request<RequestBody>, further: Option<&PreparedFields>) {
        self.sending.begin(&request, further);
        self.request = Some(request);
        self.heard = false;
        self.interim = self.limits.bytes;
        self.requests_left = self.requests_left.saturating_sub(1);
    }

    /// Sends what can be sent, until the head of the response is there.
    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        let fault = match ready!(self.poll_head(cx)) {
            Ok(response) => return Poll::Ready(Ok(response)),
            Err(fault) => fault,
        };
        let again = match fault {
            Fault::Unsent => self.sending.is_whole(),
            // A new connection does not die of having been idle: what fails there failed for a
            // reason.
            _ => fault.is_gone() && self.reused && !self.heard && self.is_repeatable(),
        };
        let unsent = if again { self.request.take() } else { None };
        self.keep_alive = false;
        Poll::Ready(Err(Unanswered { fault, unsent }))
    }

    fn is_repeatable(&self) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|request| request.method().is_safe() && self.sending.is_bodiless())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Fault>> {
        let mut sent = Sent::More;
        if self.sending.is_unbegun() {
            // It may have ended since it was last looked at, and then nothing is lost yet.
            if !self.stream.is_quiet() {
                return Poll::Ready(Err(Fault::Unsent));
            }
            sent = self.poll_send(cx)?;
        }
        // An answer may come before the request is complete, and there may be no end to that.
        loop {
            if let Poll::Ready(head) = self.poll_receive(cx) {
                return Poll::Ready(head);
            }
            if sent != Sent::More {
                return Poll::Pending;
            }
            sent = self.poll_send(cx)?;
            if sent != Sent::More {
                // Nothing had come when it was last asked, and that wakes the task, too.
                return Poll::Pending;
            }
        }
    }

    /// Reads until the head is there.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Fault>> {
        loop {
            let known = self.read_buf.bytes().len();
            if ready!(self.read_buf.poll_fill(&mut self.stream, cx))? == 0 {
                return Poll::Ready(Err(self.sending.fault().unwrap_or(Fault::Incomplete)));
            }
            self.heard = true;
            let octets = self.read_buf.bytes();
            if !head::may_begin(octets) {
                let what = "it does not begin with HTTP/1";
                return Poll::Ready(Err(Malformed::Head(what.into()).into()));
            }
            // Without another line end it is not complete, and need not be looked at again.
            if !octets[known..].contains(&b'\n') && octets.len() < self.limits.bytes {
                continue;
            }
            while let Some(response) = self.take_head()? {
                match response.status() {
                    StatusCode::CONTINUE => self.asked_for_body(),
                    status if !is_interim(status) => return Poll::Ready(Ok(response)),
                    _ => {}
                }
            }
        }
    }

    /// Takes the head of a response off what has come, if it is all there.
    fn take_head(&mut self) -> Result<Option<Response<()>>, Fault> {
        if self.read_buf.bytes().is_empty() {
            return Ok(None);
        }
        let before = self.read_buf.bytes().len();
        let Some(request) = &mut self.request else {
            return Ok(None);
        };
        // Nobody asks for the request's own any more: their room serves the response's.
        let mut headers = std::mem::take(request.headers_mut());
        headers.clear();
        let octets = self.read_buf.bytes_mut();
        let head = head::parse(octets, request.method(), self.limits, &mut headers)?;
        let Some(mut head) = head else {
            *request.headers_mut() = headers;
            return Ok(None);
        };
        if is_interim(head.response.status()) {
            let octets = before - self.read_buf.bytes().len();
            let left = self.interim.checked_sub(octets);
            self.interim = left.ok_or(Fault::EndlessInterim)?;
            return Ok(Some(head.response));
        }
        self.read_buf.settle();
        self.body = head.body;
        if let Some(reason) = head.reason.take()
            && let Ok(reason) = ReasonPhrase::try_from(reason)
        {
            head.response.extensions_mut().insert(reason);
        }
        self.keep_alive = head.keep_alive;
        if self.sending.is_done() {
            self.request = None;
        }
        Ok(Some(head.response))
    }

    fn asked_for_body(&mut self) {
        if let Some(request) = &mut self.request {
            request.body_mut().asked_for();
        }
    }

    /// Sends what can be sent of the request.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<Sent, Fault> {
        let request = self.request.as_mut();
        self.sending.poll(&mut self.stream, request, cx)
    }

    /// The next piece of the response's body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut sent = match self.poll_send(cx) {
            Ok(sent) => sent,
            Err(fault) => return Poll::Ready(Some(Err(fault))),
        };
        loop {
            let next = self.body.next(self.read_buf.bytes_mut(), self.limits);
            self.read_buf.settle();
            if let Some(next) = next.transpose() {
                return Poll::Ready(Some(next.map_err(Fault::from)));
            }
            if self.body.is_complete() {
                return Poll::Ready(None);
            }
            match self.read_buf.poll_fill(&mut self.stream, cx) {
                // Who fails to send takes the error that told of a reset: then this is no end.
                Poll::Ready(Ok(0)) => match (self.sending.fault(), self.body) {
                    (None, Decoder::UntilClose) => {
                        self.body = Decoder::Complete;
                        self.keep_alive = false;
                    }
                    (fault, _) => {
                        let fault = fault.unwrap_or(Fault::Incomplete);
                        return Poll::Ready(Some(Err(fault)));
                    }
                },
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending if sent != Sent::More => return Poll::Pending,
                Poll::Pending => match self.poll_send(cx) {
                    Ok(more) => sent = more,
                    Err(fault) => return Poll::Ready(Some(Err(fault))),
                },
            }
        }
    }

    /// The socket that the rest of the response's body can be spliced from, and how much is to come.
    #[cfg(target_os = "linux")]
    pub(crate) fn spliceable(&mut self) -> Option<(&TcpStream, &mut u64)> {
        let ready = self.read_buf.bytes().is_empty() && self.sending.is_done();
        match (&self.stream, &mut self.body) {
            (Stream::Plain(stream), Decoder::Length(left)) if ready => Some((stream, left)),
            _ => None,
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn is_plain_tcp(&self) -> bool {
        matches!(self.stream, Stream::Plain(_))
    }

    /// Its bodies are spliced: the buffer is to hold heads, and not much more.
    #[cfg(target_os = "linux")]
    pub(crate) fn begin_splice(&mut self) {
        self.read_buf.reset();
    }

    /// All of the body has been spliced.
    #[cfg(target_os = "linux")]
    pub(crate) fn end_splice(&mut self) {
        self.body = Decoder::Complete;
    }

    /// The response is complete: what can be sent of the request without waiting is sent, and then
    /// it is over.
    fn finish(&mut self) {
        if !self.sending.is_done() {
            // A few pieces at most. Where that is not all, the connection is not used again.
            let sent = std::future::poll_fn(|cx| {
                let _ = self.poll_send(cx);
                Poll::Ready(())
            });
            let sent = std::pin::pin!(tokio::task::unconstrained(sent));
            let _ = sent.poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
        self.request = None;
    }

    /// When the request that it carries was sent.
    pub(crate) fn sent_at(&self) -> Instant {
        self.since
    }

    /// A timer for whoever uses the connection.
    pub(crate) fn timer(&mut self) -> &mut LazyTimer {
        &mut self.timer
    }

    /// What is known of its TLS.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The transport of a connection that has been switched to another protocol, what was read of
    /// that already, and the right to have it open.
    pub(crate) fn into_upgraded(self: Box<Self>) -> Option<(Stream, Bytes, Permit)> {
        let this = *self;
        this.sending
            .is_done()
            .then(|| (this.stream, this.read_buf.into_bytes(), this.permit))
    }
}

/// Whether another response follows, the final one or one more like it.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("reused", &self.reused)
            .field("sending", &self.sending)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
