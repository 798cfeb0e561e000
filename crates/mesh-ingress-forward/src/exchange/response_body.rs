//! The body of a response, with the connection it comes on.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_ingress_core::{Body, BoxError, Error};
use mesh_ingress_headers::HeaderPresence;
use mesh_ingress_io::LazyTimer;
use mesh_ingress_io::splice::SpliceBody;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::timeouts::Deadline;
use crate::body::without_forbidden_trailers;
use crate::conn::{http1, http2};
use crate::error::ForwardError;
use crate::pool::Pool;

/// The body of an upstream's response.
///
/// It holds the connection it arrives on. Read to its end, it gives the connection back to the
/// pool. Dropped before, it closes the connection (HTTP/1) or resets the stream (HTTP/2), so that
/// the upstream stops working on the response.
pub struct ResponseBody {
    kind: ResponseKind,
    /// An error that the next poll returns.
    failed: Option<BoxError>,
    timeouts: Option<BodyTimeouts>,
    /// The fields that the head had when it came.
    header_presence: Option<HeaderPresence>,
    /// Counts the request as in flight.
    in_flight: Option<OwnedSemaphorePermit>,
}

/// The timeouts of an upstream that stops sending in the middle, or takes too long in all.
struct BodyTimeouts {
    idle: Option<Duration>,
    /// When the connection was first polled in vain since the last frame.
    since: Option<Instant>,
    deadline: Option<Deadline>,
    /// Used if there is no connection with a timer of its own.
    timer: LazyTimer,
}

/// A timeout that has passed.
enum TimedOut {
    Idle(Duration),
    Request(Deadline),
}

impl BodyTimeouts {
    /// Ready when a timeout has passed.
    fn poll(&mut self, stream: Option<&mut LazyTimer>, cx: &mut Context<'_>) -> Poll<TimedOut> {
        let idle = self.idle.map(|idle| {
            let since = self.since.get_or_insert_with(Instant::now);
            *since + idle
        });
        let deadline = self.deadline.map(|deadline| deadline.at);
        let Some(due) = idle.into_iter().chain(deadline).min() else {
            return Poll::Pending;
        };
        ready!(stream.unwrap_or(&mut self.timer).poll(cx, due));
        let passed = self.deadline.filter(|deadline| deadline.at <= due);
        Poll::Ready(match (passed, self.idle) {
            (None, Some(timeout)) => TimedOut::Idle(timeout),
            (Some(deadline), _) => TimedOut::Request(deadline),
            (None, None) => return Poll::Pending,
        })
    }
}

enum ResponseKind {
    Local(Body),
    Http1(http1::ResponseStream<Pool>),
    Http2(http2::ResponseStream<Pool>),
}

impl ResponseBody {
    pub(super) fn http1(stream: http1::ResponseStream<Pool>) -> Self {
        Self::of(ResponseKind::Http1(stream))
    }

    pub(super) fn http2(stream: http2::ResponseStream<Pool>) -> Self {
        Self::of(ResponseKind::Http2(stream))
    }

    fn of(kind: ResponseKind) -> Self {
        Self {
            kind,
            failed: None,
            timeouts: None,
            header_presence: None,
            in_flight: None,
        }
    }

    /// Fails when the upstream stops sending in the middle, or at the deadline.
    pub(super) fn with_timeouts(mut self, pool: &Pool, deadline: Option<Deadline>) -> Self {
        let idle = pool.settings.body_idle_timeout;
        if (idle.is_some() || deadline.is_some()) && !self.is_end_stream() {
            self.timeouts = Some(BodyTimeouts {
                idle,
                since: None,
                deadline,
                timer: LazyTimer::default(),
            });
        }
        self
    }

    /// Counts the request as in flight until the body is dropped.
    pub(super) fn with_in_flight_permit(mut self, permit: Option<OwnedSemaphorePermit>) -> Self {
        self.in_flight = permit;
        self
    }

    /// The fields of the response's head when it came from the upstream; `None` for a response of
    /// the gateway. Since then the forwarder has removed fields, and added none but `Trailer`.
    // Hidden: the facade uses it to skip lookups. It says nothing of fields that other layers add.
    #[doc(hidden)]
    #[must_use]
    pub fn header_presence(&self) -> Option<&HeaderPresence> {
        self.header_presence.as_ref()
    }

