//! HTTP/2 connections to an upstream.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_ingress_core::{BoxError, Error};
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::error::{self, Failure};
use crate::h1;
use crate::noticed::Noticed;
use crate::permit::Permit;
use crate::pool::Pool;
use crate::replay::Replay;
use crate::stream::Stream as Transport;
use crate::tls::Session;

/// Streams used of a connection at most, whatever the peer takes: beyond it another connection
/// serves better, since all streams of one share a socket and a lock.
const MAX_STREAMS: usize = 100;
/// Pings notice a dead peer under way; without requests nothing is sent.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for one stream and for all of them: enough for 100 Mbit/s at 80 ms.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The HTTP/2 connections to one upstream.
pub(crate) struct Connections {
    open: Mutex<Vec<Connection>>,
    /// How many streams the upstream took when it last said.
    expected: AtomicUsize,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            expected: AtomicUsize::new(MAX_STREAMS),
        }
    }
}

struct Connection {
    sender: http2::SendRequest<RequestBody>,
    load: Arc<Load>,
    retire_at: Option<Instant>,
    requests_left: Option<u64>,
    used_at: Instant,
}

/// What all streams of a connection know of it.
struct Load {
    streams: AtomicUsize,
    /// How many the peer takes at this moment; it may change its mind (RFC 9113 §6.5.2).
    max_streams: AtomicUsize,
    /// It takes the extended `CONNECT`; what it said once it cannot take back (RFC 8441 §3).
    extended_connect: bool,
    session: Session,
    pool: Weak<Pool>,
}

impl Load {
    fn is_full(&self) -> bool {
        let max = self.max_streams.load(Ordering::Relaxed);
        self.streams.load(Ordering::SeqCst) >= max.min(MAX_STREAMS)
    }
}

/// The right to one stream of a connection.
pub(crate) struct Stream {
    sender: http2::SendRequest<RequestBody>,
    slot: Slot,
    /// Whether the connection has been used before.
    reused: bool,
}

/// Counts a stream as long as it lives.
struct Slot(Arc<Load>);

