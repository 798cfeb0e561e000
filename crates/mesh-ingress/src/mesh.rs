//! The gateway as one service.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, ClusterDomain, Downstream, Error, ServiceRef};
use mesh_ingress_forward::{Forwarder, ResponseBody};
use mesh_ingress_headers::response::ResponseHygiene;
use mesh_ingress_headers::verdict::VerdictRules;
use mesh_ingress_headers::{Client, EdgeHygiene, ForwardedPolicy};
use mesh_ingress_resolve::Resolve;
use mesh_ingress_route::Route;
use tower_service::Service;

use crate::respond::Responder;
use crate::table::{self, Table};
use crate::{
    BuildError, Explanation, Finding, Mesh, MeshConnection, MeshIngressBuilder, ResponseFuture,
    TargetVerdicts, doctor, explain, request,
};

/// A mesh-aware gateway: routes requests to Kubernetes Services and reaches them as the mesh
/// expects.
///
/// One [`Arc`] to clone, and `Send + Sync`; it answers errors as responses, so that
/// `axum::Router::fallback_service` and a bare hyper server both take it, with request bodies of
/// any type. See the [crate documentation](crate) for what a request goes through.
///
/// The client's address comes from the [`Downstream`] request extension, which `mesh-ingress-server`
/// inserts. The fields about the client are formatted once per connection, and the response carries the
/// same extension. With a server that inserts none, use [`for_connection`](Self::for_connection).
/// Without either, upstreams get no fields about the client, and those the client sent itself are
/// removed.
#[derive(Clone)]
pub struct MeshIngress {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) settings: Arc<Settings>,
}

pub(crate) struct Settings {
    pub(crate) domain: ClusterDomain,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) forwarder: Forwarder,
    pub(crate) forwarded: ForwardedPolicy,
    pub(crate) hygiene: EdgeHygiene,
    pub(crate) mesh: Mesh,
    pub(crate) verdict: VerdictRules,
    pub(crate) require_mesh: bool,
    pub(crate) verdict_extension: bool,
    pub(crate) response: ResponseHygiene,
    pub(crate) responder: Responder,
}

impl MeshIngress {
    /// A builder without routes.
    pub fn builder() -> MeshIngressBuilder {
        MeshIngressBuilder::default()
    }

    pub(crate) fn new(routes: Vec<Route>, settings: Settings) -> Result<Self, BuildError> {
        let settings = Arc::new(settings);
        let table = table::prepare(routes, &settings)?;
        Ok(Self {
            inner: Arc::new(Inner {
                table: ArcSwap::from_pointee(table),
                settings,
            }),
        })
    }

    /// Replaces all routes at once. Requests in flight, WebSockets included, keep their routes;
    /// services in both tables keep their addresses and connections.
    ///
    /// # Errors
    /// When a route is wrong or contradicts another; the old routes then stay in place.
    pub fn set_routes(&self, routes: impl IntoIterator<Item = Route>) -> Result<(), BuildError> {
        let settings = &self.inner.settings;
        let routes = routes.into_iter().collect();
        let table = table::prepare(routes, settings)?;
        self.inner.table.store(Arc::new(table));
        Ok(())
    }

    /// The gateway for one client connection: the fields that tell upstreams about the client are
    /// formatted once, not once per request.
    #[must_use]
    pub fn for_connection(&self, downstream: &Downstream) -> MeshConnection {
        MeshConnection::new(self.clone(), downstream)
    }

    /// Serves one request. The same as calling the service, without `&mut` and without a clone.
    #[inline(always)]
    pub fn handle<B>(&self, request: Request<B>) -> ResponseFuture<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        request::dispatch(&self.inner, None, request)
    }

    /// Diagnoses why requests bypass the mesh: whether the proxy beside this gateway is ready, whether
    /// each service resolves, and whether the response to a `HEAD /` came through the mesh. It sends
    /// these requests, so call it on an operator's demand or once at the start.
    pub async fn doctor(&self) -> Vec<Finding> {
        doctor::examine(&self.inner).await
    }

    /// Whether the proxy of the mesh beside this gateway is ready; `None` if the
    /// [`Mesh`] has none to ask. For a readiness probe: requests sent before the proxy is ready fail or
    /// bypass it.
    pub async fn sidecar_ready(&self) -> Option<Result<(), Error>> {
        doctor::sidecar_ready(&self.inner).await
    }

    /// Opens connections to each backend until `connections` are ready, so that the first requests
    /// do not wait for DNS and handshakes. Await it at the start, in the runtime that serves. Returns
    /// the services that could not be reached, each with its cause; each request tries them again.
    pub async fn warm_up(&self, connections: usize) -> Vec<(ServiceRef, Error)> {
        let table = self.inner.table.load_full();
        let targets = table.iter().flat_map(|(_, prepared)| prepared.targets());
        let mut failed = Vec::new();
        for target in targets {
            let warmed = async {
                let resolved = target.watch.ready().await?;
                let pool = target.resolve_pool(&self.inner.settings.forwarder, None, resolved);
                pool.connections.warm_up(connections).await
            };
            if let Err(error) = warmed.await {
                failed.push((target.watch.service().clone(), error));
            }
        }
        failed
    }

    /// For each backend how many responses came through the mesh or bypassed it, since the routes were
    /// set. As metrics: `mesh_ingress.upstream.responses` by `route`, `service` and `verdict`.
    #[must_use]
    pub fn verdicts(&self) -> Vec<TargetVerdicts> {
        let table = self.inner.table.load();
        let targets = table.iter().flat_map(|(_, prepared)| prepared.targets());
        targets
            .map(|target| target.verdicts.snapshot(target))
            .collect()
    }

    /// Explains what the gateway would do with a request, without sending it: the route, its backends,
    /// and each backend's address and header changes.
    ///
    /// ```
    /// use mesh_ingress::{MeshIngress, Route};
    /// # use mesh_ingress::{Resolve, ServiceRef, Upstream, Watch};
    /// # #[derive(Debug)]
    /// # struct Static;
    /// # impl Resolve for Static {
    /// #     fn watch(&self, service: &ServiceRef) -> Watch {
    /// #         let upstream = Upstream::new(([10, 96, 0, 7], 80).into());
    /// #         Watch::fixed(service.clone(), upstream)
    /// #     }
    /// # }
    /// # let resolver = Static;
    ///
    /// let mesh = MeshIngress::builder()
    ///     .route(Route::host("shop.example.com").path_prefix("/").to("web.default:80".parse()?))
    ///     .resolver(resolver)
    ///     .build()?;
    /// let request = http::Request::get("/cart").header("host", "shop.example.com").body(())?;
    /// let text = mesh.explain(&request).to_string();
    /// assert!(text.contains("vhost     web.default.svc.cluster.local"));
    /// assert!(text.contains("address   10.96.0.7:80"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn explain<B>(&self, request: &Request<B>) -> Explanation {
        let client = request.extensions().get::<Downstream>();
        let client = client.map_or_else(Client::unknown, Client::new);
        explain::explain(&self.inner, &client, request)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The forwarder, for its counters and for closing tunnels on shutdown.
    #[must_use]
    pub fn forwarder(&self) -> &Forwarder {
        &self.inner.settings.forwarder
    }
}

impl<B> Service<Request<B>> for MeshIngress
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline(always)]
    fn call(&mut self, request: Request<B>) -> ResponseFuture<B> {
        self.handle(request)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl fmt::Debug for MeshIngress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshIngress")
            .field("domain", &self.inner.settings.domain)
            .field("resolver", &self.inner.settings.resolver)
            .finish_non_exhaustive()
    }
}
