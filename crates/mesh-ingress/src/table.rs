//! Routes, prepared: whatever can be done before a request comes is done here.

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
pub(crate) type Table = RouteTable<Prepared>;

/// The backends of a route, ready to be sent to; in the order the route has them.
#[derive(Debug)]
pub(crate) struct Prepared {
    targets: Targets,
    /// Nothing else is asked of the route.
    pub(crate) forwards: bool,
}

/// Most routes have one backend, and with a thousand routes one more look at memory counts.
#[derive(Debug)]
enum Targets {
    One(Arc<Target>),
    Several(Vec<Arc<Target>>),
}

/// A backend: what to say, and where it is. What each request looks at comes first, and is together
/// therefore.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Target {
    pub(crate) watch: Watch,
    /// Where it was when it was last asked for, unless it has several addresses.
    reach: ArcSwapOption<Reach>,
    /// Those of all targets. A request holds its target, and so need not hold something else to get at
    /// them.
    pub(crate) settings: Arc<Settings>,
    pub(crate) protocol: Protocol,
    /// What `l5d-dst-override` is set to; `None` leaves it away.
    pub(crate) dst_override: Option<Box<HeaderValue>>,
    pub(crate) verdicts: Verdicts,
    /// What `Host` and `:authority` are set to; `None` keeps the client's. Each request reads the
    /// value of `Host`, which comes first in it.
    pub(crate) vhost: Option<Vhost>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The name of the route it belongs to.
    pub(crate) route: Arc<str>,
}

/// A backend's address, and the connections to it. What each request looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Reach {
    /// What the watch had when this was found out; `None` has it be asked again.
    revision: Option<Revision>,
    pub(crate) pool: UpstreamPool,
    /// It is one of several addresses, and what comes of a request is to be reported.
    pub(crate) is_spread: bool,
    resolved: Upstream,
}

impl Target {
    /// The connections to where the backend is, if it is where it was.
    pub(crate) fn reached(&self) -> Option<Arc<Reach>> {
        let reach = self.reach.load();
        let reach = reach.as_ref()?;
        // With a thousand routes in use none of these is at hand, nor is the name that the request is
        // told. Asked for at once, they come at once; later, each would be waited for by itself.
        let vhost = self.vhost.as_ref().map(Vhost::header_value);
        let name = vhost.map(|name| name.as_bytes().first().copied());
        let (then, now, ..) =
            black_box((reach.revision, self.watch.revision(), reach.is_spread, name));
        (now.is_some() && then == now).then(|| Arc::clone(reach))
    }

    /// The connections to where the backend is now. Those to where it was before are closed when
    /// they become idle: kube-proxy forgets a ClusterIP at once, and what still works leads to
    /// whoever has that address next. `revision` is what the watch had before it gave the address.
    pub(crate) fn reach(
        &self,
        forwarder: &Forwarder,
        revision: Option<Revision>,
        resolved: Upstream,
    ) -> Arc<Reach> {
        let is_spread = self.watch.is_spread();
        if let Some(reach) = &*self.reach.load()
            && reach.resolved == resolved
            && (revision.is_none() || reach.revision == revision)
            && !is_spread
        {
            return Arc::clone(reach);
        }
        let upstream = self.upstream(resolved.clone());
        let pool = forwarder.pool(&upstream);
        let reach = Arc::new(Reach {
            revision,
            pool,
            is_spread,
            resolved,
        });
        // One of several is not where it is now: the next request has another.
        let kept = (!is_spread).then(|| Arc::clone(&reach));
        if kept.is_none() && self.reach.load().is_none() {
            return reach;
        }
        // Two may find out at the same time: what the first has just begun is not drained by the
        // second.
        if let Some(before) = self.reach.swap(kept)
            && before.resolved != reach.resolved
        {
            before.pool.drain();
        }
        reach
    }

    /// How to speak to what is there.
    pub(crate) fn upstream(&self, resolved: Upstream) -> Upstream {
        let upstream = resolved.protocol(self.protocol);
        match &self.tls {
            Some(tls) => upstream.tls(Arc::clone(tls)),
            None => upstream,
        }
    }
}

/// Prepares routes. Services that several routes share are watched once.
pub(crate) fn prepare(routes: Vec<Route>, settings: &Arc<Settings>) -> Result<Table, BuildError> {
    // A table that is wrong must not start a single watch.
    RouteTable::new(routes.iter().map(|route| (route.clone(), ())))?;
    let backends = routes.iter().flat_map(Route::backends);
    for backend in backends {
        check_tls(backend, &settings.forwarder)?;
    }
    let table = RouteTable::new(routes.into_iter().map(|route| {
        let name: Arc<str> = route.get_name().into();
        let backends = route.backends().iter();
        let targets = backends.map(|backend| Arc::new(target(&name, backend, settings)));
        let prepared = Prepared {
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
    // What is kept is the client's, and has no say in whose certificate is expected.
    let (vhost, name) = match backend.get_vhost() {
        VhostPolicy::Preserve => (None, derived),
        VhostPolicy::Override(vhost) => (Some(vhost.clone()), vhost.clone()),
        _ => (Some(derived.clone()), derived),
    };
    let tls = backend.get_tls().cloned().map(|tls| tls.or_vhost(&name));
    Target {
        watch: settings.resolver.watch(service),
        reach: ArcSwapOption::empty(),
        settings: Arc::clone(settings),
        protocol: backend.get_protocol(),
        dst_override: dst_override.map(Box::new),
        verdicts: Verdicts::default(),
        vhost,
        tls: tls.map(Arc::new),
        route: Arc::clone(route),
    }
}

/// The service and its port, as Linkerd's ingress mode wants them. `None` for a named port: its
/// number is known to DNS only.
fn dst_override(derived: &Vhost, service: &ServiceRef) -> Option<HeaderValue> {
    let port = service.port().number()?;
    HeaderValue::try_from(format!("{derived}:{port}")).ok()
}

impl Prepared {
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
