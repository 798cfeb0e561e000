//! An HTTP server that tells what it received.

mod behaviour;
mod body;
mod received;
mod respond;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_ingress_core::Body;

pub use self::behaviour::{Behaviour, Handler};
use self::received::Log;
pub use self::received::{BodyEnd, ReceivedRequest};
use crate::server::{Connection, Server};

const X_ORIGIN: HeaderName = HeaderName::from_static("x-origin");
const X_CONNECTION: HeaderName = HeaderName::from_static("x-connection");

/// An origin, the pod behind a Service: a real HTTP server on one port, HTTP/1.1 and HTTP/2 (prior
/// knowledge), that records every request and connection.
///
/// Unless told otherwise it [echoes](Behaviour::Echo) what it received. Every response carries
/// `x-origin: <name>` and `x-connection: <number of the accepted connection>`. It stops when
/// dropped: connections are cut and the port is free at once.
///
/// ```
/// use mesh_ingress_testkit::{Behaviour, Origin};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let web = Origin::builder()
///     .name("web")
///     .at("/big", Behaviour::StreamBytes(1 << 30))
///     .start()
///     .await?;
///
/// let mut client = tokio::net::TcpStream::connect(web.addr()).await?;
/// client.write_all(b"GET /a HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await?;
/// let mut response = String::new();
/// client.read_to_string(&mut response).await?;
/// assert!(response.contains("x-origin: web"));
/// assert_eq!(web.requests()[0].host(), Some("web"));
/// assert_eq!(web.connections(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Origin {
    shared: Arc<Shared>,
    server: Server,
}

/// Settings of an [`Origin`], made by [`Origin::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until started"]
pub struct OriginBuilder {
    name: String,
    behaviours: Behaviours,
    max_streams: Option<u32>,
    record: bool,
}

#[derive(Clone, Debug, Default)]
struct Behaviours {
    default: Behaviour,
    at: HashMap<String, Behaviour>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    name_value: HeaderValue,
    behaviours: Mutex<Behaviours>,
    log: Arc<Log>,
}

impl Origin {
    /// An echo origin named `origin` on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Settings first.
    pub fn builder() -> OriginBuilder {
        OriginBuilder {
            name: "origin".to_owned(),
            behaviours: Behaviours::default(),
            max_streams: None,
            record: true,
        }
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Changes what requests get that no path of its own is set for.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.lock().default = behaviour;
    }

    /// Changes what requests for a path get, as [`OriginBuilder::at`].
    pub fn set_behaviour_at(&self, path: &str, behaviour: Behaviour) {
        self.shared.lock().at.insert(path.to_owned(), behaviour);
    }

    /// The requests so far, in the order their heads arrived.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.log.snapshot()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// How many requests did not come through one of the mesh routers: they left the mesh.
    #[must_use]
    pub fn bypassed(&self) -> usize {
        let requests = self.requests();
        let bypassed = requests.iter().filter(|r| r.mesh_router().is_none());
        bypassed.count()
    }

    /// How many connections have been accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.server.accepted()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.server.open()
    }

    /// Waits until the heads of at least `count` requests have arrived since the start or the last
    /// [`clear_requests`](Self::clear_requests).
    pub async fn wait_for_requests(&self, count: usize) {
        self.wait_until(|requests| requests.len() >= count).await;
    }

    /// Waits until something holds of the requests, such as that a body has broken off.
    pub async fn wait_until(&self, reached: impl Fn(&[ReceivedRequest]) -> bool) {
        self.shared.log.wait_until(reached).await;
    }

    /// Waits until at least `count` connections have been accepted.
    pub async fn wait_for_connections(&self, count: u64) {
        self.server.wait_for_accepted(count).await;
    }

    /// Waits until exactly `count` connections are open.
    pub async fn wait_for_open_connections(&self, count: u64) {
        self.server.wait_for_open(count).await;
    }

    /// Cuts all open connections, whatever they carry: what a gateway sees when a pod dies. Takes
    /// effect soon: wait for [no open connections](Self::wait_for_open_connections).
    pub fn cut_connections(&self) {
        self.server.cut();
    }

    /// Closes all open connections as a pod does that is being replaced: what is in flight is
    /// finished, HTTP/2 clients are sent a GOAWAY.
    pub fn drain_connections(&self) {
        self.server.drain();
    }
}

impl OriginBuilder {
    /// Sets the name, which `x-origin` tells; `origin` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what requests get; [`Behaviour::Echo`] unless set.
    pub fn behaviour(mut self, behaviour: Behaviour) -> Self {
        self.behaviours.default = behaviour;
        self
    }

    /// Sets what requests for a path get. The path is compared as sent, without the query.
    pub fn at(mut self, path: impl Into<String>, behaviour: Behaviour) -> Self {
        self.behaviours.at.insert(path.into(), behaviour);
        self
    }

    /// Answers requests with a closure: [`Behaviour::handler`] as the behaviour.
    pub fn handler<F, R>(self, handler: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        self.behaviour(Behaviour::handler(handler))
    }

    /// Sets how many streams a client may have open on one HTTP/2 connection
    /// (SETTINGS_MAX_CONCURRENT_STREAMS); 200 unless set, as hyper has it.
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_streams = Some(streams);
        self
    }

    /// Sets whether requests are recorded; they are unless set. An origin of a benchmark should
    /// not keep them.
    pub fn record_requests(mut self, record: bool) -> Self {
        self.record = record;
        self
    }

    /// Starts it on a free port of `127.0.0.1`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn start(self) -> io::Result<Origin> {
        self.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts it on an address; port 0 is a free one.
    ///
    /// # Errors
    /// When the address cannot be bound, or the name is no header value.
    pub async fn bind(self, addr: SocketAddr) -> io::Result<Origin> {
        let name_value = HeaderValue::from_str(&self.name)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let shared = Arc::new(Shared {
            name: self.name,
            name_value,
            behaviours: Mutex::new(self.behaviours),
            log: Arc::new(Log::new(self.record)),
        });
        let server = Server::start(addr, self.max_streams, {
            let shared = Arc::clone(&shared);
            move |connection| {
                let shared = Arc::clone(&shared);
                service_fn(move |request| {
                    let (shared, connection) = (Arc::clone(&shared), Arc::clone(&connection));
                    async move { Ok::<_, Infallible>(shared.respond(&connection, request).await) }
                })
            }
        })
        .await?;
        Ok(Origin { shared, server })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Behaviours> {
        self.behaviours
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn respond(&self, connection: &Connection, request: Request<Incoming>) -> Response<Body> {
        let request = self.log.record(connection, request);
        let behaviour = {
            let behaviours = self.lock();
            let at = behaviours.at.get(request.uri().path());
            at.unwrap_or(&behaviours.default).clone()
        };
        let mut response = respond::respond(&behaviour, &self.name, connection, request).await;
        let headers = response.headers_mut();
        headers.insert(X_ORIGIN, self.name_value.clone());
        headers.insert(X_CONNECTION, HeaderValue::from(connection.id));
        response
    }
}
