//! Routes, prepared: whatever can be done before a request comes is done here.

use std::fmt;

use mesh_ingress_core::{ClusterDomain, Protocol, ServiceRef, Vhost, VhostPolicy};
use mesh_ingress_resolve::{Resolve, Watch};
use mesh_ingress_route::{Backend, Route, RouteError, RouteTable};

/// The prepared table.
pub(crate) type Table = RouteTable<Prepared>;

/// A route with its backends ready to be sent to.
pub(crate) struct Prepared {
    pub(crate) name: String,
    route: Route,
    targets: Vec<Target>,
}

/// A backend: what to say, and where it is.
#[derive(Clone)]
pub(crate) struct Target {
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
        let targets = route
            .backends()
            .iter()
            .map(|backend| target(backend, domain, resolver))
            .collect();
        let prepared = Prepared {
            name: route.display_name().to_string(),
            route: route.clone(),
            targets,
        };
        (route, prepared)
    }))
}

fn target(backend: &Backend, domain: &ClusterDomain, resolver: &dyn Resolve) -> Target {
    let service = backend.service();
    Target {
        watch: resolver.watch(service),
        vhost: match backend.vhost_policy() {
            VhostPolicy::Preserve => None,
            VhostPolicy::Override(vhost) => Some(vhost.clone()),
            _ => Some(service.vhost(domain)),
        },
        protocol: backend.http_protocol(),
    }
}

impl Prepared {
    /// A backend by weight.
    pub(crate) fn pick(&self) -> Option<&Target> {
        match self.targets.as_slice() {
            [only] => Some(only),
            several => several.get(self.route.pick(fastrand::u64(..))?),
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceRef> {
        self.targets.iter().map(|target| target.watch.service())
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("name", &self.name)
            .field("services", &self.services().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
