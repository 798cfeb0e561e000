//! Prepares routes: everything that does not depend on a request is computed here.

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use mesh_ingress_core::{Protocol, ServiceRef, Tls, Upstream, Vhost, VhostPolicy};
use mesh_ingress_forward::{Forwarder, UpstreamPool};
use mesh_ingress_resolve::{Revision, Watch};
use mesh_ingress_route::{Action, Backend, Route, RouteTable};

use crate::BuildError;
use crate::mesh::Settings;
use crate::response::Verdicts;

/// The prepared table.
pub(crate) type Table = RouteTable<PreparedRoute>;

/// The backends of a route, ready to be sent to; in the order the route has them.
#[derive(Debug)]
pub(crate) struct PreparedRoute {
    targets: Targets,
    /// The route's action is to forward.
    pub(crate) forwards: bool,
}

/// Most routes have one backend. Holding it inline saves a memory access, which counts with a
/// thousand routes.
#[derive(Debug)]
enum Targets {
    One(Arc<Target>),
    Several(Vec<Arc<Target>>),
}

/// A backend of a route: its vhost, protocol and address. The fields that every request reads come
/// first, to share cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Target {
    pub(crate) watch: Watch,
    /// The connections to its last known address, unless it has several.
    pool: ArcSwapOption<ResolvedPool>,
    /// Shared by all targets. A request holds its target and reaches the settings through it.
    pub(crate) settings: Arc<Settings>,
    pub(crate) protocol: Protocol,
    /// The value of `l5d-dst-override`; `None` sends none.
    pub(crate) dst_override: Option<Box<HeaderValue>>,
    pub(crate) verdicts: Verdicts,
    /// What `Host` and `:authority` are set to; `None` keeps the client's. Every request reads the
    /// value of `Host`, which is its first field.
    pub(crate) vhost: Option<Vhost>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The name of the route it belongs to.
    pub(crate) route: Arc<str>,
}

/// A backend's address and the connections to it. The fields that every request reads come first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ResolvedPool {
    /// The watch's revision that this address belongs to; `None` if it is not known, so that the next
    /// request reads the watch again.
    revision: Option<Revision>,
    pub(crate) connections: UpstreamPool,
    /// The address is one of several, so the outcome of each request is reported to the watch.
    pub(crate) is_spread: bool,
    resolved: Upstream,
}

impl Target {
    /// The connections to the backend, if its address has not changed since the last request.
    pub(crate) fn current_pool(&self) -> Option<Arc<ResolvedPool>> {
        let pool = self.pool.load();
        let pool = pool.as_ref()?;
        // With a thousand routes in use none of these values is in a cache, nor is the vhost. Reading
        // all of them here lets the processor fetch them in parallel; read later, each would be a cache
        // miss of its own.
        let vhost = self.vhost.as_ref().map(Vhost::header_value);
        let name = vhost.map(|name| name.as_bytes().first().copied());
        let (cached, current, ..) =
            black_box((pool.revision, self.watch.revision(), pool.is_spread, name));
        (current.is_some() && cached == current).then(|| Arc::clone(pool))
    }

    /// The connections to the backend at the address `resolved`. Connections to its previous address
    /// are closed when they become idle: kube-proxy forgets a ClusterIP at once, and the address may
    /// next belong to another Service. `revision` is the watch's revision from before `resolved` was
    /// read.
    pub(crate) fn resolve_pool(
        &self,
        forwarder: &Forwarder,
        revision: Option<Revision>,
        resolved: Upstream,
    ) -> Arc<ResolvedPool> {
        let is_spread = self.watch.is_spread();
        if let Some(pool) = &*self.pool.load()
            && pool.resolved == resolved
            && (revision.is_none() || pool.revision == revision)
            && !is_spread
        {
            return Arc::clone(pool);
        }
        let upstream = self.upstream(resolved.clone());
        let connections = forwarder.pool(&upstream);
        let pool = Arc::new(ResolvedPool {
            revision,
            connections,
            is_spread,
            resolved,
        });
        // With several addresses the next request gets another one.
        let cached = (!is_spread).then(|| Arc::clone(&pool));
        if cached.is_none() && self.pool.load().is_none() {
            return pool;
        }
        // Two requests may see a new address at the same time: the second must not drain the
        // connections that the first has just opened.
        if let Some(previous) = self.pool.swap(cached)
            && previous.resolved != pool.resolved
        {
            previous.connections.drain();
        }
        pool
    }

