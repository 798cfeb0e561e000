//! Mistakes in a backend that only show inside a mesh.

use mesh_ingress_core::{Protocol, ServicePort, ServiceRef, VhostPolicy};
use mesh_ingress_route::Backend;

use crate::finding::ObjectFindings;
use crate::settings::field;

/// Checks a backend of an Ingress.
pub(crate) fn backend(backend: &Backend, report: &mut ObjectFindings<'_>) {
    vhost(backend.service(), backend.get_vhost(), report);
    port(backend.service(), backend.get_protocol(), report);
}

/// A sidecar picks the destination by `Host` where the Service's port is named `http*` or `grpc*`,
/// and ignores the dialled address.
fn vhost(service: &ServiceRef, policy: &VhostPolicy, report: &mut ObjectFindings<'_>) {
    let field = field("upstream-vhost");
    let (name, namespace) = (service.name(), service.namespace());
    match policy {
        VhostPolicy::Override(vhost) => {
            let host = vhost.authority().host();
            let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            let labels: Vec<_> = host.split('.').collect();
            match *labels {
                [one, two, "svc", ..] if (one, two) == (name, namespace) => {}
                [one, two] if (one, two) == (name, namespace) => {}
                [one] if one == name => report.warning(
                    &field,
                    format!(
                        "the short name {host:?} is understood from namespace {namespace} only, \
                         say {name}.{namespace}.svc and the cluster's domain"
                    ),
                ),
                [one, two, "svc", ..] => report.warning(
                    &field,
                    format!(
                        "it does not name the backend {service}: a sidecar routes by Host, so traffic \
                         will go to {one}.{two}, not to {name}.{namespace}"
                    ),
                ),
                _ => report.warning(
                    &field,
                    format!(
                        "{host:?} does not name the backend {service}: unless the mesh knows \
                         that host, a sidecar lets the traffic leave the mesh"
                    ),
                ),
            }
        }
        VhostPolicy::Preserve => report.warning(
            &field,
            format!(
                "{service} gets the client's Host: where its port is named http* or grpc*, a sidecar \
                 that does not know that host lets the traffic leave the mesh"
            ),
        ),
        _ => {}
    }
}

/// Istio reads the protocol of a port from its name, up to the first `-`.
fn port(service: &ServiceRef, protocol: Protocol, report: &mut ObjectFindings<'_>) {
    let field = "backend.service.port";
    match service.port() {
        ServicePort::Name(port) => {
            let prefix = port.split('-').next().unwrap_or_default();
            match (prefix, protocol) {
                ("http" | "http2", _) => {}
                ("grpc", Protocol::Http2) => {}
                ("grpc", _) => report.warning(
                    field,
                    format!(
                        "port {port:?} of {service} is named for gRPC and spoken to in HTTP/1.1, \
                         set backend-protocol: GRPC"
                    ),
                ),
                ("https" | "tls" | "tcp" | "udp" | "mongo" | "redis" | "mysql", _) => report.warning(
                    field,
                    format!(
                        "port {port:?} of {service} is named for another protocol than HTTP: a mesh \
                         sees bytes instead of requests"
                    ),
                ),
                _ => report.info(
                    field,
                    format!(
                        "port {port:?} of {service} says nothing about its protocol: unless the Service \
                         sets appProtocol, a mesh guesses"
                    ),
                ),
            }
        }
        ServicePort::Number(number) if number.get() == 443 => report.info(
            field,
            format!("port 443 of {service} is spoken to in cleartext"),
        ),
        _ => {}
    }
}
