//! One stream of an HTTP/2 connection: a request and its response.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use mesh_ingress_core::{BoxError, Error};

use crate::body::RequestBody;
use crate::error;
use crate::pool::Pool;
use crate::replay::Replay;
use crate::tls::Session;

/// Streams used of a connection at most, whatever the peer takes: beyond it another connection
/// serves better, since all streams of one share a socket and a lock.
pub(super) const MAX_STREAMS: usize = 100;

/// What all streams of a connection know of it.
pub(super) struct Load {
    pub(super) streams: AtomicUsize,
    /// How many the peer takes at this moment; it may change its mind (RFC 9113 §6.5.2).
    pub(super) max_streams: AtomicUsize,
    /// It takes the extended `CONNECT`; what it said once it cannot take back (RFC 8441 §3).
    pub(super) extended_connect: bool,
    pub(super) session: Session,
    pub(super) pool: Weak<Pool>,
}

impl Load {
    pub(super) fn is_full(&self) -> bool {
        let max = self.max_streams.load(Ordering::Relaxed);
        self.streams.load(Ordering::SeqCst) >= max.min(MAX_STREAMS)
    }
}

/// The right to one stream of a connection.
pub(crate) struct Stream {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) slot: Slot,
    /// Whether the connection has been used before.
    pub(super) reused: bool,
}

/// Counts a stream as long as it lives.
pub(super) struct Slot(Arc<Load>);

impl Slot {
    pub(super) fn new(load: &Arc<Load>) -> Self {
        load.streams.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(load))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let before = self.0.streams.fetch_sub(1, Ordering::SeqCst);
        let Some(pool) = self.0.pool.upgrade() else {
            return;
        };
        if pool.is_wanting() {
            pool.serve();
        }
        if before == 1 {
            pool.make_way();
        }
    }
}

/// A request that was not answered.
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    /// The request itself, where nobody has acted on it.
    pub(crate) unsent: Option<Request<RequestBody>>,
}

impl Stream {
    /// Whether the upstream takes the extended `CONNECT` of RFC 8441.
    pub(crate) fn extended_connect(&self) -> bool {
        self.slot.0.extended_connect
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn exchange(
        self,
        addr: SocketAddr,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseStream>, Unanswered> {
        // Without a body it can be sent again, whatever its method, if the peer says that it has
        // not looked at it.
        let mut replay = Replay::default();
        replay.remember(&request);
        let is_safe = request.method().is_safe();
        let Self {
            mut sender,
            slot,
            reused,
        } = self;
        let sent = sender.try_send_request(request);
        // A request that is queued just when the driver ends stays in the queue for as long as
        // anybody could send, and comes back when nobody can: whoever waits for it must not be one.
        drop(sender);
        let mut failed = match sent.await {
            Ok(response) => {
                return Ok(response.map(|incoming| ResponseStream {
                    incoming,
                    addr,
                    _slot: slot,
                }));
            }
            Err(failed) => failed,
        };
        let handed_back = failed.take_message();
        let error = failed.into_error();
        // Not a frame of it was sent, or nobody has acted on it.
        let untouched = handed_back.is_some() || is_refused(&error);
        // As with HTTP/1.1, one that is safe may be sent again where a connection that had served
        // others died under it (RFC 9110 §9.2.2).
        let again = untouched || reused && is_safe && is_gone(&error);
        let unsent = handed_back.or_else(|| again.then(|| replay.take()).flatten());
        let error = slot.0.session.explain(error::http2(addr, error));
        Err(Unanswered {
            error: if untouched { error.retryable() } else { error },
            unsent,
        })
    }
}

fn cause<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    std::error::Error::source(error).and_then(|error| error.downcast_ref())
}

/// Whether the connection ended, and not only the stream.
fn is_gone(error: &hyper::Error) -> bool {
    error.is_closed() || cause::<std::io::Error>(error).is_some()
}

/// Whether the peer says that it has not acted on the stream: it refused it (RFC 9113 §8.7), or
/// went away before it came to it (§6.8).
fn is_refused(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error: &h2::Error| {
        // h2 gives the error of a GOAWAY from the peer only to streams above its last one.
        error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_remote()
            || error.is_go_away() && error.is_remote()
    })
}

/// A response body, and its hold on the stream's slot. That of a tunnel has no body.
pub(crate) struct ResponseStream {
    incoming: Incoming,
    addr: SocketAddr,
    _slot: Slot,
}

impl ResponseStream {
    /// Where it comes from.
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
