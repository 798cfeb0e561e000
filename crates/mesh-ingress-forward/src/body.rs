//! The bodies that travel: outward with progress kept, inward with the connection they came on.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_ingress_core::{Body, BoxError, Error};
use mesh_ingress_headers::trailers;
use tokio::time::{Instant, Sleep};

use crate::error::Failure;
use crate::pool::Pool;
use crate::{h1, h2};

/// The body of a request on its way to an upstream.
///
/// Made of any body; hyper's own and ours go through unboxed.
pub struct RequestBody {
    kind: RequestKind,
    progress: Option<Arc<Progress>>,
}

enum RequestKind {
    Incoming(Incoming),
    Body(Body),
}

impl RequestBody {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        let kind = if let Some(incoming) = take_as::<B, Incoming>(&mut body) {
            RequestKind::Incoming(incoming)
        } else if let Some(ours) = take_as::<B, Body>(&mut body) {
            RequestKind::Body(ours)
        } else {
            RequestKind::Body(body.map_or_else(Body::empty, Body::new))
        };
        let mut body = Self {
            kind,
            progress: None,
        };
        if !body.is_end_stream() {
            body.progress = Some(Arc::default());
        }
        body
    }

    pub(crate) fn empty() -> Self {
        Self {
            kind: RequestKind::Body(Body::empty()),
            progress: None,
        }
    }

    /// How far the body has come; `None` for a request without one.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }
}

/// Takes a `B` out as a `T` if they are the same type, without boxing.
fn take_as<B: 'static, T: 'static>(body: &mut Option<B>) -> Option<T> {
    (body as &mut dyn Any)
        .downcast_mut::<Option<T>>()
        .and_then(Option::take)
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.kind {
            RequestKind::Incoming(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            RequestKind::Body(body) => Pin::new(body).poll_frame(cx),
        };
        let polled = without_forbidden_trailers(polled);
        if let (Some(progress), Poll::Ready(frame)) = (&self.progress, &polled) {
            if frame.is_none() || self.is_end_stream() {
                progress.finish();
            } else {
                progress.advance();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            RequestKind::Incoming(body) => body.is_end_stream(),
            RequestKind::Body(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            RequestKind::Incoming(body) => body.size_hint(),
            RequestKind::Body(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Trailers come when all is decided: they must not say what would have decided otherwise
/// (RFC 9110 §6.5.1).
fn without_forbidden_trailers(mut polled: Polled) -> Polled {
    if let Poll::Ready(Some(Ok(frame))) = &mut polled
        && let Some(fields) = frame.trailers_mut()
    {
        trailers::filter(fields);
    }
    polled
}

/// When a request body last moved.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    /// Milliseconds after `started`.
    moved: AtomicU64,
    finished: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            moved: AtomicU64::new(0),
            finished: AtomicBool::new(false),
        }
    }
}

impl Progress {
    fn advance(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    fn finish(&self) {
        self.advance();
        self.finished.store(true, Ordering::Relaxed);
    }

    /// When the body last moved, and whether that was its end.
    pub(crate) fn last(&self) -> (Instant, bool) {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        (self.started + moved, self.finished.load(Ordering::Relaxed))
    }
}

/// The body of an upstream's response.
///
/// Holds the connection it arrives on: read to its end, the connection goes back to the pool;
/// dropped before, the connection is closed (HTTP/1) or the stream reset (HTTP/2), so that the
/// upstream stops working for nobody.
pub struct ResponseBody {
    kind: ResponseKind,
    /// An error that is held back for a moment.
    failed: Option<BoxError>,
    stalled: Option<Stalled>,
}

/// Watches for an upstream that stops sending in the middle.
struct Stalled {
    addr: SocketAddr,
    timeout: Duration,
    moved: Instant,
    /// Made when something has to be waited for; most bodies are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stalled {
    /// Ready when nothing has moved for the whole timeout.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.moved + self.timeout)));
        while timer.as_mut().poll(cx).is_ready() {
            // The timer is not set anew for each piece: it looks when it is due.
            let due = self.moved + self.timeout;
            if due <= Instant::now() {
                let (addr, timeout) = (self.addr, self.timeout);
                return Poll::Ready(Failure::ResponseBodyTimeout { addr, timeout }.into_error());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
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
            stalled: None,
        }
    }

    /// Fails when the upstream stops sending in the middle.
    pub(crate) fn with_timeout(mut self, pool: &Pool) -> Self {
        if let Some(timeout) = pool.settings.body_idle_timeout
            && !self.is_end_stream()
        {
            self.stalled = Some(Stalled {
                addr: pool.upstream.addr(),
                timeout,
                moved: Instant::now(),
                timer: None,
            });
        }
        self
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(ResponseKind::Local(Body::empty()))
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
            Poll::Pending => match &mut self.stalled {
                Some(stalled) => stalled.poll(cx).map(|error| {
                    self.kind = ResponseKind::Local(Body::empty());
                    self.stalled = None;
                    Some(Err(error.into()))
                }),
                None => Poll::Pending,
            },
            polled => {
                if let Some(stalled) = &mut self.stalled {
                    stalled.moved = Instant::now();
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
