//! One client connection: which version of HTTP it speaks, and serving it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use mesh_ingress_core::{BoxError, Downstream};
use mesh_ingress_http2::frame::PREFACE;
use mesh_ingress_io::{Conn, MAX_READ, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::client::Client;
use crate::drain::{self, DrainWatcher};
use crate::service::HttpService;
use crate::{http1, http2};

/// Serves single connections, for a program that accepts them itself.
///
/// ```
/// use mesh_ingress_server::{ConnectionServer, Downstream, RequestBody};
/// use std::convert::Infallible;
///
/// # async fn accept(listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// let service = tower::service_fn(|_: http::Request<RequestBody>| async {
///     Ok::<_, Infallible>(http::Response::new(String::from("hello")))
/// });
/// let server = ConnectionServer::new();
/// let (stream, peer) = listener.accept().await?;
/// stream.set_nodelay(true)?;
/// tokio::spawn(server.serve_connection(stream, Downstream::new(peer), service));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConnectionServer {
    timeouts: Timeouts,
    drain: Option<DrainWatcher>,
}

/// How long clients may take. `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the head of an HTTP/1 request, between HTTP/1 requests, and for the first bytes.
    pub(crate) request_header: Option<Duration>,
    /// Between HTTP/2 requests.
    pub(crate) http2_idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_header: Some(Duration::from_secs(30)),
            http2_idle: Some(Duration::from_secs(60 * 60)),
        }
    }
}

impl ConnectionServer {
    /// With default time-outs, and no drain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a client of HTTP/1 may take for the head of a request and between requests, and any client
    /// for its first bytes: 30 s by default; `None` or zero is for ever.
    #[must_use]
    pub fn request_header_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeouts.request_header = non_zero(timeout);
        self
    }

    /// How long a client of HTTP/2 may stay without a request under way: an hour by default, or up to
    /// 40 s longer; `None` or zero is for ever.
    #[must_use]
    pub fn http2_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeouts.http2_idle = non_zero(timeout);
        self
    }

    /// Lets connections come to their end when a [drain](crate::drain) begins: requests under way are
    /// finished. The watcher is held until the connection has ended, tunnels included.
    #[must_use]
    pub fn with_graceful_shutdown(mut self, drain: DrainWatcher) -> Self {
        self.drain = Some(drain);
        self
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Serves a connection to its end: HTTP/1.1, or HTTP/2 with prior knowledge, whichever the client
    /// begins with. `client` becomes an extension of each request.
    ///
    /// A `TcpStream` is best passed as it is, other streams as [`Conn::other`]. Requires a tokio runtime
    /// with time, and for TCP with I/O.
    ///
    /// # Errors
    /// The error that ended the connection. The client has been told, if that was possible.
    pub async fn serve_connection<S: HttpService>(
        self,
        conn: impl Into<Conn>,
        client: Downstream,
        service: S,
    ) -> Result<(), BoxError> {
        let (_trigger, never);
        let drain = match self.drain {
            Some(drain) => drain,
            None => {
                (_trigger, never) = drain::channel();
                never
            }
        };
        let context = Arc::new(ConnectionContext {
            timeouts: self.timeouts,
            drain,
            _open: None,
        });
        let client = Client::new(client);
        let session = Session {
            client,
            service,
            context,
        };
        serve(Opening::new(conn), Box::new(session)).await
    }
}

fn non_zero(timeout: impl Into<Option<Duration>>) -> Option<Duration> {
    timeout.into().filter(|timeout| !timeout.is_zero())
}

/// Settings and drain of the connections of one worker.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    pub(crate) timeouts: Timeouts,
    pub(crate) drain: DrainWatcher,
    /// Never sent on: the other end sees when the last connection has ended.
    pub(crate) _open: Option<mpsc::Sender<Infallible>>,
}

/// State that a connection keeps from its first byte to its last.
pub(crate) struct Session<S> {
    pub(crate) client: Client,
    pub(crate) service: S,
    pub(crate) context: Arc<ConnectionContext>,
}

/// A connection whose version of HTTP is not known yet.
pub(crate) struct Opening {
    conn: Conn,
    read_buf: ReadBuf,
}

impl Opening {
    pub(crate) fn new(conn: impl Into<Conn>) -> Box<Self> {
        Box::new(Self {
            conn: conn.into(),
            read_buf: ReadBuf::new(MAX_READ),
        })
    }

    /// Reads at least enough to tell the version. `None` if nothing comes.
    async fn read_preface(&mut self) -> io::Result<Option<Version>> {
        let Self { conn, read_buf } = self;
        loop {
            // No buffer is taken for a client that sends nothing.
            poll_fn(|cx| conn.poll_read_ready(cx)).await?;
            let read = poll_fn(|cx| read_buf.poll_fill(conn, cx)).await?;
            let bytes = read_buf.bytes();
            let compared = bytes.len().min(PREFACE.len());
            if bytes[..compared] != PREFACE[..compared] {
                return Ok(Some(Version::HTTP_11));
            }
            match compared {
                _ if compared == PREFACE.len() => return Ok(Some(Version::HTTP_2)),
                0 if read == 0 => return Ok(None),
                _ if read == 0 => return Ok(Some(Version::HTTP_11)),
                _ => {}
            }
        }
    }
}

/// Serves a connection to its end.
// The futures of a connection are kept small, since most connections are idle: what is large is boxed, and
// arguments are captured once. An `async fn` would have room for them twice.
#[allow(clippy::manual_async_fn)]
pub(crate) fn serve<S: HttpService>(
    mut opening: Box<Opening>,
    session: Box<Session<S>>,
) -> impl Future<Output = Result<(), BoxError>> + Send {
    async move {
        let context = Arc::clone(&session.context);
        let mut notice = pin!(context.drain.notice());
        let version = {
            let timeout = pin!(Timeout::new(context.timeouts.request_header));
            tokio::select! {
                biased;
                version = opening.read_preface() => version,
                () = timeout => return Ok(()),
                () = notice.as_mut().given() => return Ok(()),
            }
        };
        match version {
            Ok(Some(Version::HTTP_2)) => {
                let Opening { conn, read_buf } = *opening;
                http2::serve(conn, read_buf, session, notice).await
            }
            Ok(Some(_)) => {
                let Opening { conn, read_buf } = *opening;
                let transport = Box::new(http1::Transport::new(conn, read_buf));
                http1::serve(transport, session, notice).await
            }
            // A client that sends nothing, or leaves, gets no answer.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// Resolves after a while; without one, never.
pub(crate) struct Timeout(Option<Pin<Box<Sleep>>>);

impl Timeout {
    pub(crate) fn new(after: Option<Duration>) -> Self {
        Self(after.map(|after| Box::pin(tokio::time::sleep(after))))
    }
}

impl Future for Timeout {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
