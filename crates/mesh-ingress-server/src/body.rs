//! The body of a client's request.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh_ingress_core::BoxError;

use crate::http1::Http1Body;
use crate::http2::Http2Body;

/// The body of a client's request, whatever version of HTTP it came over.
///
/// It streams: nothing is read from the client before it is polled, apart from what came with the head and
/// what the flow-control window of HTTP/2 allows. A client that waits for `100 Continue` is told to go on
/// when the body is first polled. Dropped before its end, the rest is discarded if it is short; else the
/// connection is closed (HTTP/1) or the stream reset (HTTP/2) behind the response.
///
/// It can be polled in any task.
#[derive(Debug)]
pub struct RequestBody(Kind);

#[derive(Debug)]
enum Kind {
    Empty,
    Http1(Http1Body),
    Http2(Http2Body),
}

impl RequestBody {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }
}

impl From<Http1Body> for RequestBody {
    fn from(body: Http1Body) -> Self {
        Self(Kind::Http1(body))
    }
}

impl From<Http2Body> for RequestBody {
    fn from(body: Http2Body) -> Self {
        Self(Kind::Http2(body))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Http1(body) => body.poll_frame(cx),
            Kind::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Http1(body) => body.is_end_stream(),
            Kind::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Http1(body) => body.size_hint(),
            Kind::Http2(body) => body.size_hint(),
        }
    }
}
