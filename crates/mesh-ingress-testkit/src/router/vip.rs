//! A mesh that looks at addresses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::HeaderValue;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_ingress_core::{Body, ServiceRef};

use super::envoy::{self, MESH_ROUTER};
use super::outcome_log::{Outcome, OutcomeLog, Verdict, outcome_methods};
use super::relay::Relay;
use crate::server::{Connection, Server};

/// A mesh that picks the destination by the ClusterIP and port a gateway connects to and ignores
/// `Host`: Istio ambient, waypoints, a Gateway API mesh, or a sidecar at an unnamed port.
///
/// Each Service gets listeners of its own at its addresses. On Linux all of `127.0.0.0/8` is there
/// to be used: `127.0.1.7:80` makes a fine ClusterIP, if unprivileged processes may bind port 80
/// there; a port of 0 finds a free one.
///
/// A gateway that connects to a *pod's* address, the origin's own, does not come by here at all:
/// the origin counts it as [bypassed](crate::Origin::bypassed), because only what came through the
/// router carries `x-mesh-router: vip`.
///
/// Requests are forwarded over the protocol the client speaks and streamed. Requests and responses
/// get the headers of an Envoy (those [`HostRouter`](crate::HostRouter) adds), as by a waypoint or
/// a sidecar; turn them [off](Self::set_envoy_headers) for a ztunnel alone, which never looks at
/// HTTP.
///
/// ```
/// use mesh_ingress_core::ServiceRef;
/// use mesh_ingress_testkit::{Origin, VipRouter};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let web: ServiceRef = "web.shop:80".parse()?;
/// let pod = Origin::start().await?;
/// let mesh = VipRouter::new();
/// let vip = mesh.add_service(&web, "127.0.0.1:0".parse()?, pod.addr()).await?;
///
/// let mut client = tokio::net::TcpStream::connect(vip).await?;
/// client.write_all(b"GET / HTTP/1.1\r\nhost: whatever\r\nconnection: close\r\n\r\n").await?;
/// client.read_to_end(&mut Vec::new()).await?;
/// assert_eq!(mesh.meshed(&web), 1);
/// assert_eq!(pod.bypassed(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VipRouter {
    shared: Arc<Shared>,
    listeners: Mutex<HashMap<SocketAddr, Listener>>,
}

#[derive(Debug)]
struct Listener {
    service: ServiceRef,
    server: Server,
}

#[derive(Debug)]
struct Shared {
    log: OutcomeLog,
    envoy_headers: AtomicBool,
}

impl VipRouter {
    /// A router without any Service; it listens nowhere yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                log: OutcomeLog::new(),
                envoy_headers: AtomicBool::new(true),
            }),
            listeners: Mutex::new(HashMap::new()),
        }
    }

    /// Listens at a ClusterIP and service port and forwards to the origin behind it. Gives the
    /// address back, with the port that was found if 0 was asked for. A Service may have several
    /// addresses; an address that is taken by another of this router changes hands, and its
    /// connections are cut.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn add_service(
        &self,
        service: &ServiceRef,
        cluster_ip: SocketAddr,
        origin: SocketAddr,
    ) -> io::Result<SocketAddr> {
        drop(self.listeners().remove(&cluster_ip));
        let server = Server::start(cluster_ip, None, {
            let shared = Arc::clone(&self.shared);
            let service = service.clone();
            move |connection| {
                let (shared, service) = (Arc::clone(&shared), service.clone());
                let relay = Arc::new(Relay::new(Arc::clone(&connection)));
                service_fn(move |request| {
                    let (shared, service) = (Arc::clone(&shared), service.clone());
                    let (connection, relay) = (Arc::clone(&connection), Arc::clone(&relay));
                    async move {
                        shared.enter(&connection, &request, service);
                        Ok::<_, Infallible>(shared.forward(&relay, origin, request).await)
                    }
                })
            }
        })
        .await?;
        let addr = server.addr();
        let service = service.clone();
        self.listeners().insert(addr, Listener { service, server });
        Ok(addr)
    }

    /// Stops listening at all addresses of a Service: connections are cut, new ones refused.
    pub fn remove_service(&self, service: &ServiceRef) {
        self.listeners()
            .retain(|_, listener| listener.service != *service);
    }

    /// Sets whether the headers of an Envoy are added; they are at first.
    pub fn set_envoy_headers(&self, on: bool) {
        self.shared.envoy_headers.store(on, Ordering::Relaxed);
    }

    /// How many connections have been accepted at the present addresses of a Service.
    #[must_use]
    pub fn connections(&self, service: &ServiceRef) -> u64 {
        let listeners = self.listeners();
        let of_service = listeners.values().filter(|l| l.service == *service);
        of_service.map(|listener| listener.server.accepted()).sum()
    }

    outcome_methods!();

    fn log(&self) -> &OutcomeLog {
        &self.shared.log
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<SocketAddr, Listener>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for VipRouter {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn enter(&self, connection: &Connection, request: &Request<Incoming>, service: ServiceRef) {
        self.log.enter(Outcome::of(
            connection,
            request,
            Some(service),
            Verdict::Meshed,
        ));
    }

    async fn forward(
        &self,
        relay: &Relay,
        origin: SocketAddr,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let mark = self.envoy_headers.load(Ordering::Relaxed);
        let headers = request.headers_mut();
        headers.insert(MESH_ROUTER, HeaderValue::from_static("vip"));
        if mark {
            envoy::mark_request(headers, true);
        }
        relay.forward(origin, request, mark).await
    }
}
