//! The builder of a gateway.

use std::sync::Arc;

use http::{HeaderValue, Response};
use mesh_ingress_core::{Body, ClusterDomain, Error};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_headers::response::ResponseHygiene;
use mesh_ingress_headers::verdict::VerdictRules;
use mesh_ingress_headers::{EdgeHygiene, ForwardedPolicy};
use mesh_ingress_resolve::Resolve;
use mesh_ingress_route::Route;

use crate::mesh::Settings;
use crate::respond::{ErrorPage, Responder};
use crate::{BuildError, Mesh, MeshIngress};

/// Builds a [`MeshIngress`]. Everything but the routes has a default.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct MeshIngressBuilder {
    routes: Vec<Route>,
    domain: ClusterDomain,
    resolver: Option<Arc<dyn Resolve>>,
    forwarder: Option<Forwarder>,
    forwarded: ForwardedPolicy,
    hygiene: EdgeHygiene,
    mesh: Mesh,
    verdict: Option<VerdictRules>,
    require_mesh: bool,
    verdict_extension: bool,
    response: ResponseHygiene,
    name: String,
    details: bool,
    error_page: Option<ErrorPage>,
}

impl Default for MeshIngressBuilder {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            domain: ClusterDomain::default(),
            resolver: None,
            forwarder: None,
            forwarded: ForwardedPolicy::default(),
            hygiene: EdgeHygiene::default(),
            mesh: Mesh::default(),
            verdict: None,
            require_mesh: false,
            verdict_extension: true,
            response: ResponseHygiene::default(),
            name: "mesh-ingress".to_owned(),
            details: false,
            error_page: None,
        }
    }
}

impl MeshIngressBuilder {
    /// Adds a route. The order of routes matters for ties only: see [`crate::route`].
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds routes, such as those of a translated Ingress manifest.
    pub fn routes(mut self, routes: impl IntoIterator<Item = Route>) -> Self {
        self.routes.extend(routes);
        self
    }

    /// The cluster's DNS zone. Default: `cluster.local`.
    pub fn domain(mut self, domain: ClusterDomain) -> Self {
        self.domain = domain;
        self
    }

    /// The resolver that finds the addresses of services. Default, with the feature `hickory`: cluster
    /// DNS as `/etc/resolv.conf` names it.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// The forwarder, which has the time-outs and pool limits. Default: [`Forwarder::default`] with the
    /// connect retry that fits the [`mesh`](Self::mesh). One forwarder may serve several gateways,
    /// which then share connections.
    pub fn forwarder(mut self, forwarder: Forwarder) -> Self {
        self.forwarder = Some(forwarder);
        self
    }

    /// Which peers are trusted to tell the client's address, and which fields tell it to upstreams.
    /// Default: no peer is trusted, and `X-Forwarded-{For,Host,Proto,Port}` and `X-Real-IP` have the
    /// values that this gateway saw.
    pub fn forwarded(mut self, policy: ForwardedPolicy) -> Self {
        self.forwarded = policy;
        self
    }

    /// Which fields are removed from requests of untrusted peers: see [`EdgeHygiene`]. Default:
    /// mesh control fields, client certificates, identities and names with `_`; a request id that
    /// is no UUID is replaced.
    pub fn hygiene(mut self, hygiene: EdgeHygiene) -> Self {
        self.hygiene = hygiene;
        self
    }

    /// The data plane this gateway runs in: sets defaults, see [`Mesh`]. Default: [`Mesh::None`].
    pub fn mesh(mut self, mesh: Mesh) -> Self {
        self.mesh = mesh;
        self
    }

    /// The marks of a response that came through the mesh: see [`VerdictRules`]. Default: those that
    /// fit the [`mesh`](Self::mesh).
    pub fn verdict(mut self, rules: VerdictRules) -> Self {
        self.verdict = Some(rules);
        self
    }

    /// Whether a response that bypassed the mesh is replaced by a 502: one that is judged
    /// [`Passthrough`](mesh_ingress_core::Verdict::Passthrough), or that has no mark although earlier
    /// responses of the same backend had one. Off by default, because the marks are circumstantial:
    /// behind an Istio sidecar choose a [`verdict`](Self::verdict) that can tell.
    pub fn require_mesh(mut self, require: bool) -> Self {
        self.require_mesh = require;
        self
    }

