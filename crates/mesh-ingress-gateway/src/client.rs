//! One client connection: which HTTP it speaks, and serving it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_ingress::{MeshConnection, ResponseBody, ResponseFuture};
use mesh_ingress_http1::Inbox;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::http1;
use crate::http2::ClientIo;
use crate::phase::{Phase, Served, Stop, drained, drive, elapsed};

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams one HTTP/2 client may have open.
const MAX_STREAMS: u32 = 250;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What all client connections of a worker share.
#[derive(Debug)]
pub(crate) struct Clients {
    http2: http2::Builder<TokioExecutor>,
    /// How long a client may take for the head of a request, and between requests.
    head_timeout: Option<Duration>,
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
    pub(crate) fn new(
        phase: watch::Receiver<Phase>,
        head_timeout: Duration,
    ) -> (Arc<Self>, Drained) {
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            // WebSockets (RFC 8441).
            .enable_connect_protocol()
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(http1::LIMITS.octets as u32);
        let (open, drained) = mpsc::channel(1);
        let clients = Self {
            http2,
            head_timeout: (!head_timeout.is_zero()).then_some(head_timeout),
            phase,
            _open: open,
        };
        (Arc::new(clients), Drained(drained))
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, mut stream: TcpStream, mesh: MeshConnection) {
        let begun = tokio::select! {
            biased;
            begun = begin(&mut stream) => begun,
            () = elapsed(self.head_timeout) => return,
            () = drained(self.phase.clone()) => return,
        };
        // A client that says nothing, or leaves, is owed nothing.
        let Ok(Some(begun)) = begun else {
            return;
        };
        let stop = Stop::new(self.phase.clone());
        let served = if begun.octets.starts_with(PREFACE) {
            let io = ClientIo::new(stream, begun.octets);
            let connection = pin!(self.http2.serve_connection(io, Service(mesh)));
            let shutdown = http2::Connection::graceful_shutdown;
            match drive(connection, &stop, shutdown).await {
                Some(Err(error)) => Served::Failed(error.into()),
                Some(Ok(())) | None => Served::Ended,
            }
        } else {
            http1::serve(stream, begun, mesh, stop, self.head_timeout).await
        };
        if let Served::Failed(error) = served {
            tracing::debug!("client connection: {}", crate::Chain(&*error));
        }
    }
}

/// The first octets of a connection: at least enough to tell the protocol. `None` if there are none.
async fn begin(stream: &mut TcpStream) -> io::Result<Option<Inbox>> {
    let mut begun = Inbox::new(http1::BUFFER);
    loop {
        // No room is made for a client that says nothing.
        stream.readable().await?;
        if poll_fn(|cx| begun.poll_fill(stream, cx)).await? == 0 {
            return Ok((!begun.octets.is_empty()).then_some(begun));
        }
        let compared = begun.octets.len().min(PREFACE.len());
        if compared == PREFACE.len() || begun.octets[..compared] != PREFACE[..compared] {
            return Ok(Some(begun));
        }
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
