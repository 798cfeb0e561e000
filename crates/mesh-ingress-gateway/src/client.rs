//! One client connection: which HTTP it speaks, and serving it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_ingress::{MeshConnection, ResponseBody, ResponseFuture};
use pin_project_lite::pin_project;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::activity::{Activity, Answer, Answering, Overdue, Patience};
use crate::guard::{GuardedStream, SwitchAnswer};
use crate::io::ClientIo;
use crate::worker::Phase;

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long requests may be on their way when the gateway begins to drain.
const ON_THE_WAY: Duration = Duration::from_millis(250);
/// What may wait in memory of one connection, each way, as long as its client does not take it: as
/// much as is read at once from upstreams. A header section must fit in, too.
const BUFFER: usize = 416 * 1024;
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
        let head_timeout = (!head_timeout.is_zero()).then_some(head_timeout);
        let mut http1 = http1::Builder::new();
        // Without a timer: see `Patience`.
        http1
            .max_buf_size(BUFFER)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEADER_SIZE);
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
            .max_header_list_size(MAX_HEADER_SIZE as u32);
        let (open, drained) = mpsc::channel(1);
        let clients = Self {
            http1,
            http2,
            head_timeout,
            phase,
            _open: open,
        };
        (Arc::new(clients), Drained(drained))
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, mut stream: TcpStream, mesh: MeshConnection) {
        let mut phase = self.phase.clone();
        let sniffed = tokio::select! {
            biased;
            sniffed = sniff(&mut stream) => sniffed,
            () = elapsed(self.head_timeout) => return,
            () = drained(&mut phase) => return,
        };
        // A client that says nothing, or leaves, is owed nothing.
        let Ok(Some(begin)) = sniffed else {
            return;
        };
        let served = if begin.starts_with(PREFACE) {
            let io = ClientIo::new(GuardedStream::open(begin, stream), Arc::default());
            let connection = pin!(self.http2.serve_connection(io, Service(mesh)));
            let shutdown = http2::Connection::graceful_shutdown;
            drive(connection, Stop::new(phase), shutdown, None).await
        } else {
            let (stream, switch) = GuardedStream::guarded(begin, stream);
            let activity = Arc::new(Activity::default());
            let io = ClientIo::new(stream, Arc::clone(&activity));
            let service = Http1Service {
                mesh,
                switch,
                activity,
                stop: Arc::new(Stop::new(phase.clone())),
            };
            self.serve_http1(io, service, phase).await
        };
        if let Served::Failed(error) = served {
            tracing::debug!("client connection: {}", crate::Chain(&error));
        }
    }
}

/// How a connection of HTTP/1 came to rest.
enum Rested {
    Ended(Served),
    /// The client asks for nothing at this moment.
    Idle(Box<(ClientIo, Http1Service)>),
}

impl Clients {
    async fn serve_http1(
        &self,
        mut io: ClientIo,
        mut service: Http1Service,
        mut phase: watch::Receiver<Phase>,
    ) -> Served {
        loop {
            // In a box of its own: of the many connections that have nothing to do most of the
            // time, little more than the socket is to be kept then.
            let active = Box::pin(self.serve_active(io, service, phase.clone()));
            (io, service) = match active.await {
                Rested::Ended(served) => return served,
                Rested::Idle(idle) => *idle,
            };
            tokio::select! {
                biased;
                // What it is, hyper finds out.
                _ = io.readable() => {}
                () = elapsed(Patience::left(self.head_timeout)) => {
                    io.say_too_late().await;
                    return Served::TooLate;
                }
                () = drained(&mut phase) => return Served::Ended,
            }
        }
    }

    /// Serves a connection until it ends, or its client is idle.
    async fn serve_active(
        &self,
        io: ClientIo,
        service: Http1Service,
        phase: watch::Receiver<Phase>,
    ) -> Rested {
        let patience = Patience::new(self.head_timeout, Arc::clone(&service.activity));
        let mut connection = self.http1.serve_connection(io, service).with_upgrades();
        let shutdown = http1::UpgradeableConnection::graceful_shutdown;
        let driven = Pin::new(&mut connection);
        let served = drive(driven, Stop::new(phase), shutdown, Some(patience)).await;
        if matches!(served, Served::TooLate | Served::Idle)
            && let Some(parts) = connection.into_parts()
        {
            // What is being closed stays closed.
            if let Served::Idle = served
                && !parts.service.activity.is_closing()
            {
                return Rested::Idle(Box::new((parts.io, parts.service)));
            }
            parts.io.say_too_late().await;
        }
        Rested::Ended(served)
    }
}

