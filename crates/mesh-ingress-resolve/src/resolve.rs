//! The trait between resolvers and the layers that need addresses.

use std::fmt;
use std::sync::Arc;

use mesh_ingress_core::ServiceRef;

use crate::Watch;

/// Resolves services to addresses: [`ClusterDns`], or a resolver of your
/// own (an EndpointSlice watcher, a control plane, a table in a test).
///
/// `watch` is called once a target, when routes are built, never once a request. It neither blocks
/// nor fails: a target that cannot be resolved says so when its [`Watch`] is asked.
///
/// ```
/// use mesh_ingress_core::{ServiceRef, Upstream};
/// use mesh_ingress_resolve::{Resolve, Watch};
///
/// /// Every service behind one load balancer.
/// #[derive(Debug)]
/// struct OneAddress(Upstream);
///
/// impl Resolve for OneAddress {
///     fn watch(&self, service: &ServiceRef) -> Watch {
///         Watch::fixed(service.clone(), self.0.clone())
///     }
/// }
/// ```
#[cfg_attr(feature = "hickory", doc = "\n[`ClusterDns`]: crate::ClusterDns")]
#[cfg_attr(
    not(feature = "hickory"),
    doc = "\n[`ClusterDns`]: https://docs.rs/mesh-ingress-resolve"
)]
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// The address of a service, now and as it changes.
    fn watch(&self, service: &ServiceRef) -> Watch;
}

impl<R: Resolve + ?Sized> Resolve for Arc<R> {
    fn watch(&self, service: &ServiceRef) -> Watch {
        (**self).watch(service)
    }
}
