//! The body of a request.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_ingress_core::{Body, BoxError};

use super::expect::ContinueGate;
use super::{BodyStep, Progress, without_forbidden_trailers};

/// The body of a request on its way to an upstream.
///
/// It wraps any body; hyper's [`Incoming`] and [`Body`] are not boxed.
pub(crate) struct RequestBody {
    kind: RequestKind,
    progress: Option<Arc<Progress>>,
    /// Holds the body back until the upstream sends `100 Continue`.
    gate: Option<Box<ContinueGate>>,
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
            gate: None,
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
            gate: None,
        }
    }

    /// Reads nothing of the body until the gate opens.
    pub(super) fn hold(&mut self, gate: ContinueGate) {
        self.gate = Some(Box::new(gate));
    }

    /// The upstream has sent `100 Continue`.
    pub(crate) fn release(&self) {
        if let Some(gate) = &self.gate {
            gate.open();
        }
    }

    /// The connection does not poll the body any more.
    pub(crate) fn finish(&self) {
        if let Some(progress) = &self.progress {
            progress.note(BodyStep::Finished);
        }
    }

    /// The progress of the body; `None` for a request without one.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }
}

/// Takes a `B` out as a `T` if they are the same type, without a box.
fn take_as<B: 'static, T: 'static>(body: &mut Option<B>) -> Option<T> {
    (body as &mut dyn Any)
        .downcast_mut::<Option<T>>()
        .and_then(Option::take)
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll(cx));
            self.gate = None;
        }
        let polled = match &mut self.kind {
            RequestKind::Incoming(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            RequestKind::Body(body) => Pin::new(body).poll_frame(cx),
        };
        let polled = without_forbidden_trailers(polled);
        if let Some(progress) = &self.progress {
            progress.note(match &polled {
                Poll::Pending => BodyStep::Awaited,
                Poll::Ready(None) => BodyStep::Finished,
                Poll::Ready(_) if self.is_end_stream() => BodyStep::Finished,
                Poll::Ready(_) => BodyStep::FromClient,
            });
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
