//! The Services of a mesh lab, as data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A Kubernetes Service with one port and its pods.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) cluster_ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) kind: PortKind,
    /// Never the service port, so that a gateway which dials pods misses the mesh's listeners.
    pub(crate) target_port: u16,
    pub(crate) pods: Vec<Ipv4Addr>,
    /// Whether its pods take mutual TLS only, as `PeerAuthentication` STRICT has it.
    pub(crate) strict: bool,
}

/// The protocol that Istio selects for a service port, by its name or `appProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    /// `http…`: one wildcard listener a port number, picked by `Host`.
    Http,
    /// `grpc…` or `http2…`: the same, with HTTP/2 to the pods.
    Grpc,
    /// No known prefix: a listener on the ClusterIP that takes any `Host`.
    Unnamed,
    /// `tcp…`: a listener on the ClusterIP that passes bytes.
    Tcp,
}

/// The mesh's policy for unknown destinations (`outboundTrafficPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OutboundPolicy {
    /// ALLOW_ANY: to where it wanted to go, through PassthroughCluster.
    #[default]
    AllowAny,
    /// REGISTRY_ONLY: nowhere, 502 for HTTP.
    RegistryOnly,
}

/// How the mesh treats what goes out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outbound {
    pub(crate) policy: OutboundPolicy,
    /// The response field in which the sidecar tells the cluster it used; see the documentation of
    /// `mesh_ingress_headers::verdict`.
    pub(crate) cluster_field: Option<&'static str>,
}

impl From<OutboundPolicy> for Outbound {
    fn from(policy: OutboundPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }
}

impl Service {
    pub(crate) fn new(
        name: &'static str,
        namespace: &'static str,
        port: u16,
        kind: PortKind,
    ) -> Self {
        Self {
            name,
            namespace,
            cluster_ip: Ipv4Addr::UNSPECIFIED,
            port,
            kind,
            target_port: 0,
            pods: Vec::new(),
            strict: false,
        }
    }

    pub(crate) fn cluster_ip(mut self, address: [u8; 4]) -> Self {
        self.cluster_ip = address.into();
        self
    }

    pub(crate) fn pods<const N: usize>(
        mut self,
        target_port: u16,
        addresses: [[u8; 4]; N],
    ) -> Self {
        self.target_port = target_port;
        self.pods = addresses.map(Ipv4Addr::from).to_vec();
        self
    }

    pub(crate) fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// `web.default`
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// `web.default.svc.cluster.local`
    pub(crate) fn fqdn(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.namespace)
    }

    /// `web.default:80`, as routes name it.
    pub(crate) fn reference(&self) -> String {
        format!("{}.{}:{}", self.name, self.namespace, self.port)
    }

    /// Where the mesh expects it to be reached.
    pub(crate) fn vip(&self) -> SocketAddr {
        (self.cluster_ip, self.port).into()
    }

    /// Where its pods listen.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.pods
            .iter()
            .map(|pod| (IpAddr::from(*pod), self.target_port).into())
    }

    /// Istio's name of its cluster.
    pub(crate) fn cluster(&self) -> String {
        format!("outbound|{}||{}", self.port, self.fqdn())
    }
}
