//! One stream of an HTTP/2 connection: a request and its response.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use mesh_ingress_core::{BoxError, Error};

use super::request_copy::RequestCopy;
use super::{ConnectionState, StreamObserver, error};
use crate::body::RequestBody;

/// The right to send one request on a connection.
pub(crate) struct Stream<O: StreamObserver> {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) guard: StreamGuard<O>,
    /// Whether the connection has been used before.
    pub(super) reused: bool,
}

/// Counts a stream as long as it lives.
pub(super) struct StreamGuard<O: StreamObserver>(Arc<ConnectionState<O>>);

impl<O: StreamObserver> StreamGuard<O> {
    pub(super) fn new(state: &Arc<ConnectionState<O>>) -> Self {
        state.streams.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl<O: StreamObserver> Drop for StreamGuard<O> {
    fn drop(&mut self) {
        let before = self.0.streams.fetch_sub(1, Ordering::SeqCst);
        if let Some(observer) = self.0.observer.upgrade() {
            observer.stream_ended(before == 1);
        }
    }
}

/// A request without a response.
pub(crate) struct SendError {
    pub(crate) error: Error,
    /// The request itself, if it may be sent again.
    pub(crate) unsent: Option<Request<RequestBody>>,
}

impl<O: StreamObserver> Stream<O> {
    /// Whether the upstream accepts the extended `CONNECT` of RFC 8441.
    pub(crate) fn extended_connect(&self) -> bool {
        self.guard.0.extended_connect
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(
        self,
        addr: SocketAddr,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseStream<O>>, SendError> {
        // A request without a body can be sent again, whatever its method, if the peer says that it
        // has not acted on it.
        let copy = RequestCopy::of(&request);
        let is_safe = request.method().is_safe();
        let Self {
            mut sender,
            guard,
            reused,
        } = self;
        let sent = sender.try_send_request(request);
        // hyper gives a request that it queued just before the driver ended back when the last
        // sender is dropped: a task that waits for its request must not hold one.
        drop(sender);
        let mut failed = match sent.await {
            Ok(response) => {
                return Ok(response.map(|incoming| ResponseStream {
                    incoming,
                    addr,
                    _guard: guard,
                }));
            }
            Err(failed) => failed,
        };
        let handed_back = failed.take_message();
        let error = failed.into_error();
        // No frame of it was sent, or the peer has not acted on it.
        let untouched = handed_back.is_some() || error::is_refused(&error);
        // As with HTTP/1.1, a safe request may be sent again if a reused connection ended under it
        // (RFC 9110 §9.2.2).
        let again = untouched || reused && is_safe && error::is_disconnect(&error);
        let unsent = handed_back.or_else(|| copy.filter(|_| again).map(RequestCopy::into_request));
        let error = guard.0.tls.explain(error::into_error(addr, error));
        Err(SendError {
            error: if untouched { error.retryable() } else { error },
            unsent,
        })
    }
}

/// A response body; it counts its stream until it is dropped. That of a tunnel has no bytes.
pub(crate) struct ResponseStream<O: StreamObserver> {
    incoming: Incoming,
    addr: SocketAddr,
    _guard: StreamGuard<O>,
}

impl<O: StreamObserver> ResponseStream<O> {
    /// The upstream's address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.incoming)
            .poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
