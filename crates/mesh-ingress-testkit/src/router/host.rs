//! A sidecar at a port that is named `http`.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use mesh_ingress_core::{Body, ClusterDomain, ServiceRef};

use super::envoy::{self, MESH_ROUTER};
use super::outcome_log::{Outcome, OutcomeLog, Verdict, authority, outcome_methods};
use super::registry::Registry;
use super::relay::Relay;
use crate::server::{Connection, Server};

/// An Istio sidecar as a gateway meets it at a service port that is named `http…` or `grpc…`: it
/// picks the destination by `Host` / `:authority` alone and ignores the address.
///
/// Let cluster DNS answer this router's address for every Service (they all share the sidecar), and
/// what the gateway says in `Host` decides:
///
/// * A registered Service goes by exactly the domains Istio generates for a proxy in another
///   namespace: `svc.ns.svc.<domain>`, the same with a trailing dot, `svc.ns`, `svc.ns.svc` and the
///   ClusterIP; case and any `:port` are ignored. The bare `svc` is added for Services of the
///   router's own [namespace](Self::set_namespace).
/// * Any other `Host` is treated by the [outbound policy](OutboundPolicy): let through to the
///   [passthrough](Self::set_passthrough) destination, *as if all were well*, or refused with 502.
/// * HTTP/1.0 is answered 426, a request without `Host` 400, `CONNECT` 404, an upgrade to anything
///   but WebSocket 403, and an origin that cannot be reached 503.
///
/// Requests are forwarded over the protocol the client speaks, HTTP/1.1 or HTTP/2, and streamed.
/// On its way out a request gets `x-request-id` (a UUID, if absent), `x-forwarded-proto` (if
/// absent) and `x-envoy-attempt-count: 1`, and loses `x-forwarded-client-cert`; a response gets
/// `server: envoy` and `x-envoy-upstream-service-time`. This holds for a passthrough, too: Istio's
/// `allow_any` is a virtual host like any other, so *no header of Envoy's tells that a request left
/// the mesh*. What tells here is `x-mesh-router: host`, which only meshed requests carry towards
/// the origin ([`ReceivedRequest::mesh_router`](crate::ReceivedRequest::mesh_router)), and the
/// counts below.
///
/// ```
/// use mesh_ingress_core::{ClusterDomain, ServiceRef};
/// use mesh_ingress_testkit::{HostRouter, Origin, Verdict};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let web: ServiceRef = "web.shop:http".parse()?;
/// let (pod, internet) = (Origin::start().await?, Origin::start().await?);
/// let sidecar = HostRouter::start().await?;
/// sidecar.add_service(&web, &ClusterDomain::default(), None, pod.addr());
/// sidecar.set_passthrough(Some(internet.addr()));
///
/// for host in ["web.shop.svc.cluster.local", "shop.example.com"] {
///     let mut client = tokio::net::TcpStream::connect(sidecar.addr()).await?;
///     let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
///     client.write_all(request.as_bytes()).await?;
///     client.read_to_end(&mut Vec::new()).await?;
/// }
/// assert_eq!((sidecar.meshed(&web), pod.requests().len()), (1, 1));
/// assert_eq!((sidecar.passthrough(), internet.bypassed()), (1, 1));
/// assert_eq!(sidecar.outcomes()[1].verdict, Verdict::Passthrough);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HostRouter {
    shared: Arc<Shared>,
    server: Server,
}

/// How a sidecar handles unknown destinations
/// (`meshConfig.outboundTrafficPolicy.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutboundPolicy {
    /// `ALLOW_ANY`, Istio's default: forwards it to where the client meant to connect, in
    /// plaintext and past the mesh.
    #[default]
    AllowAny,
    /// `REGISTRY_ONLY`: answers 502 (`block_all`).
    RegistryOnly,
}

#[derive(Debug)]
struct Shared {
    settings: Mutex<Settings>,
    log: OutcomeLog,
}

#[derive(Debug, Default)]
struct Settings {
    registry: Registry,
    policy: OutboundPolicy,
    passthrough: Option<SocketAddr>,
    http10: bool,
    no_passthrough_attempts: bool,
}

/// The decision about a request.
struct Decision {
    verdict: Verdict,
    service: Option<ServiceRef>,
    next: Next,
}

enum Next {
    Forward(SocketAddr),
    Answer(Response<Body>),
}

