//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use mesh_ingress::{ClusterDomain, Protocol, Route};

use crate::duration;

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
}

/// What to serve, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Address and port to listen on. May be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<SocketAddr>,

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
    #[arg(long, value_name = "CIDR")]
    pub(crate) upstream_cidr: Vec<IpNet>,

    /// Load balancer or proxy in front whose X-Forwarded-* fields are believed. May be given
    /// several times.
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Vec<IpNet>,

    /// Protocol towards the services given by --route.
    #[arg(long, value_name = "PROTOCOL", default_value = "http1")]
    pub(crate) upstream_protocol: UpstreamProtocol,

    /// Threads that serve, each with connections of its own [default: one a core].
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,

    /// How long connecting to a service may take; 0 is for ever.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub(crate) connect_timeout: Duration,

    /// How long a service may take to begin its response; 0 is for ever.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    pub(crate) response_header_timeout: Duration,

    /// How long an unused connection to a service is kept; 0 is until the service closes it.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration::parse)]
    pub(crate) idle_timeout: Duration,

    /// Age at which a connection to a service is replaced, so that kube-proxy chooses a pod anew;
    /// 0 is never.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    pub(crate) max_lifetime: Duration,

    /// How long requests and WebSockets under way may take after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub(crate) shutdown_timeout: Duration,

    /// Put the whole text of errors into the Proxy-Status field. It names services and addresses.
    #[arg(long)]
    pub(crate) expose_details: bool,

    /// What to log: error, warn, info, debug, trace, or a filter such as
    /// 'info,mesh_ingress_resolve=debug'.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
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
}

impl From<UpstreamProtocol> for Protocol {
    fn from(protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http1 => Self::Http1,
            UpstreamProtocol::H2c => Self::H2c,
        }
    }
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
