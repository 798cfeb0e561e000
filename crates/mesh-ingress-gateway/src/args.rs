//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use mesh_ingress::{ClusterDomain, Mesh, Protocol, Route};

use crate::duration;
use crate::upstream_args::UpstreamArgs;

/// A gateway at the edge of a service mesh: it reaches each Kubernetes Service as the mesh expects,
/// at its ClusterIP and under its own name.
#[derive(Debug, Parser)]
#[command(name = "mesh-ingress", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve HTTP/1.1 and h2c, until SIGTERM or SIGINT.
    Serve(Box<Serve>),
    /// Read Ingress manifests and say what would become of them.
    Check(Check),
    /// Say what would become of a request; nothing is sent but questions to DNS.
    Explain(Box<Explain>),
    /// Look for what keeps requests out of the mesh: asks the sidecar and DNS, sends a HEAD / to
    /// each service.
    Doctor(Box<Doctor>),
}

/// What to serve, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Address and port to listen on. May be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<SocketAddr>,

    #[command(flatten)]
    pub(crate) gateway: Gateway,

    /// Threads that serve [default: one a core].
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,

    /// How long a client of HTTP/1 may take for the head of a request, and between requests; 0 is
    /// for ever. One of HTTP/2 is asked now and then whether it is there.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub(crate) request_header_timeout: Duration,

    /// How long a client of HTTP/2 may stay without a request under way, or up to 40 s longer; 0 is
    /// for ever.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    pub(crate) http2_idle_timeout: Duration,

    /// How long requests and WebSockets under way may take after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub(crate) shutdown_timeout: Duration,

    /// What to log: error, warn, info, debug, trace, or a filter such as
    /// 'info,mesh_ingress_resolve=debug'.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// Which request to explain.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) gateway: Gateway,

    /// Method of the request.
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    pub(crate) method: http::Method,

    /// Header field of the request, as in 'x-canary: always'. May be given several times.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,

    /// URL of the request, as a client has it.
    #[arg(value_name = "URL")]
    pub(crate) url: http::Uri,
}

/// Which gateway to examine.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) gateway: Gateway,
}

/// Routes, names and connections: what all commands that build a gateway take.
#[derive(Debug, clap::Args)]
pub(crate) struct Gateway {
    /// Name server of the cluster, instead of those in /etc/resolv.conf. May be given several times.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) dns: Vec<SocketAddr>,

    /// Route such as 'shop.example.com/=web.default:80': host and path prefix, service and port.
    /// The host may be '*' or '*.example.com'. May be given several times.
    #[arg(long, value_name = "HOST/PATH=NAME.NAMESPACE:PORT")]
    pub(crate) route: Vec<Route>,

    /// File with Ingress manifests to take routes from. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) ingress: Vec<PathBuf>,

    /// DNS zone of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: ClusterDomain,

    /// Address range a service may resolve to although it is refused by default (loopback,
    /// link-local, unspecified, multicast). May be given several times.
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pub(crate) upstream_cidr: Vec<IpNet>,

    /// Load balancer or proxy in front whose X-Forwarded-* fields are believed. May be given
    /// several times.
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    pub(crate) trusted_proxy: Vec<IpNet>,

    /// Protocol towards the services given by --route.
    #[arg(long, value_name = "PROTOCOL", default_value = "http1")]
    pub(crate) upstream_protocol: UpstreamProtocol,

    /// Data plane this gateway stands in: which marks tell that a response came through the mesh, and what
    /// 'doctor' asks.
    #[arg(long, value_name = "MESH", default_value = "none")]
    pub(crate) mesh: DataPlane,

    /// Refuse responses (502) that came past the mesh.
    #[arg(long)]
    pub(crate) require_mesh: bool,

    /// Put the whole text of errors into the Proxy-Status field. It names services and addresses.
    #[arg(long)]
    pub(crate) expose_details: bool,

    #[command(flatten)]
    pub(crate) upstream: UpstreamArgs,
}

/// Which manifests to look at.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Files with Ingress manifests, YAML or JSON.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge: gRPC.
    H2c,
    /// What the client speaks: HTTP/2 for requests that came over it and for gRPC, else HTTP/1.1.
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DataPlane {
    /// None, or not known which.
    None,
    /// An Istio sidecar beside this process.
    IstioSidecar,
    /// Istio's ambient mode.
    IstioAmbient,
    /// A Linkerd proxy beside this process, in ingress mode.
    Linkerd,
}

impl From<DataPlane> for Mesh {
    fn from(mesh: DataPlane) -> Self {
        match mesh {
            DataPlane::None => Self::None,
            DataPlane::IstioSidecar => Self::IstioSidecar,
            DataPlane::IstioAmbient => Self::IstioAmbient,
            DataPlane::Linkerd => Self::Linkerd,
        }
    }
}

impl From<UpstreamProtocol> for Protocol {
    fn from(protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http1 => Self::Http1,
            UpstreamProtocol::H2c => Self::Http2,
            UpstreamProtocol::Auto => Self::SameAsClient,
        }
    }
}

/// Parses an address range; a single address is one, too.
fn cidr(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| single()).map_err(|_| {
        format!("expected an address range such as 10.96.0.0/16 or fd00::/108, got {text:?}")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
