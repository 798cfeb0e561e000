//! From the command line to a gateway.

use std::num::NonZeroUsize;

use mesh_ingress::headers::{ForwardedPolicy, TrustedPeers};
use mesh_ingress::{AddressPolicy, ClusterDns, MeshIngress, Route};

use crate::args::Gateway;
use crate::{Failure, check};

/// The routes of the options and of the manifests.
pub(crate) fn routes(args: &Gateway) -> Result<Vec<Route>, Failure> {
    let protocol = args.upstream_protocol.into();
    let mut routes: Vec<Route> = args
        .route
        .iter()
        .map(|route| route.clone().protocol(protocol))
        .collect();
    for path in &args.ingress {
        let imported = check::read(path)?;
        for finding in &imported.findings {
            tracing::warn!("{}: {finding}", path.display());
        }
        routes.extend(imported.routes);
    }
    if routes.is_empty() {
        return Err("nothing to serve: give --route or --ingress".into());
    }
    Ok(routes)
}

/// Cluster DNS. Watches that begin inside a runtime are kept up by it.
pub(crate) fn cluster_dns(args: &Gateway) -> Result<ClusterDns, Failure> {
    let policy = args
        .upstream_cidr
        .iter()
        .fold(AddressPolicy::default(), |policy, cidr| policy.allow(*cidr));
    let builder = ClusterDns::builder()
        .domain(args.cluster_domain.clone())
        .address_policy(policy);
    let builder = args
        .dns
        .iter()
        .fold(builder, |builder, server| builder.nameserver(*server));
    Ok(builder.build()?)
}

/// The gateway, for so many workers; its clones share connections.
pub(crate) fn mesh(
    args: &Gateway,
    workers: NonZeroUsize,
    routes: &[Route],
    dns: &ClusterDns,
) -> Result<MeshIngress, Failure> {
    let forwarder = args.upstream.forwarder(args.mesh, workers)?;
    let trusted = TrustedPeers::new(args.trusted_proxy.iter().copied());
    let forwarded = ForwardedPolicy::builder().trusted(trusted).build()?;
    Ok(MeshIngress::builder()
        .routes(routes.iter().cloned())
        .domain(args.cluster_domain.clone())
        .resolver(dns.clone())
        .forwarder(forwarder)
        .forwarded(forwarded)
        .mesh(args.mesh.into())
        .require_mesh(args.require_mesh)
        // Nothing here is around the gateway that would read it.
        .verdict_extension(false)
        .expose_details(args.expose_details)
        .build()?)
}
