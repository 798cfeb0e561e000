//! The requests that an origin received.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_ingress_core::Body;
use tokio::sync::watch;

use crate::router::MESH_ROUTER;
use crate::server::Connection;

/// How much of a body is kept.
const KEPT: usize = 64 * 1024;

/// One request as an [`Origin`](crate::Origin) received it.
///
/// It is logged when its head has arrived; the fields about the body follow while the body is read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// The accepted connection it came on, counted from 1.
    pub connection: u64,
    /// The address the client connected to.
    pub local_addr: SocketAddr,
    /// The address of the client.
    pub peer: SocketAddr,
    /// `HTTP/1.1`, `HTTP/2.0` …
    pub version: Version,
    /// The method.
    pub method: Method,
    /// The target as sent: origin-form over HTTP/1, with `:scheme` and `:authority` over HTTP/2.
    pub uri: Uri,
    /// All header fields, in order. HTTP/2 pseudo headers are not among them.
    pub headers: HeaderMap,
    /// The first 64 KiB of the body.
    pub body: Vec<u8>,
    /// How many bytes of body have been read, kept or not.
    pub body_len: u64,
    /// The trailer fields, once the body has ended with some.
    pub trailers: Option<HeaderMap>,
    /// How far the body got.
    pub body_end: BodyEnd,
}

/// How far the body of a [`ReceivedRequest`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyEnd {
    /// Not at its end: it is still coming, or the origin does not read it.
    Pending,
    /// It was read to its end.
    Complete,
    /// It broke off, or the origin stopped reading.
    Aborted,
}

impl ReceivedRequest {
    /// The host that the client asked for: `:authority` (or an absolute target), else `Host`, as written.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => self.header(header::HOST.as_str()),
        }
    }

    /// The first value of a header field, if it is readable text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All values of a header field, unreadable ones left out.
    #[must_use]
    pub fn header_values(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).into_iter();
        values.filter_map(|value| value.to_str().ok()).collect()
    }

    /// Which router took it through the mesh, `host` or `vip`; `None` if it came past the mesh.
    #[must_use]
    pub fn mesh_router(&self) -> Option<&str> {
        self.header(MESH_ROUTER.as_str())
    }
}

/// The requests of an origin.
#[derive(Debug)]
pub(super) struct Log {
    entries: watch::Sender<Entries>,
    enabled: bool,
}

#[derive(Debug, Default)]
struct Entries {
    /// The number of the first one kept; those before have been cleared.
    first: usize,
    list: Vec<ReceivedRequest>,
}

/// A body that writes into the log what goes through it.
struct Recorded {
    body: Incoming,
    log: Arc<Log>,
    number: usize,
    ended: bool,
}

impl Log {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            entries: watch::Sender::new(Entries::default()),
            enabled,
        }
    }

    /// Logs the head of a request, and its body as it is read.
    pub(super) fn record(
        self: &Arc<Self>,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Request<Body> {
        if !self.enabled {
            return request.map(Body::new);
        }
        let ended = request.body().is_end_stream();
        let received = ReceivedRequest {
            connection: connection.id,
            local_addr: connection.local_addr,
            peer: connection.peer,
            version: request.version(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: Vec::new(),
            body_len: 0,
            trailers: None,
            body_end: if ended {
                BodyEnd::Complete
            } else {
                BodyEnd::Pending
            },
        };
        let mut number = 0;
        self.entries.send_modify(|entries| {
            number = entries.first + entries.list.len();
            entries.list.push(received);
        });
        let log = Arc::clone(self);
        request.map(|body| {
            Body::new(Recorded {
                body,
                log,
                number,
                ended,
            })
        })
    }

    pub(super) fn snapshot(&self) -> Vec<ReceivedRequest> {
        self.entries.borrow().list.clone()
    }

    pub(super) fn clear(&self) {
        self.entries.send_modify(|entries| {
            entries.first += entries.list.len();
            entries.list.clear();
        });
    }

    pub(super) async fn wait_until(&self, reached: impl Fn(&[ReceivedRequest]) -> bool) {
        let mut changes = self.entries.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = changes.wait_for(|entries| reached(&entries.list)).await;
    }

    fn update(&self, number: usize, change: impl FnOnce(&mut ReceivedRequest)) {
        self.entries.send_modify(|entries| {
            let index = number.checked_sub(entries.first);
            if let Some(entry) = index.and_then(|index| entries.list.get_mut(index)) {
                change(entry);
            }
        });
    }
}

impl Recorded {
    fn end(&mut self, how: BodyEnd) {
        self.ended = true;
        self.log.update(self.number, |entry| entry.body_end = how);
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.log.update(self.number, |entry| {
                    if let Some(data) = frame.data_ref() {
                        entry.body_len += data.len() as u64;
                        let room = KEPT.saturating_sub(entry.body.len());
                        let kept = data.get(..room).unwrap_or(data);
                        entry.body.extend_from_slice(kept);
                    } else if let Some(trailers) = frame.trailers_ref() {
                        entry.trailers = Some(trailers.clone());
                    }
                });
                // A reader that knows this was the last frame does not poll again.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end(BodyEnd::Complete);
                }
            }
            Some(Err(_)) => self.end(BodyEnd::Aborted),
            None if !self.ended => self.end(BodyEnd::Complete),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.ended {
            self.end(BodyEnd::Aborted);
        }
    }
}
