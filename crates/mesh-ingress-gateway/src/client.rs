//! One client connection: which HTTP it speaks, and serving it.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_ingress::{MeshConnection, ResponseBody, ResponseFuture};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::worker::Phase;

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client may take for the head of a request, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEADERS: usize = 100;
const MAX_HEADER_SIZE: usize = 64 * 1024;
/// Streams one HTTP/2 client may have open.
const MAX_STREAMS: u32 = 250;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What all client connections of a worker share.
#[derive(Debug)]
pub(crate) struct Clients {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    phase: watch::Receiver<Phase>,
    /// Never sent on: the other end sees when the last connection is gone.
    _open: mpsc::Sender<Infallible>,
}

/// Tells when the last connection has ended.
#[derive(Debug)]
pub(crate) struct Drained(mpsc::Receiver<Infallible>);

impl Drained {
    pub(crate) async fn wait(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

impl Clients {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> (Arc<Self>, Drained) {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_SIZE);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_SIZE as u32);
        let (open, drained) = mpsc::channel(1);
        let clients = Self {
            http1,
            http2,
            phase,
            _open: open,
        };
        (Arc::new(clients), Drained(drained))
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, mut stream: TcpStream, mesh: MeshConnection) {
        // Fails only for a connection that is gone already.
        let _ = stream.set_nodelay(true);
        let mut phase = self.phase.clone();
        let sniffed = tokio::select! {
            sniffed = tokio::time::timeout(HEAD_TIMEOUT, sniff(&mut stream)) => sniffed,
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
        };
        // A client that says nothing, or leaves, is owed nothing.
        let Ok(Ok(Some(begin))) = sniffed else {
            return;
        };
        let http2 = begin.starts_with(PREFACE);
        let io = Begun {
            begin,
            read: 0,
            stream: TokioIo::new(stream),
        };
        let service = Service(mesh);
        let served = if http2 {
            let connection = pin!(self.http2.serve_connection(io, service));
            drive(connection, phase, http2::Connection::graceful_shutdown).await
        } else {
            let connection = self.http1.serve_connection(io, service).with_upgrades();
            let shutdown = http1::UpgradeableConnection::graceful_shutdown;
            drive(pin!(connection), phase, shutdown).await
        };
        if let Err(error) = served {
            tracing::debug!("client connection: {}", crate::Chain(&error));
        }
    }
}

/// Runs a connection; told to drain, it finishes the requests under way.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    mut phase: watch::Receiver<Phase>,
    graceful_shutdown: impl FnOnce(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::select! {
        biased;
        served = connection.as_mut() => return served,
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    graceful_shutdown(connection.as_mut());
    tokio::select! {
        served = connection => served,
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => Ok(()),
    }
}

/// The first bytes of a connection: at least enough to tell the protocol. `None` if there are none.
async fn sniff(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut begin = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut begin).await? == 0 {
            return Ok((!begin.is_empty()).then_some(begin));
        }
        let compared = begin.len().min(PREFACE.len());
        if compared == PREFACE.len() || begin[..compared] != PREFACE[..compared] {
            return Ok(Some(begin));
        }
    }
}

/// A connection whose first bytes have been read already.
struct Begun {
    begin: Vec<u8>,
    read: usize,
    stream: TokioIo<TcpStream>,
}

impl Read for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begin.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let left = &self.begin[self.read..];
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        self.read += taken;
        if self.read == self.begin.len() {
            // Gives the memory back: the connection may live long.
            self.begin = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

/// The gateway as hyper wants a service: called by reference, without a clone a request.
struct Service(MeshConnection);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<Incoming>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.handle(request)
    }
}
