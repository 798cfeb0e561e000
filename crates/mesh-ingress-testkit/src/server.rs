//! An HTTP server for the fakes: HTTP/1.1 and cleartext HTTP/2 on one port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use mesh_ingress_core::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::socket::Closable;
use crate::tasks::Tasks;

/// Serves until dropped. The port is free as soon as `drop` returns.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    listener: Closable<TcpListener>,
    counts: Counts,
    drain: watch::Sender<()>,
    tasks: Tasks,
    _accepting: JoinSet<()>,
}

/// An accepted connection, as its handler sees it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Counted from 1.
    pub(crate) id: u64,
    pub(crate) local_addr: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// For what outlives a request: it ends with the server.
    pub(crate) tasks: Tasks,
    close: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    accepted: u64,
    open: u64,
}

#[derive(Clone, Debug)]
struct Counts(Arc<watch::Sender<Count>>);

/// A socket that is counted as open for as long as anyone holds it, upgraded or not.
struct Counted {
    stream: TcpStream,
    counts: Counts,
}

impl Server {
    /// Binds and serves. `accept` makes the service of a connection.
    pub(crate) async fn start<A, S>(
        addr: SocketAddr,
        max_streams: Option<u32>,
        accept: A,
    ) -> io::Result<Self>
    where
        A: Fn(Arc<Connection>) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let listener = Closable::new(listener);
        let counts = Counts(Arc::new(watch::Sender::new(Count::default())));
        let drain = watch::Sender::new(());
        let tasks = Tasks::new();
        let mut builder = auto::Builder::new(tasks.clone());
        // No timer: a test that pauses time must not find its connections timed out.
        builder.http1().header_read_timeout(None);
        if let Some(max_streams) = max_streams {
            builder.http2().max_concurrent_streams(max_streams);
        }

        let mut accepting = JoinSet::new();
        accepting.spawn({
            let (listener, counts) = (listener.clone(), counts.clone());
            let (drain, tasks) = (drain.clone(), tasks.clone());
            async move {
                loop {
                    let (stream, peer) = listener.accept().await;
                    // Small answers are not to wait for Nagle; without it they are merely slow.
                    let _ = stream.set_nodelay(true);
                    let connection = Arc::new(Connection {
                        id: counts.accept(),
                        local_addr: stream.local_addr().unwrap_or(addr),
                        peer,
                        tasks: tasks.clone(),
                        close: Notify::new(),
                    });
                    let stream = Counted {
                        stream,
                        counts: counts.clone(),
                    };
                    let service = accept(Arc::clone(&connection));
                    let http = builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .into_owned();
                    let mut drained = drain.subscribe();
                    tasks.spawn(async move {
                        let mut http = pin!(http);
                        tokio::select! {
                            _ = http.as_mut() => return,
                            () = connection.close.notified() => {}
                            _ = drained.changed() => {}
                        }
                        http.as_mut().graceful_shutdown();
                        let _ = http.await;
                    });
                }
            }
        });
        Ok(Self {
            addr,
            listener,
            counts,
            drain,
            tasks,
            _accepting: accepting,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.counts.0.borrow().accepted
    }

    pub(crate) fn open(&self) -> u64 {
        self.counts.0.borrow().open
    }

    pub(crate) async fn wait_for_accepted(&self, count: u64) {
        self.counts.wait(|counts| counts.accepted >= count).await;
    }

    pub(crate) async fn wait_for_open(&self, count: u64) {
        self.counts.wait(|counts| counts.open == count).await;
    }

    /// Cuts all open connections.
    pub(crate) fn cut(&self) {
        self.tasks.abort();
    }

    /// Lets all open connections finish what they do and close: GOAWAY on HTTP/2.
    pub(crate) fn drain(&self) {
        self.drain.send_replace(());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.close();
        self.tasks.stop();
    }
}

impl Connection {
    /// Closes once what is in flight is answered.
    pub(crate) fn close(&self) {
        self.close.notify_one();
    }
}

impl Counts {
    /// Counts a connection and gives it a number.
    fn accept(&self) -> u64 {
        let mut id = 0;
        self.0.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
            id = counts.accepted;
        });
        id
    }

    async fn wait(&self, reached: impl Fn(&Count) -> bool) {
        let mut changes = self.0.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = changes.wait_for(|counts| reached(counts)).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.0.send_modify(|counts| counts.open -= 1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
