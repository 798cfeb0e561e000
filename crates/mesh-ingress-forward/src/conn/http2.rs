//! One HTTP/2 connection to an upstream, and the exchanges on its streams.
//!
//! hyper's client speaks the protocol. Many tasks use the streams of a connection, so that a task
//! of its own, the [`Driver`], reads and writes for all of them.

mod error;
mod notify;
mod request_copy;
mod stream;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_ingress_core::{BoxError, Error};
use tokio::time::Instant;

use self::notify::NotifyOnWrite;
use self::stream::StreamGuard;
pub(crate) use self::stream::{ResponseStream, SendError, Stream};
use super::{jittered, jittered_count};
use crate::body::RequestBody;
use crate::connect::{Stream as Transport, TlsState};
use crate::error::ForwardError;
use crate::settings::Settings;

/// Pings find out about a dead peer during requests; without requests none are sent.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The flow-control windows of one stream and of all: enough for 100 Mbit/s at 80 ms.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The most streams used of one connection, whatever the peer allows. All streams of a connection
/// share a socket and a lock, so that beyond this another connection serves better.
pub(crate) const MAX_STREAMS: usize = 100;

/// The pool that a connection notifies of its streams.
pub(crate) trait StreamObserver: Send + Sync + Sized + 'static {
    /// A stream has ended; `idle` if it was the last one of its connection.
    fn stream_ended(&self, idle: bool);

    /// The peer allows more streams than before.
    fn streams_added(&self);

    /// A connection has closed.
    fn connection_closed(&self, connection: &Arc<ConnectionState<Self>>);
}

/// The state that all streams of a connection share.
pub(crate) struct ConnectionState<O> {
    /// Streams in use.
    streams: AtomicUsize,
    /// How many the peer allows now; it may change that at any time (RFC 9113 §6.5.2).
    max_streams: AtomicUsize,
    /// The peer accepts extended `CONNECT`, which it cannot take back (RFC 8441 §3).
    extended_connect: bool,
    tls: TlsState,
    observer: Weak<O>,
}

impl<O> ConnectionState<O> {
    fn is_full(&self) -> bool {
        let max = self.max_streams.load(Ordering::Relaxed);
        self.streams.load(Ordering::SeqCst) >= max.min(MAX_STREAMS)
    }
}

/// A connection that takes requests.
pub(crate) struct Connection<O> {
    sender: http2::SendRequest<RequestBody>,
    state: Arc<ConnectionState<O>>,
    retire_at: Option<Instant>,
    requests_left: Option<u64>,
    used_at: Instant,
}

