//! The floor of what is built on hyper: its server, its client's connections in a pool of the
//! thread, driven by the task of the request. No routes, no field is touched but `Connection`, nothing
//! is checked, nothing times out.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{BoxError, Settings};

/// A connection to the origin.
struct Connection {
    sender: http1::SendRequest<Incoming>,
    driver: http1::Connection<TokioIo<TcpStream>, Incoming>,
}

thread_local! {
    static IDLE: RefCell<Vec<Connection>> = const { RefCell::new(Vec::new()) };
    static SHARED: RefCell<Option<http2::SendRequest<Incoming>>> = const { RefCell::new(None) };
}

pub(crate) fn run(settings: Settings, listener: TcpListener) -> Result<(), BoxError> {
    crate::current_thread()?.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server1 = hyper::server::conn::http1::Builder::new();
        let server2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        loop {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let io = TokioIo::new(stream);
            if settings.h2_origin {
                let service = service_fn(move |request| exchange2(settings.origin, request));
                tokio::spawn(server2.serve_connection(io, service));
            } else if settings.h2 {
                let service = service_fn(move |request| exchange1(settings.origin, request));
                tokio::spawn(server2.serve_connection(io, service));
            } else {
                let service = service_fn(move |request| exchange1(settings.origin, request));
                tokio::spawn(server1.serve_connection(io, service));
            }
        }
    })
}

async fn exchange1(
    origin: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Relayed>, hyper::Error> {
    let idle = IDLE.with_borrow_mut(|idle| {
        let noop = &mut Context::from_waker(Waker::noop());
        while let Some(mut connection) = idle.pop() {
            let ended = connection.driver.poll_without_shutdown(noop).is_ready();
            if !ended && connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    });
    // The client's `Connection` would close the one to the origin.
    request.headers_mut().remove(http::header::CONNECTION);
    let mut connection = match idle {
        Some(connection) => connection,
        None => connect(origin).await?,
    };
    if request.version() == http::Version::HTTP_2 {
        // The least it takes: an HTTP/1 request has no authority of its own, but a Host.
        let authority = request.uri().authority().map(|name| name.as_str().parse());
        if let Some(Ok(host)) = authority {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
        *request.version_mut() = http::Version::HTTP_11;
    }
    let response = {
        let mut reply = pin!(connection.sender.send_request(request));
        let driver = &mut connection.driver;
        poll_fn(|cx| {
            let ended = driver.poll_without_shutdown(cx);
            // The driver has just been driven with the waker of this task: one is enough.
            let noop = &mut Context::from_waker(Waker::noop());
            match (reply.as_mut().poll(noop), ended) {
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (reply, _) => reply,
            }
        })
        .await?
    };
    Ok(response.map(|body| Relayed::new(body, connection)))
}

async fn connect(origin: SocketAddr) -> Result<Connection, hyper::Error> {
    // A floor has no answer to an origin that is gone.
    let stream = TcpStream::connect(origin)
        .await
        .expect("the origin listens");
    let _ = stream.set_nodelay(true);
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    Ok(Connection { sender, driver })
}

/// A response's body, which drives its connection and gives it back.
struct Relayed {
    body: Incoming,
    connection: Option<Connection>,
}

impl Relayed {
    fn new(body: Incoming, connection: Connection) -> Self {
        let mut relayed = Self {
            body,
            connection: Some(connection),
        };
        relayed.end_if_done();
        relayed
    }

    fn end_if_done(&mut self) {
        if self.body.is_end_stream() {
            let connection = self.connection.take();
            IDLE.with_borrow_mut(|idle| idle.extend(connection));
        }
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(connection) = &mut self.connection
        {
            let _ = connection.driver.poll_without_shutdown(cx);
            frame = Pin::new(&mut self.body).poll_frame(cx);
        }
        if frame.is_ready() {
            self.end_if_done();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// HTTP/2 to the origin: one connection of the thread, with a task of its own.
async fn exchange2(
    origin: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let shared = SHARED.with_borrow(Clone::clone);
    let mut sender = match shared {
        Some(sender) if !sender.is_closed() => sender,
        _ => {
            let stream = TcpStream::connect(origin)
                .await
                .expect("the origin listens");
            let _ = stream.set_nodelay(true);
            let (sender, driver) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            SHARED.set(Some(sender.clone()));
            sender
        }
    };
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| body.boxed_unsync()))
}
