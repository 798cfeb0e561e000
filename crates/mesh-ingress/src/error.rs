//! Why a gateway could not be built.

use mesh_ingress_core::{BoxError, ServiceRef};
use mesh_ingress_route::RouteError;

/// Why a [`MeshIngress`](crate::MeshIngress) could not be built, or its routes not be replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A route is wrong, or two of them contradict each other.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The resolver cannot be set up.
    #[error("cannot set up cluster DNS")]
    Resolver(#[source] BoxError),
    /// No resolver was given, and the feature `hickory` is off.
    #[error(
        "no resolver: pass one to MeshIngressBuilder::resolver, or enable the feature \"hickory\""
    )]
    NoResolver,
    /// A backend wants a TLS profile that the forwarder does not have.
    #[error(
        "{service} wants the TLS profile {profile:?}, which the forwarder does not have: add it with ForwarderBuilder::tls_profile (feature \"tls\")"
    )]
    TlsProfile {
        /// The Service.
        service: ServiceRef,
        /// The profile that its [`Tls`](mesh_ingress_core::Tls) names.
        profile: String,
    },
    /// The name for `Proxy-Status` and `Via` is no token.
    #[error("{0:?} is no name for Proxy-Status: expected a token such as mesh-ingress")]
    Name(String),
}