impl<O: StreamObserver> Connection<O> {
    /// Speaks HTTP/2 on a new stream. The connection works only while its driver
    /// [runs](Driver::run). `guard` is dropped when the stream is closed.
    ///
    /// # Errors
    /// If the peer does not begin with SETTINGS, or closes the stream.
    pub(crate) async fn handshake<G>(
        settings: &Settings,
        addr: SocketAddr,
        stream: Transport,
        guard: G,
        observer: Weak<O>,
    ) -> Result<(Self, Driver<O, G>), Error>
    where
        G: Send + Unpin + 'static,
    {
        let tls = stream.tls_state();
        let failed =
            |source: BoxError| tls.explain(ForwardError::Handshake { addr, source }.into_error());
        let written = Arc::new(AtomicWaker::new());
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // None before the peer's SETTINGS: h2 would queue requests that the peer may not allow.
            .initial_max_send_streams(0)
            .max_header_list_size(u32::try_from(settings.max_header_size).unwrap_or(u32::MAX))
            .handshake(NotifyOnWrite::new(stream, Arc::clone(&written), guard))
            .await
            .map_err(|error| failed(error.into()))?;
        // A server sends SETTINGS first (RFC 9113 §3.4). A peer that sends anything else, or
        // nothing, does not speak HTTP/2, and no request has been lost to it.
        poll_fn(|cx| {
            // Registered first: SETTINGS that come during the check wake the task again.
            written.register(cx.waker());
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Err("the connection was closed".into())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Pending if connection.current_max_send_streams() == 0 => Poll::Pending,
                Poll::Pending => Poll::Ready(Ok(())),
            }
        })
        .await
        .map_err(failed)?;
        let state = Arc::new(ConnectionState {
            streams: AtomicUsize::new(0),
            max_streams: AtomicUsize::new(connection.current_max_send_streams()),
            extended_connect: connection.is_extended_connect_protocol_enabled(),
            tls,
            observer,
        });
        let now = Instant::now();
        let handle = Self {
            sender,
            state: Arc::clone(&state),
            retire_at: settings.max_lifetime.map(|life| now + jittered(life)),
            requests_left: settings.max_requests.map(jittered_count),
            used_at: now,
        };
        let driver = Driver {
            connection,
            written,
            state,
            addr,
        };
        Ok((handle, driver))
    }

    /// The first stream of a new connection.
    pub(crate) fn first_stream(&mut self) -> Stream<O> {
        if let Some(left) = &mut self.requests_left {
            *left -= 1;
        }
        Stream {
            sender: self.sender.clone(),
            guard: StreamGuard::new(&self.state),
            reused: false,
        }
    }

    /// Another stream, if the peer allows one. The caller holds the lock of all connections, so
    /// that two cannot take the last stream.
    pub(crate) fn stream(&mut self, now: Instant) -> Option<Stream<O>> {
        if self.is_retired(now) || self.state.is_full() {
            return None;
        }
        if let Some(left) = &mut self.requests_left {
            *left -= 1;
        }
        self.used_at = now;
        Some(Stream {
            sender: self.sender.clone(),
            guard: StreamGuard::new(&self.state),
            reused: true,
        })
    }

    /// How many streams the peer allowed when it was last heard.
    pub(crate) fn max_streams(&self) -> usize {
        self.state.max_streams.load(Ordering::Relaxed)
    }

    /// Whether it has this state.
    pub(crate) fn has_state(&self, state: &Arc<ConnectionState<O>>) -> bool {
        Arc::ptr_eq(&self.state, state)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether no more requests may begin on it.
    pub(crate) fn is_retired(&self, now: Instant) -> bool {
        self.requests_left == Some(0)
            || self.retire_at.is_some_and(|at| now >= at)
            || !self.state.tls.is_current()
    }

    /// Whether no stream is in use.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.streams.load(Ordering::SeqCst) == 0
    }

    /// How long ago its last stream was taken.
    pub(crate) fn unused_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.used_at)
    }
}

/// Reads and writes for all streams of a connection, in a task of its own.
pub(crate) struct Driver<O, G: Send + Unpin + 'static> {
    connection: http2::Connection<NotifyOnWrite<G>, RequestBody, TokioExecutor>,
    written: Arc<AtomicWaker>,
    state: Arc<ConnectionState<O>>,
    addr: SocketAddr,
}

impl<O: StreamObserver, G: Send + Unpin + 'static> Driver<O, G> {
    /// Drives the connection to its end.
    pub(crate) async fn run(self) {
        let Self {
            mut connection,
            written,
            state,
            addr,
        } = self;
        let driven = poll_fn(|cx| {
            // When all streams are in use, each write is a reason to check whether the peer allows
            // more.
            if state.is_full() {
                written.register(cx.waker());
            }
            let driven = Pin::new(&mut connection).poll(cx);
            if driven.is_pending() {
                let now = connection.current_max_send_streams();
                let before = state.max_streams.swap(now, Ordering::Relaxed);
                if before < now
                    && let Some(observer) = state.observer.upgrade()
                {
                    observer.streams_added();
                }
            }
            driven
        });
        if let Err(error) = driven.await {
            tracing::debug!(%addr, %error, "HTTP/2 connection to the upstream ended");
        }
        drop(connection);
        // Its handle goes, too: see `Stream::send`.
        if let Some(observer) = state.observer.upgrade() {
            observer.connection_closed(&state);
        }
    }
}
