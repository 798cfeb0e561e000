//! The bodies that travel inward, with the connection they came on.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_ingress_core::{Body, BoxError, Error};
use mesh_ingress_headers::HeaderPresence;
use mesh_ingress_io::LazyTimer;
use mesh_ingress_io::splice::{Splice, SpliceBody};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::without_forbidden_trailers;
use crate::error::Failure;
use crate::overdue::Deadline;
use crate::pool::Pool;
use crate::{h1, h2};

/// The body of an upstream's response.
///
/// Holds the connection it arrives on: read to its end, the connection goes back to the pool;
/// dropped before, the connection is closed (HTTP/1) or the stream reset (HTTP/2), so that the
/// upstream stops working for nobody.
pub struct ResponseBody {
    kind: ResponseKind,
    /// An error that is held back for a moment.
    failed: Option<BoxError>,
    watched: Option<Watched>,
    /// What the head had when it came.
    fields: Option<HeaderPresence>,
    /// Counts the request as long as the body lives.
    in_flight: Option<OwnedSemaphorePermit>,
}

/// Watches for an upstream that stops sending in the middle, or takes too long in all.
struct Watched {
    idle: Option<Duration>,
    /// Since when nothing has come; `None` until that is asked for the first time.
    since: Option<Instant>,
    deadline: Option<Deadline>,
    /// Used where there is no connection with a timer of its own.
    timer: LazyTimer,
}

/// What has taken too long.
enum Overdue {
    /// Nothing has come for so long.
    Idle(Duration),
    Request(Deadline),
}

impl Watched {
    /// Ready when nothing has moved for the whole timeout.
    fn poll(&mut self, stream: Option<&mut LazyTimer>, cx: &mut Context<'_>) -> Poll<Overdue> {
        let idle = self.idle.map(|idle| {
            let since = self.since.get_or_insert_with(Instant::now);
            *since + idle
        });
        let deadline = self.deadline.map(|deadline| deadline.at);
        let Some(due) = idle.into_iter().chain(deadline).min() else {
            return Poll::Pending;
        };
        ready!(stream.unwrap_or(&mut self.timer).poll(cx, due));
        let late = self.deadline.filter(|deadline| deadline.at <= due);
        Poll::Ready(match (late, self.idle) {
            (None, Some(timeout)) => Overdue::Idle(timeout),
            (Some(deadline), _) => Overdue::Request(deadline),
            (None, None) => return Poll::Pending,
        })
    }
}

enum ResponseKind {
    Local(Body),
    Http1(h1::ResponseStream),
    Http2(h2::ResponseStream),
}

impl ResponseBody {
    pub(crate) fn http1(stream: h1::ResponseStream) -> Self {
        Self::of(ResponseKind::Http1(stream))
    }

    pub(crate) fn http2(stream: h2::ResponseStream) -> Self {
        Self::of(ResponseKind::Http2(stream))
    }

    fn of(kind: ResponseKind) -> Self {
        Self {
            kind,
            failed: None,
            watched: None,
            fields: None,
            in_flight: None,
        }
    }

    /// Fails when the upstream stops sending in the middle, or the deadline comes.
    pub(crate) fn watched(mut self, pool: &Pool, deadline: Option<Deadline>) -> Self {
        let idle = pool.settings.body_idle_timeout;
        if (idle.is_some() || deadline.is_some()) && !self.is_end_stream() {
            self.watched = Some(Watched {
                idle,
                since: None,
                deadline,
                timer: LazyTimer::default(),
            });
        }
        self
    }

    /// Holds a place among the requests in flight until the body is dropped.
    pub(crate) fn counted(mut self, place: Option<OwnedSemaphorePermit>) -> Self {
        self.in_flight = place;
        self
    }

    /// What the response's header section had when it came, of the fields that there are rules
    /// about; `None` for a response that did not come from an upstream. Since then the forwarder has
    /// taken fields away, and has added none but `Trailer`. Spares whoever comes next a look at each.
    #[must_use]
    pub fn fields(&self) -> Option<&HeaderPresence> {
        self.fields.as_ref()
    }

    pub(crate) fn with_fields(mut self, fields: HeaderPresence) -> Self {
        self.fields = Some(fields);
        self
    }

    /// Says in the response that this body [can be spliced](SpliceBody), if it can.
    pub(crate) fn advertise_splice(response: &mut Response<Self>) {
        let spliceable = match &response.body().kind {
            ResponseKind::Http1(stream) => stream.is_spliceable(),
            _ => false,
        };
        if spliceable {
            response.extensions_mut().insert(Splice::<Self>::new());
        }
    }

    /// The upstream it comes from.
    fn addr(&self) -> SocketAddr {
        match &self.kind {
            // None; only what comes from one is watched.
            ResponseKind::Local(_) => SocketAddr::from(([0; 4], 0)),
            ResponseKind::Http1(stream) => stream.addr(),
            ResponseKind::Http2(stream) => stream.addr(),
        }
    }

    /// Ready when the upstream has taken too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let timer = match &mut self.kind {
            ResponseKind::Http1(stream) => stream.timer(),
            _ => None,
        };
        let Some(watched) = &mut self.watched else {
            return Poll::Pending;
        };
        let error = match ready!(watched.poll(timer, cx)) {
            Overdue::Idle(timeout) => {
                let addr = self.addr();
                Failure::ResponseBodyTimeout { addr, timeout }.into_error()
            }
            Overdue::Request(deadline) => deadline.error(),
        };
        self.kind = ResponseKind::Local(Body::empty());
        self.watched = None;
        Poll::Ready(error)
    }

    /// No body.
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
    /// A response made by the gateway itself.
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
                // A server drops what it has not flushed yet when the body fails. Told one poll
                // later, it has sent what did arrive, and the client sees where it broke off.
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => self.poll_overdue(cx).map(|error| Some(Err(error.into()))),
            polled => {
                if let Some(watched) = &mut self.watched {
                    watched.since = None;
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

/// A body with a known length that comes over TCP without TLS, and of which at least 32 KiB are to come,
/// is spliced (Linux only). `SIGPIPE` must be ignored, as it is in a program whose `main` is Rust's.
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
            // Where nothing can be spliced the upstream's time goes on.
            let has_moved = !matches!(spliced, Poll::Pending | Poll::Ready(Ok(0)));
            if (waits_for_client || has_moved)
                && let Some(watched) = &mut self.watched
            {
                watched.since = None;
            }
            if spliced.is_ready() || waits_for_client {
                return spliced;
            }
            return self.poll_overdue(cx).map(|error| Err(error.into()));
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
