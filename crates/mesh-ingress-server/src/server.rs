//! Listening sockets and the workers that serve them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::time::Duration;

use mesh_ingress_core::Downstream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::accept;
use crate::connection::{ConnectionServer, Timeouts};
use crate::drain::{self, DrainWatcher};
use crate::listener::{self, BindError};
use crate::service::HttpService;

/// Bound sockets, ready to serve.
///
/// ```no_run
/// use mesh_ingress_server::{RequestBody, Server, drain};
/// # use std::convert::Infallible;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let service = tower::service_fn(|_: http::Request<RequestBody>| async {
/// #     Ok::<_, Infallible>(http::Response::new(String::from("hello")))
/// # });
/// let (trigger, watcher) = drain::channel();
/// tokio::spawn(async move {
///     let _ = tokio::signal::ctrl_c().await;
///     trigger.drain(std::time::Duration::from_secs(30)).await
/// });
/// Server::bind("0.0.0.0:8080".parse()?)?
///     .serve(service)
///     .with_graceful_shutdown(watcher)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    /// By worker.
    listeners: Vec<Vec<TcpListener>>,
    on_threads: bool,
    timeouts: Timeouts,
}

/// Settings of a [`Server`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ServerBuilder {
    addrs: Vec<SocketAddr>,
    workers: Option<NonZeroUsize>,
    connections: ConnectionServer,
}

impl Server {
    /// Listens on an address, with default settings: on the caller's runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        Self::builder().listen(addr).bind()
    }

    /// Default settings, and no address.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The addresses that are listened on: with the port that the system chose, where 0 was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let first = self.listeners.first();
        let sockets = first.into_iter().flatten();
        sockets
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// Serves a service: each connection gets a clone. The returned value is to be awaited.
    pub fn serve<S>(
        self,
        service: S,
    ) -> Serve<impl FnMut(&Downstream) -> S + Clone + Send + 'static>
    where
        S: HttpService,
    {
        self.serve_with(move |_: &Downstream| service.clone())
    }

    /// The same with a service made for each connection, from what is known of its client. `make` is
    /// called by the task that accepts connections.
    pub fn serve_with<S, M>(self, make: M) -> Serve<M>
    where
        S: HttpService,
        M: FnMut(&Downstream) -> S + Clone + Send + 'static,
    {
        Serve {
            server: self,
            make,
            drain: None,
        }
    }
}

impl ServerBuilder {
    /// Adds an address to listen on.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.addrs.push(addr);
        self
    }

    /// Serves on so many threads of the server's own, each with a runtime and sockets of its own
    /// (`SO_REUSEPORT`): connections never move between cores. `None`, the default, is the caller's
    /// runtime: its threads share the connections, whose number is not limited by theirs.
    pub fn workers(mut self, workers: impl Into<Option<NonZeroUsize>>) -> Self {
        self.workers = workers.into();
        self
    }

    /// How long a client of HTTP/1 may take for the head of a request and between requests, and any client
    /// for its first bytes: 30 s by default; `None` or zero is for ever.
    pub fn request_header_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connections = self.connections.request_header_timeout(timeout);
        self
    }

    /// How long a client of HTTP/2 may stay without a request under way: an hour by default, or up to
    /// 40 s longer; `None` or zero is for ever.
    pub fn http2_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connections = self.connections.http2_idle_timeout(timeout);
        self
    }

    /// Listens. Clients may connect from here on; they are served once the server is.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub fn bind(self) -> Result<Server, BindError> {
        let workers = self.workers.map_or(1, NonZeroUsize::get);
        let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for addr in self.addrs {
            let sockets = listener::bind(addr, workers)?;
            for (of_worker, socket) in listeners.iter_mut().zip(sockets) {
                of_worker.push(socket);
            }
        }
        Ok(Server {
            listeners,
            on_threads: self.workers.is_some(),
            timeouts: self.connections.timeouts(),
        })
    }
}

/// A server with its service: await it to serve.
#[derive(Debug)]
#[must_use = "it serves when it is awaited"]
pub struct Serve<M> {
    server: Server,
    make: M,
    drain: Option<DrainWatcher>,
}

/// Serving has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A socket or a runtime could not be set up.
    #[error("cannot set up a worker")]
    Setup(#[from] io::Error),
    /// A worker has panicked, or its runtime was shut down.
    #[error("a worker ended before it was told to")]
    Worker,
}

impl<M> Serve<M> {
    /// Stops when a [drain](crate::drain) begins: no connection is accepted any more, requests under way
    /// are finished, and so are tunnels. Dropped work and closed connections follow when the drain's time
    /// is over. Without it, a server serves until it is dropped.
    pub fn with_graceful_shutdown(mut self, drain: DrainWatcher) -> Self {
        self.drain = Some(drain);
        self
    }
}

impl<S, M> IntoFuture for Serve<M>
where
    S: HttpService,
    M: FnMut(&Downstream) -> S + Clone + Send + 'static,
{
    type Output = Result<(), ServeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (_trigger, never);
            let drain = match self.drain {
                Some(drain) => drain,
                None => {
                    (_trigger, never) = drain::channel();
                    never
                }
            };
            let Server {
                mut listeners,
                on_threads,
                timeouts,
            } = self.server;
            if on_threads {
                return run_threads(listeners, self.make, timeouts, &drain).await;
            }
            let listeners = listeners.pop().unwrap_or_default();
            tokio::select! {
                served = accept::run(listeners, self.make, timeouts, drain.clone()) => Ok(served?),
                () = drain.closing() => Ok(()),
            }
        })
    }
}

/// Serves on threads, one for each set of listeners.
async fn run_threads<S, M>(
    listeners: Vec<Vec<TcpListener>>,
    make: M,
    timeouts: Timeouts,
    drain: &DrainWatcher,
) -> Result<(), ServeError>
where
    S: HttpService,
    M: FnMut(&Downstream) -> S + Clone + Send + 'static,
{
    let (busy, mut all_idle) = mpsc::channel::<()>(1);
    let (all_done, done) = watch::channel(());
    let mut ended = Vec::new();
    for (number, listeners) in listeners.into_iter().enumerate() {
        let (make, drain, busy) = (make.clone(), drain.clone(), busy.clone());
        let mut done = done.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                let served = runtime.block_on(async {
                    let served = async {
                        let served = accept::run(listeners, make, timeouts, drain.clone()).await;
                        drop(busy);
                        // Other workers may use upstream connections that this runtime drives.
                        let _ = done.changed().await;
                        served
                    };
                    tokio::select! {
                        served = served => served,
                        () = drain.closing() => Ok(()),
                    }
                });
                drop(runtime);
                let _ = sender.send(served);
            })?;
        ended.push(receiver);
    }
    drop((busy, done));
    let _ = all_idle.recv().await;
    drop(all_done);
    for worker in ended {
        worker.await.map_err(|_| ServeError::Worker)??;
    }
    Ok(())
}