/// Resolves after a while; without one, never.
async fn elapsed(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the gateway has been draining for a moment: requests that were on their way when
/// it began are still served.
async fn drained(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
    tokio::select! {
        () = tokio::time::sleep(ON_THE_WAY) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
    }
}

/// Tells cheaply whether the gateway is to stop: a connection asks each time it does something.
#[derive(Debug)]
struct Stop {
    /// Never marked as seen: what it has not seen is news.
    phase: watch::Receiver<Phase>,
    /// It was to stop before there was this.
    begun: bool,
}

impl Stop {
    fn new(phase: watch::Receiver<Phase>) -> Self {
        let begun = *phase.borrow() != Phase::Serving;
        Self { phase, begun }
    }

    fn has_begun(&self) -> bool {
        self.begun || self.phase.has_changed().unwrap_or(true)
    }
}

/// How a connection ended.
enum Served {
    Ended,
    Failed(hyper::Error),
    /// The client took too long for a head.
    TooLate,
    /// The client asks for nothing at this moment.
    Idle,
}

/// Runs a connection; told to drain, it finishes the requests under way.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    stop: Stop,
    graceful_shutdown: impl FnOnce(Pin<&mut C>),
    mut patience: Option<Patience>,
) -> Served
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut poll = |mut connection: Pin<&mut C>, cx: &mut Context<'_>| {
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(served.map_or_else(Served::Failed, |()| Served::Ended));
        }
        let patience = patience.as_mut().map(|patience| patience.poll(cx));
        patience
            .unwrap_or(Poll::Pending)
            .map(|overdue| match overdue {
                Overdue::Idle => Served::Idle,
                Overdue::TooLate => Served::TooLate,
            })
    };
    let mut phase = stop.phase.clone();
    {
        let mut drained = pin!(drained(&mut phase));
        // Asked once, it has the waker of this task; asked again, it has to have news.
        let mut asked = false;
        let served = poll_fn(|cx| {
            if let Poll::Ready(served) = poll(connection.as_mut(), cx) {
                return Poll::Ready(Some(served));
            }
            if asked && !stop.has_begun() {
                return Poll::Pending;
            }
            asked = true;
            drained.as_mut().poll(cx).map(|()| None)
        });
        if let Some(served) = served.await {
            return served;
        }
    }
    graceful_shutdown(connection.as_mut());
    tokio::select! {
        served = poll_fn(|cx| poll(connection.as_mut(), cx)) => served,
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => Served::Ended,
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

/// The same for HTTP/1, which tells clients one by one that the gateway is going away.
struct Http1Service {
    mesh: MeshConnection,
    switch: SwitchAnswer,
    activity: Arc<Activity>,
    stop: Arc<Stop>,
}

impl hyper::service::Service<Request<Incoming>> for Http1Service {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Closing;

    fn call(&self, request: Request<Incoming>) -> Closing {
        let asks = request.method() == Method::CONNECT
            || request.version() == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
        Closing {
            switch: asks.then(|| self.switch.clone()),
            answering: Some(self.activity.answer()),
            response: self.mesh.handle(request),
            stop: Arc::clone(&self.stop),
        }
    }
}

pin_project! {
    /// Adds `Connection: close` to what is answered while the gateway drains (RFC 9112 §9.6), and
    /// tells the socket what a request for another protocol has come to.
    struct Closing {
        #[pin]
        response: ResponseFuture<Incoming>,
        switch: Option<SwitchAnswer>,
        answering: Option<Answering>,
        stop: Arc<Stop>,
    }
}

impl Future for Closing {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.response.poll(cx))?;
        if let Some(switch) = this.switch {
            switch.tell(response.status() == StatusCode::SWITCHING_PROTOCOLS);
        }
        if this.stop.has_begun() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let answering = this.answering.take();
        Poll::Ready(Ok(response.map(|body| Answer::new(body, answering))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
