//! What a data plane wants, as defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh_ingress_headers::verdict::VerdictRules;

/// The data plane this gateway stands in. It sets defaults only: both halves of the contract, the
/// ClusterIP and the service's own name, are kept whatever is chosen, because they do harm nowhere.
///
/// ```
/// use mesh_ingress::{Mesh, MeshIngress};
///
/// let builder = MeshIngress::builder().mesh(Mesh::IstioSidecar);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mesh {
    /// No mesh, or not known which: responses are judged by the marks that any mesh may leave.
    #[default]
    None,
    /// An Istio sidecar captures what this process sends.
    ///
    /// It picks the destination by `Host` on ports named `http…` or `grpc…`, and leaves
    /// `server: envoy` on every response (istio `pilot/pkg/networking/util/proxy_headers.go`): one
    /// without has passed it by. Connections are refused only while it (re)starts: the default
    /// forwarder tries again for two seconds. It is ready when `127.0.0.1:15021/healthz/ready` says so (istio
    /// `pkg/config/constants`, `StatusPort`).
    IstioSidecar,
    /// Istio's ambient mode: ztunnel, and waypoints where Services have them.
    ///
    /// The destination is picked by ClusterIP and port (istio `architecture/ambient/ztunnel.md`);
    /// `server: istio-envoy` is the mark of a waypoint. ztunnel belongs to the node: there is no
    /// readiness of its own to ask for here.
    IstioAmbient,
    /// A Linkerd proxy captures what this process sends.
    ///
    /// In ingress mode it picks the destination by `l5d-dst-override`, which clients must not
    /// choose: it is removed from what they send and set to the service and its port
    /// (linkerd.io, "Handling ingress traffic"). Ready when `127.0.0.1:4191/ready` says so.
    Linkerd,
}

impl Mesh {
    /// Where the proxy beside us says that it is ready.
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

    /// For how long a refused connection is tried again: a sidecar that refuses is starting.
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
