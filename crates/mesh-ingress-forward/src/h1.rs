//! One HTTP/1.1 connection to an upstream, driven by whoever uses it.
//!
//! hyper gives a connection as two halves: a handle to send requests, and a future that does the
//! I/O. The usual way is to spawn the future; then each request costs two wake-ups across tasks.
//! Here both halves stay together, and the task of the request drives the I/O: while it waits for
//! the response's head, and while its body is read. An idle connection is driven by nobody; it is
//! looked at when it is about to be used, and now and then by the maintenance task.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use mesh_ingress_core::{BoxError, Error};
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use crate::alarm::Alarm;
use crate::body::RequestBody;
use crate::budget::{Budgeted, HeadBudget};
use crate::error;
use crate::permit::Permit;
use crate::pool::Pool;
use crate::shard;
use crate::stream::Stream;
use crate::tls::Session;

type Driver = http1::Connection<TokioIo<Budgeted>, RequestBody>;
pub(crate) type Reply = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection, idle or in use.
pub(crate) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended without anything left to say.
    driver: Option<Driver>,
    /// The driver has ended.
    closed: bool,
    /// hyper's future of the response. Its type has no name; its box is kept with the connection.
    reply: ReusableBoxFuture<'static, Reply>,
    heads: HeadBudget,
    /// How many bytes may come before the head of a response is complete.
    head_budget: usize,
    alarm: Alarm,
    retire_at: Option<Instant>,
    requests_left: Option<u64>,
    reused: bool,
    sent_at: Instant,
    idle_since: Instant,
    /// The thread that opened it.
    home: usize,
    /// How often its pool had been drained when it was opened.
    era: u64,
    session: Session,
    permit: Permit,
}

/// Speaks HTTP/1.1 on a new transport.
pub(crate) async fn open(
    pool: &Pool,
    stream: Stream,
    permit: Permit,
) -> Result<Box<Connection>, Error> {
    let settings = &pool.settings;
    let session = stream.session();
    let heads = HeadBudget::default();
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(settings.max_buffer())
        .max_header_size(settings.max_header_size)
        .max_headers(settings.max_headers)
        .handshake(TokioIo::new(Budgeted::new(stream, heads.clone())))
        .await
        .map_err(|error| error::exchange(pool.upstream.addr(), error))?;
    let now = Instant::now();
    Ok(Box::new(Connection {
        sender,
        driver: Some(driver),
        closed: false,
        reply: ReusableBoxFuture::new(std::future::pending()),
        heads,
        head_budget: settings.max_header_size + settings.max_buffer(),
        alarm: Alarm::default(),
        retire_at: settings.max_lifetime.map(|life| now + jittered(life)),
        requests_left: settings.max_requests.map(jittered_count),
        reused: false,
        sent_at: now,
        idle_since: now,
        home: shard::of_this_thread(),
        era: pool.era(),
        session,
        permit,
    }))
}

/// Up to a tenth less, so that connections opened together do not all end together.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 - 0.1 * fastrand::f64())
}

pub(crate) fn jittered_count(count: u64) -> u64 {
    count - fastrand::u64(0..=count / 10)
}

impl Connection {
    /// Queues a request; [`poll_reply`](Self::poll_reply) sends it.
    pub(crate) fn send(&mut self, request: Request<RequestBody>) {
        // A new connection does not die of having been idle: what fails there failed for a reason.
        let repeatable = request.method().is_safe() && request.body().is_end_stream();
        self.heads
            .begin(self.head_budget, self.reused && repeatable);
        self.sent_at = Instant::now();
        if let Some(left) = &mut self.requests_left {
            *left = left.saturating_sub(1);
        }
        // Without a budget, because it is polled with a waker that does nothing: see below.
        let reply = tokio::task::unconstrained(self.sender.try_send_request(request));
        self.reply.set(reply);
    }