impl HostRouter {
    /// Starts on a free port of `127.0.0.1`, knowing no Service.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// Starts on an address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_on(addr: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            settings: Mutex::new(Settings::default()),
            log: OutcomeLog::new(),
        });
        let server =
            Server::start(addr, None, {
                let shared = Arc::clone(&shared);
                move |connection| {
                    let shared = Arc::clone(&shared);
                    let relay = Arc::new(Relay::new(Arc::clone(&connection)));
                    service_fn(move |request| {
                        let (shared, relay) = (Arc::clone(&shared), Arc::clone(&relay));
                        let connection = Arc::clone(&connection);
                        async move {
                            Ok::<_, Infallible>(shared.route(&connection, &relay, request).await)
                        }
                    })
                }
            })
            .await?;
        Ok(Self { shared, server })
    }

    /// The address it listens on, for cluster DNS to answer as the ClusterIP of every Service.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Makes a Service known, with its ClusterIP (one more name it goes by) and the origin behind
    /// it; replaces what was known of a Service of that name. A sidecar has a listener for each
    /// service port: where that matters, have a router for each.
    pub fn add_service(
        &self,
        service: &ServiceRef,
        domain: &ClusterDomain,
        cluster_ip: Option<IpAddr>,
        origin: SocketAddr,
    ) {
        let mut settings = self.shared.settings();
        settings.registry.add(service, domain, cluster_ip, origin);
    }

    /// Forgets a Service: its names are unknown from now on.
    pub fn remove_service(&self, service: &ServiceRef) {
        self.shared.settings().registry.remove(service);
    }

    /// Sets the namespace the gateway runs in: Services of it also go by their bare name. Unset at
    /// first, as if it ran in one of its own.
    pub fn set_namespace(&self, namespace: &str) {
        self.shared.settings().registry.set_namespace(namespace);
    }

    /// Sets what happens to unknown hosts; [`OutboundPolicy::AllowAny`] at first.
    pub fn set_outbound_policy(&self, policy: OutboundPolicy) {
        self.shared.settings().policy = policy;
    }

    /// Sets where unknown hosts are let through to. It stands for the address the gateway dialled
    /// (Envoy's `ORIGINAL_DST`), which in a test is this router. Without one they get 503.
    pub fn set_passthrough(&self, origin: Option<SocketAddr>) {
        self.shared.settings().passthrough = origin;
    }

    /// Sets whether `x-envoy-attempt-count` is added to passthrough requests. It is at first, as by
    /// Istio's `allow_any` virtual host; an unmatched *TCP* connection would carry none.
    pub fn set_passthrough_attempt_count(&self, on: bool) {
        self.shared.settings().no_passthrough_attempts = !on;
    }

    /// Sets whether HTTP/1.0 is served (`PILOT_HTTP10`); at first it is answered 426.
    pub fn set_http10(&self, on: bool) {
        self.shared.settings().http10 = on;
    }

    /// How many connections have been accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.server.accepted()
    }

    outcome_methods!();

    fn log(&self) -> &OutcomeLog {
        &self.shared.log
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn route(
        &self,
        connection: &Connection,
        relay: &Relay,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let (decision, count_attempts) = {
            let settings = self.settings();
            let decision = settings.decide(&request);
            let passthrough = decision.verdict == Verdict::Passthrough;
            let count_attempts = !(passthrough && settings.no_passthrough_attempts);
            (decision, count_attempts)
        };
        let verdict = decision.verdict;
        self.log
            .enter(Outcome::of(connection, &request, decision.service, verdict));
        let origin = match decision.next {
            Next::Forward(origin) => origin,
            Next::Answer(response) => return response,
        };
        let headers = request.headers_mut();
        headers.remove(MESH_ROUTER);
        if verdict == Verdict::Meshed {
            headers.insert(MESH_ROUTER, HeaderValue::from_static("host"));
        }
        envoy::mark_request(headers, count_attempts);
        relay.forward(origin, request, true).await
    }
}

impl Settings {
    fn decide(&self, request: &Request<Incoming>) -> Decision {
        if request.version() < Version::HTTP_11 && !self.http10 {
            return Decision::refuse(envoy::upgrade_required());
        }
        let Some(authority) = authority(request) else {
            return Decision::refuse(envoy::local_reply(StatusCode::BAD_REQUEST, ""));
        };
        if request.method() == Method::CONNECT {
            return Decision::refuse(envoy::local_reply(StatusCode::NOT_FOUND, ""));
        }
        if let Some((service, origin)) = self.registry.find(authority) {
            return Decision {
                verdict: Verdict::Meshed,
                service: Some(service.clone()),
                next: Next::Forward(origin),
            };
        }
        if self.policy == OutboundPolicy::RegistryOnly {
            return Decision::refuse(envoy::local_reply(StatusCode::BAD_GATEWAY, ""));
        }
        Decision {
            verdict: Verdict::Passthrough,
            service: None,
            next: match self.passthrough {
                Some(origin) => Next::Forward(origin),
                None => Next::Answer(envoy::upstream_failed()),
            },
        }
    }
}

impl Decision {
    fn refuse(response: Response<Body>) -> Self {
        Self {
            verdict: Verdict::Blocked,
            service: None,
            next: Next::Answer(response),
        }
    }
}