    pub(super) fn with_header_presence(mut self, presence: HeaderPresence) -> Self {
        self.header_presence = Some(presence);
        self
    }

    /// The upstream's address.
    fn addr(&self) -> SocketAddr {
        match &self.kind {
            // Not used: only bodies of an upstream have timeouts.
            ResponseKind::Local(_) => SocketAddr::from(([0; 4], 0)),
            ResponseKind::Http1(stream) => stream.addr(),
            ResponseKind::Http2(stream) => stream.addr(),
        }
    }

    /// Ready with an error when a timeout has passed.
    fn poll_timeouts(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let timer = match &mut self.kind {
            ResponseKind::Http1(stream) => stream.timer(),
            _ => None,
        };
        let Some(timeouts) = &mut self.timeouts else {
            return Poll::Pending;
        };
        let error = match ready!(timeouts.poll(timer, cx)) {
            TimedOut::Idle(timeout) => {
                let addr = self.addr();
                ForwardError::ResponseBodyTimeout { addr, timeout }.into_error()
            }
            TimedOut::Request(deadline) => deadline.error(),
        };
        self.kind = ResponseKind::Local(Body::empty());
        self.timeouts = None;
        Poll::Ready(error)
    }

    /// An empty body.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(ResponseKind::Local(Body::empty()))
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Body> for ResponseBody {
    /// The body of a response of the gateway itself.
    fn from(body: Body) -> Self {
        Self::of(ResponseKind::Local(body))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match &mut self.kind {
            ResponseKind::Local(body) => Pin::new(body).poll_frame(cx),
            ResponseKind::Http1(stream) => stream.poll_frame(cx),
            ResponseKind::Http2(stream) => stream.poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Err(error))) => {
                // A server discards bytes that it has not flushed when the body fails. If it learns
                // of the error one poll later, it has flushed them, and the client sees where the
                // body broke off.
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => self.poll_timeouts(cx).map(|error| Some(Err(error.into()))),
            polled => {
                if let Some(timeouts) = &mut self.timeouts {
                    timeouts.since = None;
                }
                without_forbidden_trailers(polled)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseKind::Local(body) => body.is_end_stream(),
            ResponseKind::Http1(stream) => stream.is_end_stream(),
            ResponseKind::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseKind::Local(body) => body.size_hint(),
            ResponseKind::Http1(stream) => stream.size_hint(),
            ResponseKind::Http2(stream) => stream.size_hint(),
        }
    }
}

/// A body is spliced if it has a known length, comes over TCP without TLS, and has at least 32 KiB
/// left (Linux only). `SIGPIPE` must be ignored, as it is in a program whose `main` is Rust's.
impl SpliceBody for ResponseBody {
    fn poll_splice(
        mut self: Pin<&mut Self>,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BoxError>> {
        #[cfg(target_os = "linux")]
        if let ResponseKind::Http1(stream) = &mut self.kind {
            let spliced = stream.poll_splice(to, cx);
            let waits_for_client = stream.is_splicing();
            // The timeout of the upstream goes on if nothing could be spliced.
            let has_spliced = !matches!(spliced, Poll::Pending | Poll::Ready(Ok(0)));
            if (waits_for_client || has_spliced)
                && let Some(timeouts) = &mut self.timeouts
            {
                timeouts.since = None;
            }
            if spliced.is_ready() || waits_for_client {
                return spliced;
            }
            return self.poll_timeouts(cx).map(|error| Err(error.into()));
        }
        let _ = (to, cx);
        Poll::Ready(Ok(0))
    }

    fn is_splicing(&self) -> bool {
        match &self.kind {
            #[cfg(target_os = "linux")]
            ResponseKind::Http1(stream) => stream.is_splicing(),
            _ => false,
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            ResponseKind::Local(_) => "local",
            ResponseKind::Http1(_) => "http1",
            ResponseKind::Http2(_) => "h2c",
        };
        f.debug_tuple("ResponseBody").field(&kind).finish()
    }
}