    /// The address with the backend's protocol and TLS options.
    pub(crate) fn upstream(&self, resolved: Upstream) -> Upstream {
        let upstream = resolved.protocol(self.protocol);
        match &self.tls {
            Some(tls) => upstream.tls(Arc::clone(tls)),
            None => upstream,
        }
    }
}

/// Prepares routes. The resolver watches a Service once, however many routes share it.
pub(crate) fn prepare(routes: Vec<Route>, settings: &Arc<Settings>) -> Result<Table, BuildError> {
    // An invalid table must not start any watch.
    RouteTable::new(routes.iter().map(|route| (route.clone(), ())))?;
    let backends = routes.iter().flat_map(Route::backends);
    for backend in backends {
        check_tls(backend, &settings.forwarder)?;
    }
    let table = RouteTable::new(routes.into_iter().map(|route| {
        let name: Arc<str> = route.get_name().into();
        let backends = route.backends().iter();
        let targets = backends.map(|backend| Arc::new(target(&name, backend, settings)));
        let prepared = PreparedRoute {
            targets: targets.collect(),
            forwards: *route.action() == Action::Forward,
        };
        (route, prepared)
    }))?;
    Ok(table)
}

fn check_tls(backend: &Backend, forwarder: &Forwarder) -> Result<(), BuildError> {
    match backend.get_tls().map(Tls::profile) {
        Some(profile) if !forwarder.has_tls_profile(profile) => Err(BuildError::TlsProfile {
            service: backend.service().clone(),
            profile: profile.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn target(route: &Arc<str>, backend: &Backend, settings: &Arc<Settings>) -> Target {
    let service = backend.service();
    let derived = service.vhost(&settings.domain);
    let overrides = settings.mesh.sets_dst_override();
    let dst_override = overrides.then(|| dst_override(&derived, service)).flatten();
    // A preserved Host is the client's and must not decide which certificate is expected.
    let (vhost, name) = match backend.get_vhost() {
        VhostPolicy::Preserve => (None, derived),
        VhostPolicy::Override(vhost) => (Some(vhost.clone()), vhost.clone()),
        _ => (Some(derived.clone()), derived),
    };
    let tls = backend.get_tls().cloned().map(|tls| tls.or_vhost(&name));
    Target {
        watch: settings.resolver.watch(service),
        pool: ArcSwapOption::empty(),
        settings: Arc::clone(settings),
        protocol: backend.get_protocol(),
        dst_override: dst_override.map(Box::new),
        verdicts: Verdicts::default(),
        vhost,
        tls: tls.map(Arc::new),
        route: Arc::clone(route),
    }
}

/// The service and its port in the form of Linkerd's ingress mode. `None` for a named port, whose
/// number only DNS knows.
fn dst_override(derived: &Vhost, service: &ServiceRef) -> Option<HeaderValue> {
    let port = service.port().number()?;
    HeaderValue::try_from(format!("{derived}:{port}")).ok()
}

impl PreparedRoute {
    /// A backend of the route, by weight; `None` if no weight is above zero.
    pub(crate) fn pick(&self, route: &Route) -> Option<&Arc<Target>> {
        match self.targets() {
            [only] => Some(only),
            several => several.get(Backend::pick_index(route.backends(), fastrand::u64(..))?),
        }
    }

    /// All backends of the route, in the order the route has them.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        match &self.targets {
            Targets::One(target) => std::slice::from_ref(target),
            Targets::Several(targets) => targets,
        }
    }
}

impl FromIterator<Arc<Target>> for Targets {
    fn from_iter<I: IntoIterator<Item = Arc<Target>>>(targets: I) -> Self {
        let mut targets: Vec<_> = targets.into_iter().collect();
        match targets.pop() {
            Some(only) if targets.is_empty() => Self::One(only),
            last => {
                targets.extend(last);
                Self::Several(targets)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
