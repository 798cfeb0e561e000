//! HTTP/2 connections to an upstream.

mod stream;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_ingress_core::{BoxError, Error};
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::error::Failure;
use crate::h1;
use crate::noticed::Noticed;
use crate::permit::Permit;
use crate::pool::Pool;
use crate::stream::Stream as Transport;

use stream::{Load, MAX_STREAMS, Slot};
pub(crate) use stream::{ResponseStream, Stream, Unanswered};

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
    let addr = pool.addr;
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

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("open", &self.open().len())
            .finish_non_exhaustive()
    }
}