    /// Drives the connection until the head of the response is there.
    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        self.drive(cx);
        // All progress of the reply is made by the driver, which has just been driven with the
        // task's own waker. Registering that waker here, too, would wake the task by itself.
        let noop = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(reply) = self.reply.poll(noop) {
            if reply.is_ok() {
                self.heads.lift();
            }
            return Poll::Ready(reply);
        }
        if self.closed && self.driver.take().is_some() {
            // It ended without looking at the request, and gives it back when it is dropped.
            return self.reply.poll(noop);
        }
        Poll::Pending
    }

    /// Does what I/O can be done.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.closed {
            return;
        }
        if let Some(driver) = &mut self.driver {
            // What it ends with is also said to the reply or the body that waits for it.
            self.closed = driver.poll_without_shutdown(cx).is_ready();
        }
    }

    /// Does what I/O can be done at this moment, and waits for none. A task that has used up its
    /// budget must not be told that there is nothing to read.
    fn drive_at_once(&mut self) {
        let driven = std::future::poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        });
        let driven = std::pin::pin!(tokio::task::unconstrained(driven));
        let _ = driven.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Whether it could carry another request now. Reads what the upstream may have sent
    /// meanwhile: its end, or bytes that belong to nothing.
    pub(crate) fn is_usable(&mut self, now: Instant) -> bool {
        self.drive_at_once();
        self.sender.is_ready() && self.is_worth_keeping(now)
    }

    /// Whether it is worth a look later, as far as can be told without one now.
    pub(crate) fn is_worth_keeping(&self, now: Instant) -> bool {
        !self.closed
            && self.session.is_current()
            && self.requests_left != Some(0)
            && self.retire_at.is_none_or(|at| now < at)
    }

    /// Whether it has served a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// When the last request was sent.
    pub(crate) fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// A timer for whoever uses the connection.
    pub(crate) fn alarm(&mut self) -> &mut Alarm {
        &mut self.alarm
    }

    /// What is known of its TLS.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// How often its pool had been drained when it was opened.
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// The thread that opened it, as a number.
    pub(crate) fn home(&self) -> usize {
        self.home
    }

    /// How long it has been idle.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.idle_since)
    }

    /// Marks the begin of a pause.
    pub(crate) fn park(&mut self, now: Instant) {
        self.reused = true;
        self.idle_since = now;
    }

    /// The request that was sent last, if it may be sent again: it was sent on a reused connection
    /// that the upstream may have been closing, is safe, and had no body (RFC 9110 §9.2.2).
    pub(crate) fn take_replay(&mut self) -> Option<Request<RequestBody>> {
        if !self.heads.is_recorded() {
            return None;
        }
        let parts = self.driver.take()?.into_parts();
        self.closed = true;
        parts.io.into_inner().into_record().into_request()
    }

    /// The transport of a connection that has been switched to another protocol, what was read of
    /// that already, and the right to have it open.
    pub(crate) fn into_upgraded(mut self: Box<Self>) -> Option<(Stream, Bytes, Permit)> {
        // The end of the HTTP part may not have been seen yet.
        self.drive_at_once();
        if !self.closed {
            return None;
        }
        let this = *self;
        let parts = this.driver?.into_parts();
        Some((
            parts.io.into_inner().into_inner(),
            parts.read_buf,
            this.permit,
        ))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("reused", &self.reused)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// A response body, and the connection that it drives to get it.
pub(crate) struct ResponseStream {
    incoming: Incoming,
    /// `None` when the body is complete, or has failed.
    connection: Option<Box<Connection>>,
    pool: Arc<Pool>,
}

impl ResponseStream {
    pub(crate) fn new(incoming: Incoming, connection: Box<Connection>, pool: Arc<Pool>) -> Self {
        let mut stream = Self {
            incoming,
            connection: Some(connection),
            pool,
        };
        if stream.incoming.is_end_stream() {
            stream.finish();
        }
        stream
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // As with the reply: the driver makes all progress and holds the task's waker. What came
        // along with the head is there already.
        let noop = &mut Context::from_waker(Waker::noop());
        let mut polled = Pin::new(&mut self.incoming).poll_frame(noop);
        if polled.is_pending()
            && let Some(connection) = &mut self.connection
        {
            connection.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(noop);
        }
        if polled.is_pending() && self.connection.as_ref().is_none_or(|c| c.closed) {
            // The driver ended and said nothing to the body; dropped, it does.
            self.connection = None;
            polled = Pin::new(&mut self.incoming).poll_frame(noop);
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                // Nothing comes after trailers, and nobody asks for it.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let addr = self.pool.upstream.addr();
                let error = error::exchange(addr, error);
                let error = match self.connection.take() {
                    Some(connection) => connection.session.explain(error),
                    None => error,
                };
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// The timer of the connection, as long as there is one.
    pub(crate) fn alarm(&mut self) -> Option<&mut Alarm> {
        self.connection
            .as_mut()
            .map(|connection| connection.alarm())
    }

    /// The body is complete: the connection may be used again if the request is complete, too.
    fn finish(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.release(connection);
        }
    }
}

/// The error of a reply that will not come.
pub(crate) fn failed(pool: &Pool, error: hyper::Error) -> Error {
    let addr = pool.upstream.addr();
    // hyper calls it canceled when not a byte of the request was sent.
    let unsent = error.is_canceled();
    let error = error::exchange(addr, error);
    if unsent { error.retryable() } else { error }
}