impl Slot {
    fn new(load: &Arc<Load>) -> Self {
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

impl Connection {
    /// A stream, if there is room for one. Called under the lock: two cannot take the last.
    fn stream(&mut self, now: Instant) -> Option<Stream> {
        if self.is_retired(now) || self.load.is_full() {
            return None;
        }
        if let Some(left) = &mut self.requests_left {
            *left -= 1;
        }
        self.used_at = now;
        Some(Stream {
            sender: self.sender.clone(),
            slot: Slot::new(&self.load),
            reused: true,
        })
    }

    fn is_retired(&self, now: Instant) -> bool {
        self.requests_left == Some(0)
            || self.retire_at.is_some_and(|at| now >= at)
            || !self.load.session.is_current()
    }

    fn is_idle(&self) -> bool {
        self.load.streams.load(Ordering::SeqCst) == 0
    }
}

impl Connections {
    /// A stream on a connection that has room for one.
    pub(crate) fn take(&self) -> Option<Stream> {
        let now = Instant::now();
        let mut open = self.open();
        open.retain(|connection| !connection.sender.is_closed());
        open.iter_mut()
            .find_map(|connection| connection.stream(now))
    }

    /// How many streams a connection to come will have.
    pub(crate) fn expected_streams(&self) -> usize {
        self.expected.load(Ordering::Relaxed).clamp(1, MAX_STREAMS)
    }

    /// Connections that take requests.
    pub(crate) fn ready_len(&self, now: Instant) -> usize {
        let open = self.open();
        let ready = open
            .iter()
            .filter(|connection| !connection.sender.is_closed() && !connection.is_retired(now));
        ready.count()
    }

    pub(crate) fn drain(&self) {
        // Dropping the last handle lets the streams finish and then closes the connection.
        self.open().clear();
    }

    /// A connection has ended.
    fn forget(&self, ended: &Arc<Load>) {
        let mut open = self.open();
        let at = open.iter().position(|one| Arc::ptr_eq(&one.load, ended));
        let gone = at.map(|at| open.swap_remove(at));
        drop(open);
        drop(gone);
    }

    /// Has one idle connection close; whether there was one.
    pub(crate) fn close_one_idle(&self) -> bool {
        let mut open = self.open();
        let idle = open.iter().position(Connection::is_idle);
        let closed = idle.map(|idle| open.swap_remove(idle));
        drop(open);
        closed.is_some()
    }

    pub(crate) fn sweep(&self, now: Instant, idle_timeout: Option<Duration>) {
        self.open().retain(|connection| {
            let unused = now.saturating_duration_since(connection.used_at);
            let stale =
                connection.is_idle() && idle_timeout.is_some_and(|timeout| unused >= timeout);
            !(connection.sender.is_closed() || connection.is_retired(now) || stale)
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Speaks HTTP/2 on a new transport; its first stream.
pub(crate) async fn open(
    pool: &Arc<Pool>,
    stream: Transport,
    permit: Permit,
) -> Result<Stream, Error> {
    let settings = &pool.settings;
    let addr = pool.upstream.addr();
    let era = pool.era();
    let session = stream.session();
    let failed =
        |source: BoxError| session.explain(Failure::Handshake { addr, source }.into_error());
    let written = Arc::new(AtomicWaker::new());
    let (sender, mut driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // None before the peer's SETTINGS: h2 would queue what it turns out not to take.
        .initial_max_send_streams(0)
        .max_header_list_size(u32::try_from(settings.max_header_size).unwrap_or(u32::MAX))
        .handshake(Noticed::new(stream, Arc::clone(&written), permit))
        .await
        .map_err(|error| failed(error.into()))?;
    // SETTINGS is the first thing a server sends (RFC 9113 §3.4): one that sends anything else,
    // or nothing, does not speak HTTP/2, and no request has been lost to it.
    poll_fn(|cx| {
        // Registered first: SETTINGS that come while we look wake us again.
        written.register(cx.waker());
        match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err("the connection was closed".into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if driver.current_max_send_streams() == 0 => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        }
    })
    .await
    .map_err(failed)?;
    let max_streams = driver.current_max_send_streams();
    pool.http2.expected.store(max_streams, Ordering::Relaxed);
    let load = Arc::new(Load {
        streams: AtomicUsize::new(0),
        max_streams: AtomicUsize::new(max_streams),
        extended_connect: driver.is_extended_connect_protocol_enabled(),
        session,
        pool: Arc::downgrade(pool),
    });
    let now = Instant::now();
    let mut connection = Connection {
        sender,
        load: Arc::clone(&load),
        retire_at: settings.max_lifetime.map(|life| now + h1::jittered(life)),
        requests_left: settings.max_requests.map(h1::jittered_count),
        used_at: now,
    };
    let first = Stream {
        sender: connection.sender.clone(),
        slot: Slot::new(&connection.load),
        reused: false,
    };
    if let Some(left) = &mut connection.requests_left {
        *left -= 1;
    }
    // Before it is driven: one that ends at once is forgotten, and must be there for that.
    if era == pool.era() {
        pool.http2.open().push(connection);
    }
    // Its streams are used by many tasks: it needs one of its own.
    tokio::spawn(async move {
        let driven = poll_fn(|cx| {
            // Where streams are short, all that it says is looked at: it may allow for more.
            if load.is_full() {
                written.register(cx.waker());
            }
            let driven = Pin::new(&mut driver).poll(cx);
            if driven.is_pending() {
                let now = driver.current_max_send_streams();
                let before = load.max_streams.swap(now, Ordering::Relaxed);
                // Room that came without a stream ending.
                if before < now
                    && let Some(pool) = load.pool.upgrade()
                    && pool.is_wanting()
                {
                    pool.serve();
                }
            }
            driven
        });
        if let Err(error) = driven.await {
            tracing::debug!(%addr, %error, "HTTP/2 connection to the upstream ended");
        }
        drop(driver);
        // See `Stream::exchange`.
        if let Some(pool) = load.pool.upgrade() {
            pool.http2.forget(&load);
        }
    });
    Ok(first)
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
        let error = slot.0.session.explain(error::exchange(addr, error));
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
    _slot: Slot,
}

impl ResponseStream {
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

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("open", &self.open().len())
            .finish_non_exhaustive()
    }
}
