//! Routes, prepared: whatever can be done before a request comes is done here.

use std::sync::Arc;

use mesh_ingress_core::{ClusterDomain, Protocol, Vhost, VhostPolicy};
use mesh_ingress_resolve::{Resolve, Watch};
use mesh_ingress_route::{Backend, Route, RouteError, RouteTable};

/// The prepared table.
pub(crate) type Table = RouteTable<Prepared>;

/// The backends of a route, ready to be sent to; in the order the route has them.
#[derive(Debug)]
pub(crate) struct Prepared {
    targets: Vec<Arc<Target>>,
}

/// A backend: what to say, and where it is.
#[derive(Debug)]
pub(crate) struct Target {
    /// The name of the route it belongs to.
    pub(crate) route: Arc<str>,
    pub(crate) watch: Watch,
    /// `None` keeps what the client said.
    pub(crate) vhost: Option<Vhost>,
    pub(crate) protocol: Protocol,
}

/// Prepares routes. Services that several routes share are watched once.
pub(crate) fn prepare(
    routes: Vec<Route>,
    domain: &ClusterDomain,
    resolver: &dyn Resolve,
) -> Result<Table, RouteError> {
    // A table that is wrong must not start a single watch.
    RouteTable::new(routes.iter().map(|route| (route.clone(), ())))?;
    RouteTable::new(routes.into_iter().map(|route| {
        let name: Arc<str> = route.get_name().into();
        let backends = route.backends().iter();
        let targets = backends.map(|backend| {
            let route = Arc::clone(&name);
            Arc::new(target(route, backend, domain, resolver))
        });
        let prepared = Prepared {
            targets: targets.collect(),
        };
        (route, prepared)
    }))
}

fn target(
    route: Arc<str>,
    backend: &Backend,
    domain: &ClusterDomain,
    resolver: &dyn Resolve,
) -> Target {
    let service = backend.service();
    Target {
        route,
        watch: resolver.watch(service),
        vhost: match backend.get_vhost() {
            VhostPolicy::Preserve => None,
            VhostPolicy::Override(vhost) => Some(vhost.clone()),
            _ => Some(service.vhost(domain)),
        },
        protocol: backend.get_protocol(),
    }
}

impl Prepared {
    /// A backend of the route, by weight; `None` if no weight is above zero.
    pub(crate) fn pick(&self, route: &Route) -> Option<&Arc<Target>> {
        match self.targets.as_slice() {
            [only] => Some(only),
            several => several.get(Backend::pick_index(route.backends(), fastrand::u64(..))?),
        }
    }

    /// All backends of the route, in the order the route has them.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }
}
