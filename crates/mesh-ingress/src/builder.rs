//! Putting a gateway together.

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
    tell_verdict: bool,
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
            tell_verdict: true,
            response: ResponseHygiene::default(),
            name: "mesh-ingress".to_owned(),
            details: false,
            error_page: None,
        }
    }
}

impl MeshIngressBuilder {
    /// Adds a route. Their order does not matter but for ties: see [`crate::route`].
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

    /// What finds services. Default, with the feature `hickory`: cluster DNS as
    /// `/etc/resolv.conf` names it.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// The forwarder, with time-outs and pool limits of your choice. Default:
    /// [`Forwarder::default`], with what fits the [`mesh`](Self::mesh). One forwarder may serve several gateways, which then share
    /// connections.
    pub fn forwarder(mut self, forwarder: Forwarder) -> Self {
        self.forwarder = Some(forwarder);
        self
    }

    /// Who is believed about the client, and what upstreams are told of it. Default: nobody is,
    /// and `X-Forwarded-{For,Host,Proto,Port}` and `X-Real-IP` say what this gateway saw.
    pub fn forwarded(mut self, policy: ForwardedPolicy) -> Self {
        self.forwarded = policy;
        self
    }

    /// What is taken off requests of peers that are not trusted: see [`EdgeHygiene`]. Default:
    /// mesh control fields, client certificates, identities and names with `_`; a request id that
    /// is no UUID is replaced.
    pub fn hygiene(mut self, hygiene: EdgeHygiene) -> Self {
        self.hygiene = hygiene;
        self
    }

    /// The data plane this gateway stands in: sets defaults, see [`Mesh`]. Default: [`Mesh::None`].
    pub fn mesh(mut self, mesh: Mesh) -> Self {
        self.mesh = mesh;
        self
    }

    /// What marks a response as one that came through the mesh: see [`VerdictRules`]. Default:
    /// what fits the [`mesh`](Self::mesh).
    pub fn verdict(mut self, rules: VerdictRules) -> Self {
        self.verdict = Some(rules);
        self
    }

    /// Whether a response that came past the mesh is refused (502): one that is judged
    /// [`Passthrough`](mesh_ingress_core::Verdict::Passthrough), or that bears no mark although
    /// earlier ones of the same backend did. Off by default, because the marks are circumstantial:
    /// behind an Istio sidecar choose a [`verdict`](Self::verdict) that can tell.
    pub fn require_mesh(mut self, require: bool) -> Self {
        self.require_mesh = require;
        self
    }

    /// Whether each response carries the mesh's [`Verdict`](mesh_ingress_core::Verdict) as an
    /// extension, for layers around this gateway. Turn it off where nobody reads it: it costs three
    /// allocations. [`MeshIngress::verdicts`] counts in any case. Default on.
    pub fn tell_verdict(mut self, on: bool) -> Self {
        self.tell_verdict = on;
        self
    }

    /// What is taken off responses: see [`ResponseHygiene`]. Default: hop-by-hop fields, those of
    /// the mesh (`X-Envoy-*`, `L5d-*` …) and a `Server` that names it.
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

    /// Makes own error pages: gets the error and the answer that would be sent, and returns the one
    /// to send. What identifies the gateway (`Proxy-Status`) and keeps the answer out of caches is
    /// added afterwards. gRPC clients get theirs in `grpc-status` and are not asked about.
    ///
    /// The error names services and addresses: its [`kind`](Error::kind) and
    /// [`origin`](Error::origin) are for the public, its [`report`](Error::report) is not. Default:
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

    /// The gateway. Within a Tokio runtime the names of all services are looked up at once;
    /// without one, on first use.
    ///
    /// # Errors
    ///
    /// When a route is wrong or contradicts another, or the system's name servers cannot be read.
    /// A service that does not resolve (yet) is no error: its requests are answered with 503 until
    /// it does.
    pub fn build(self) -> Result<MeshIngress, BuildError> {
        let resolver = match self.resolver {
            Some(resolver) => resolver,
            None => system_resolver(&self.domain)?,
        };
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
        // An sf-token begins with a letter (RFC 8941 §3.3.4).
        let named = self.name.starts_with(|c: char| c.is_ascii_alphabetic())
            && self.name.bytes().all(is_token);
        if !named || HeaderValue::from_str(&self.name).is_err() {
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
                tell_verdict: self.tell_verdict,
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
