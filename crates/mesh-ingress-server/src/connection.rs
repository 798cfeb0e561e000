//! One client connection: which version of HTTP it speaks, and serving it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use mesh_ingress_core::{BoxError, Downstream};
use mesh_ingress_http2::frame::PREFACE;
use mesh_ingress_io::{Conn, MAX_READ, ReadBuf};

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
    /// What went wrong with the connection. The client has been told, if it still can be.
    pub async fn serve_connection<S: HttpService>(
        self,
        conn: impl Into<Conn>,
        client: Downstream,
        service: S,
    ) -> Result<(), BoxError> {
        let (_trigger, idle);
        let drain = match self.drain {
            Some(drain) => drain,
            None => {
                (_trigger, idle) = drain::channel();
                idle
            }
        };
        let guard = drain.clone();
        serve(conn.into(), client, service, self.timeouts, &drain, guard).await
    }
}

fn non_zero(timeout: impl Into<Option<Duration>>) -> Option<Duration> {
    timeout.into().filter(|timeout| !timeout.is_zero())
}

/// Serves a connection to its end. `guard` goes along with a connection that becomes a tunnel.
pub(crate) async fn serve<S: HttpService>(
    mut conn: Conn,
    client: Downstream,
    service: S,
    timeouts: Timeouts,
    drain: &DrainWatcher,
    guard: impl Clone + Send + 'static,
) -> Result<(), BoxError> {
    let mut notice = pin!(drain.notice());
    let timeout = Box::pin(elapsed(timeouts.request_header));
    let begun = tokio::select! {
        biased;
        begun = read_preface(&mut conn) => begun,
        () = timeout => return Ok(()),
        () = notice.as_mut().given() => return Ok(()),
    };
    // A client that sends nothing, or leaves, gets no answer.
    let Ok(Some(read_buf)) = begun else {
        return Ok(());
    };
    let client = Client::new(client);
    if read_buf.bytes().starts_with(PREFACE) {
        let idle = timeouts.http2_idle;
        http2::serve(conn, read_buf, client, service, notice, idle, guard).await
    } else {
        let header = timeouts.request_header;
        http1::serve(conn, read_buf, client, service, notice, header, guard).await
    }
}

/// Reads at least enough to tell the version of HTTP. `None` if nothing comes.
async fn read_preface(conn: &mut Conn) -> io::Result<Option<ReadBuf>> {
    let mut read_buf = ReadBuf::new(MAX_READ);
    loop {
        // No buffer is taken for a client that sends nothing.
        poll_fn(|cx| conn.poll_read_ready(cx)).await?;
        if poll_fn(|cx| read_buf.poll_fill(conn, cx)).await? == 0 {
            return Ok((!read_buf.bytes().is_empty()).then_some(read_buf));
        }
        let bytes = read_buf.bytes();
        let compared = bytes.len().min(PREFACE.len());
        if compared == PREFACE.len() || bytes[..compared] != PREFACE[..compared] {
            return Ok(Some(read_buf));
        }
    }
}

/// Resolves after a while; without one, never.
pub(crate) async fn elapsed(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}