    /// Whether each response carries the mesh's [`Verdict`](mesh_ingress_core::Verdict) as an
    /// extension, for layers around this gateway. Turn it off if no layer reads it: it costs three
    /// allocations. [`MeshIngress::verdicts`] counts in any case. Default on.
    pub fn verdict_extension(mut self, on: bool) -> Self {
        self.verdict_extension = on;
        self
    }

    /// Which fields are removed from responses: see [`ResponseHygiene`]. Default: hop-by-hop fields,
    /// those of the mesh (`X-Envoy-*`, `L5d-*` …) and a `Server` that names the mesh.
    pub fn response_hygiene(mut self, hygiene: ResponseHygiene) -> Self {
        self.response = hygiene;
        self
    }

    /// The name of this gateway in `Proxy-Status` (RFC 9209). Default: `mesh-ingress`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Whether `Proxy-Status` carries the whole error text as `details`. Off by default, because
    /// it names services and addresses: for operators, not for the public.
    pub fn expose_details(mut self, expose: bool) -> Self {
        self.details = expose;
        self
    }

    /// Renders custom error pages: `render` gets the error and the default response, and returns the
    /// response to send. `Proxy-Status` and `Cache-Control: no-store` are added afterwards. It is not
    /// called for gRPC clients, which get the error in `grpc-status`.
    ///
    /// The error names services and addresses: its [`kind`](Error::kind) and
    /// [`origin`](Error::origin) may be published, its [`report`](Error::report) may not. Default:
    /// one line of text, with the status and the kind.
    ///
    /// ```
    /// use mesh_ingress::{Body, MeshIngress};
    ///
    /// let builder = MeshIngress::builder().error_page(|error, response| {
    ///     let (mut parts, _) = response.into_parts();
    ///     let html = http::HeaderValue::from_static("text/html; charset=utf-8");
    ///     parts.headers.insert(http::header::CONTENT_TYPE, html);
    ///     let page = format!("<h1>{}</h1><p>Please come back later.</p>", parts.status);
    ///     http::Response::from_parts(parts, Body::from(page))
    /// });
    /// ```
    pub fn error_page(
        mut self,
        render: impl Fn(&Error, Response<Body>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        self.error_page = Some(ErrorPage::new(render));
        self
    }

    /// Builds the gateway. Within a Tokio runtime all services are resolved at once; without one, each
    /// on first use.
    ///
    /// # Errors
    ///
    /// When a route is wrong or contradicts another, or the system's name servers cannot be read.
    /// A service that does not resolve is no error: its requests are answered with 503 until it does.
    pub fn build(self) -> Result<MeshIngress, BuildError> {
        let resolver = match self.resolver {
            Some(resolver) => resolver,
            None => system_resolver(&self.domain)?,
        };
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
        // An sf-token begins with a letter (RFC 8941 §3.3.4).
        let is_valid = self.name.starts_with(|c: char| c.is_ascii_alphabetic())
            && self.name.bytes().all(is_token);
        if !is_valid || HeaderValue::from_str(&self.name).is_err() {
            return Err(BuildError::Name(self.name));
        }
        MeshIngress::new(
            self.routes,
            Settings {
                domain: self.domain,
                resolver,
                forwarder: self.forwarder.unwrap_or_else(|| {
                    let retry = self.mesh.connect_retry();
                    Forwarder::builder().connect_retry(retry).build()
                }),
                forwarded: self.forwarded,
                hygiene: self.hygiene,
                mesh: self.mesh,
                verdict: self.verdict.unwrap_or_else(|| self.mesh.verdict_rules()),
                require_mesh: self.require_mesh,
                verdict_extension: self.verdict_extension,
                response: self.response,
                responder: Responder::new(&self.name, self.details, self.error_page),
            },
        )
    }
}

#[cfg(feature = "hickory")]
fn system_resolver(domain: &ClusterDomain) -> Result<Arc<dyn Resolve>, BuildError> {
    let dns = mesh_ingress_resolve::ClusterDns::builder()
        .domain(domain.clone())
        .build()
        .map_err(|error| BuildError::Resolver(error.into()))?;
    Ok(Arc::new(dns))
}

#[cfg(not(feature = "hickory"))]
fn system_resolver(_: &ClusterDomain) -> Result<Arc<dyn Resolve>, BuildError> {
    Err(BuildError::NoResolver)
}
