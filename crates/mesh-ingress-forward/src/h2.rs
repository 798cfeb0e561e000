//! HTTP/2 connections to an upstream, cleartext with prior knowledge.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::noticed::Noticed;
use crate::pool::Pool;
use crate::{connect, h1};

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
#[derive(Default)]
pub(crate) struct Connections {
    open: Mutex<Vec<Connection>>,
    /// One connects at a time; the others wait for its streams, in order.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Connection {
    sender: http2::SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
    /// How many the peer takes at this moment; it may change its mind (RFC 9113 §6.5.2).
    max_streams: Arc<AtomicUsize>,
    retire_at: Option<Instant>,
    used_at: Instant,
}

/// The right to one stream of a connection.
pub(crate) struct Stream {
    sender: http2::SendRequest<RequestBody>,
    slot: Slot,
    /// Whether the connection has been used before.
    reused: bool,
}

/// Counts a stream as long as it lives.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// A stream on a connection that has room for one.
    fn take(&self) -> Option<Stream> {
        let now = Instant::now();
        let mut open = self.open();
        open.retain(|connection| !connection.sender.is_closed());
        open.iter_mut()
            .filter(|connection| connection.retire_at.is_none_or(|at| now < at))
            .find_map(|connection| {
                // Counted under the lock: two cannot take the last stream.
                let max = connection
                    .max_streams
                    .load(Ordering::Relaxed)
                    .min(MAX_STREAMS);
                if connection.streams.load(Ordering::Relaxed) >= max {
                    return None;
                }
                connection.streams.fetch_add(1, Ordering::Relaxed);
                connection.used_at = now;
                Some(Stream {
                    sender: connection.sender.clone(),
                    slot: Slot(Arc::clone(&connection.streams)),
                    reused: true,
                })
            })
    }

    pub(crate) fn drain(&self) {
        // Dropping the last handle lets the streams finish and then closes the connection.
        self.open().clear();
    }

    pub(crate) fn sweep(&self, now: Instant, idle_timeout: Option<Duration>) {
        self.open().retain(|connection| {
            let idle = connection.streams.load(Ordering::Relaxed) == 0;
            let retired = connection.retire_at.is_some_and(|at| now >= at);
            let unused = now.saturating_duration_since(connection.used_at);
            let stale = idle && idle_timeout.is_some_and(|timeout| unused >= timeout);
            !(connection.sender.is_closed() || retired || stale)
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stream(pool: &Pool) -> Result<Stream, Error> {
    if let Some(stream) = pool.http2.take() {
        return Ok(stream);
    }
    let connecting = pool.http2.connecting.lock().await;
    // Whoever held the lock before may have opened one.
    if let Some(stream) = pool.http2.take() {
        return Ok(stream);
    }
    let connection = connect(pool).await?;
    connection.streams.fetch_add(1, Ordering::Relaxed);
    let stream = Stream {
        sender: connection.sender.clone(),
        slot: Slot(Arc::clone(&connection.streams)),
        reused: false,
    };
    if !pool.is_draining() {
        pool.http2.open().push(connection);
    }
    drop(connecting);
    Ok(stream)
}

async fn connect(pool: &Pool) -> Result<Connection, Error> {
    let settings = &pool.settings;
    let addr = pool.upstream.addr();
    let failed = |source: BoxError| Failure::Handshake { addr, source }.into_error();
    let stream = connect::open(pool).await?;
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
        .handshake(Noticed::new(stream, Arc::clone(&written)))
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
    let max_streams = Arc::new(AtomicUsize::new(driver.current_max_send_streams()));
    // Its streams are used by many tasks: it needs one of its own.
    tokio::spawn({
        let max_streams = Arc::clone(&max_streams);
        async move {
            let driven = poll_fn(|cx| {
                let driven = Pin::new(&mut driver).poll(cx);
                if driven.is_pending() {
                    max_streams.store(driver.current_max_send_streams(), Ordering::Relaxed);
                }
                driven
            });
            if let Err(error) = driven.await {
                tracing::debug!(%addr, %error, "HTTP/2 connection to the upstream ended");
            }
        }
    });
    let now = Instant::now();
    Ok(Connection {
        sender,
        streams: Arc::default(),
        max_streams,
        retire_at: settings.max_lifetime.map(|life| now + h1::jittered(life)),
        used_at: now,
    })
}

/// Sends a request and waits for the head of the response.
pub(crate) async fn exchange(
    pool: &Pool,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseStream>, Error> {
    let progress = request.body().progress();
    let mut attempts = 0;
    loop {
        attempts += 1;
        // Waiting for somebody else's handshake counts, too: a hung one must not add up.
        let within = pool.settings.connect_timeout;
        let mut stream = connect::within(within, pool.upstream.addr(), stream(pool)).await?;
        let reply = stream.sender.try_send_request(request);
        let waited = wait(pool, progress.as_deref(), reply).await?;
        let mut error = match waited {
            Ok(response) => {
                return Ok(response.map(|incoming| ResponseStream {
                    incoming,
                    _slot: stream.slot,
                }));
            }
            Err(error) => error,
        };
        match error.take_message() {
            // Given back: not a frame of it was sent. The connection was on its way out.
            Some(unsent) if stream.reused && attempts < 3 => request = unsent,
            unsent => {
                let failed = error::exchange(pool.upstream.addr(), error.into_error());
                return Err(if unsent.is_some() {
                    failed.retryable()
                } else {
                    failed
                });
            }
        }
    }
}

/// Waits for a reply within the response header timeout, which stands still while the client is
/// still sending.
async fn wait<T>(
    pool: &Pool,
    progress: Option<&crate::body::Progress>,
    reply: impl Future<Output = T>,
) -> Result<T, Error> {
    let Some(timeout) = pool.settings.response_header_timeout else {
        return Ok(reply.await);
    };
    let mut reply = std::pin::pin!(reply);
    let mut sleep = std::pin::pin!(tokio::time::sleep(timeout));
    loop {
        tokio::select! {
            biased;
            reply = &mut reply => return Ok(reply),
            () = &mut sleep => match overdue(pool, progress, timeout) {
                Ok(again) => sleep.as_mut().reset(again),
                Err(error) => return Err(error),
            },
        }
    }
}

/// When to look again, or the error if nothing has moved for the whole timeout.
pub(crate) fn overdue(
    pool: &Pool,
    progress: Option<&crate::body::Progress>,
    timeout: Duration,
) -> Result<Instant, Error> {
    let addr = pool.upstream.addr();
    let Some(progress) = progress else {
        return Err(Failure::ResponseTimeout { addr, timeout }.into_error());
    };
    let (moved, finished) = progress.last();
    let again = moved + timeout;
    if Instant::now() < again {
        return Ok(again);
    }
    Err(if finished {
        Failure::ResponseTimeout { addr, timeout }
    } else {
        Failure::RequestBodyTimeout { timeout }
    }
    .into_error())
}

/// A response body, and its hold on the stream's slot.
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
