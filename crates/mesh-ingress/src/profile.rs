//! The defaults for each data plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_ingress_headers::verdict::VerdictRules;

/// The data plane this gateway runs in. It sets defaults only: with each of them requests go to the
/// ClusterIP with the service's own name in `Host`, because both do no harm in any mesh.
///
/// ```
/// use mesh_ingress::{Mesh, MeshIngress};
///
/// let builder = MeshIngress::builder().mesh(Mesh::IstioSidecar);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mesh {
    /// No mesh, or an unknown one: responses are judged by the marks of all meshes.
    #[default]
    None,
    /// An Istio sidecar captures this process's connections.
    ///
    /// It picks the destination by `Host` on ports named `http…` or `grpc…`, and leaves `server: envoy`
    /// on every response (istio `pilot/pkg/networking/util/proxy_headers.go`): a response without it
    /// bypassed the sidecar. Connections are refused only while the sidecar (re)starts, so the default
    /// forwarder retries them for two seconds. `127.0.0.1:15021/healthz/ready` tells whether it is
    /// ready (istio `pkg/config/constants`, `StatusPort`).
    IstioSidecar,
    /// Istio's ambient mode: ztunnel, and waypoints where Services have them.
    ///
    /// The destination is picked by ClusterIP and port (istio `architecture/ambient/ztunnel.md`);
    /// `server: istio-envoy` is the mark of a waypoint. ztunnel runs once per node, so the gateway has
    /// no proxy of its own to ask for readiness.
    IstioAmbient,
    /// A Linkerd proxy captures this process's connections.
    ///
    /// In ingress mode it picks the destination by `l5d-dst-override`. Clients must not choose it: it
    /// is removed from their requests and set to the service and its port (linkerd.io, "Handling
    /// ingress traffic"). `127.0.0.1:4191/ready` tells whether the proxy is ready.
    Linkerd,
}

impl Mesh {
    /// The readiness endpoint of the proxy beside the gateway.
    pub(crate) fn ready_probe(self) -> Option<(SocketAddr, &'static str)> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match self {
            Self::IstioSidecar => Some((local(15021), "/healthz/ready")),
            Self::Linkerd => Some((local(4191), "/ready")),
            Self::None | Self::IstioAmbient => None,
        }
    }

    pub(crate) fn verdict_rules(self) -> VerdictRules {
        match self {
            Self::None => VerdictRules::default(),
            Self::IstioSidecar => VerdictRules::istio_sidecar(),
            Self::IstioAmbient => VerdictRules::istio_ambient(),
            Self::Linkerd => VerdictRules::linkerd(),
        }
    }

    /// For how long a refused connection is retried: a sidecar that refuses is starting.
    pub(crate) fn connect_retry(self) -> Option<Duration> {
        match self {
            Self::IstioSidecar | Self::Linkerd => Some(Duration::from_secs(2)),
            Self::None | Self::IstioAmbient => None,
        }
    }

    pub(crate) fn sets_dst_override(self) -> bool {
        self == Self::Linkerd
    }
}
