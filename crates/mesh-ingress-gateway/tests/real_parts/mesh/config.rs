//! Envoy's configuration of an Istio sidecar's outbound side, as istiod generates it
//! (`pilot/pkg/networking/core`: `listener.go`, `listener_builder.go`, `httproute.go`,
//! `cluster_builder.go`): what picks the destination, without telemetry.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::service::{Outbound, OutboundPolicy, PortKind, Service};

pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";

/// Where iptables sends captured connections.
pub(crate) const OUTBOUND_PORT: u16 = 15001;
/// `GET /healthz/ready`
pub(crate) const READY_PORT: u16 = 15021;
pub(crate) const ADMIN: &str = "127.0.0.1:15000";

/// Envoy's bootstrap: where to find the rest, and which files change while it runs.
pub(crate) fn bootstrap(listeners: &Path, clusters: &Path) -> Value {
    let (admin, port) = ADMIN.split_once(':').expect("an address");
    let port: u16 = port.parse().expect("a port");
    json!({
        "node": { "id": "sidecar", "cluster": "mesh-lab" },
        "admin": { "address": socket(admin, port) },
        "dynamic_resources": {
            "lds_config": from_file(listeners),
            "cds_config": from_file(clusters),
        },
    })
}

fn from_file(path: &Path) -> Value {
    json!({ "path_config_source": { "path": path }, "resource_api_version": "V3" })
}

/// All listeners, as a discovery response.
pub(crate) fn listeners(version: u32, services: &[Service], outbound: &Outbound) -> Value {
    let mut listeners = vec![virtual_outbound(outbound.policy), readiness()];
    // One listener for all http services of a port number: the address is ignored.
    let mut by_port: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
    for service in services {
        match service.kind {
            PortKind::Http | PortKind::Grpc => {
                by_port.entry(service.port).or_default().push(service);
            }
            PortKind::Unnamed => {
                let vip = service.cluster_ip.to_string();
                let virtual_host = virtual_host(&service.fqdn(), &["*".to_owned()], service);
                let filters = http(&vip, service.port, &[virtual_host], outbound);
                listeners.push(unbound(&vip, service.port, &filters));
            }
            PortKind::Tcp => {
                let vip = service.cluster_ip.to_string();
                listeners.push(unbound(&vip, service.port, &tcp(&service.cluster())));
            }
        }
    }
    for (port, services) in by_port {
        let mut hosts: Vec<_> = services
            .iter()
            .map(|service| {
                virtual_host(
                    &format!("{}:{port}", service.fqdn()),
                    &domains(service),
                    service,
                )
            })
            .collect();
        hosts.push(catch_all(outbound.policy));
        listeners.push(unbound(
            "0.0.0.0",
            port,
            &http("0.0.0.0", port, &hosts, outbound),
        ));
    }
    let listener = "type.googleapis.com/envoy.config.listener.v3.Listener";
    discovery(version, listener, listeners)
}

/// All clusters, as a discovery response.
pub(crate) fn clusters(version: u32, services: &[Service], certificates: Option<&Path>) -> Value {
    let mut clusters = vec![
        json!({
            "name": PASSTHROUGH,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "10s",
            "typed_extension_protocol_options": protocol_options("use_downstream_protocol_config"),
        }),
        json!({ "name": BLACK_HOLE, "type": "STATIC", "connect_timeout": "10s" }),
    ];
    clusters.extend(services.iter().map(|service| {
        let endpoints: Vec<_> = service
            .endpoints()
            .map(|address| socket(&address.ip().to_string(), address.port()))
            .map(|address| json!({ "endpoint": { "address": address } }))
            .collect();
        let mut cluster = json!({
            "name": service.cluster(),
            "type": "STATIC",
            "connect_timeout": "10s",
            "load_assignment": {
                "cluster_name": service.cluster(),
                "endpoints": [{ "lb_endpoints": endpoints }],
            },
        });
        let protocol = match service.kind {
            PortKind::Grpc => Some("explicit_http_config"),
            PortKind::Unnamed => Some("use_downstream_protocol_config"),
            PortKind::Http | PortKind::Tcp => None,
        };
        if let Some(protocol) = protocol {
            cluster["typed_extension_protocol_options"] = protocol_options(protocol);
        }
        if service.strict {
            let certificates = certificates.expect("certificates for a strict service");
            cluster["transport_socket"] = mutual_tls(certificates);
        }
        cluster
    }));
    discovery(
        version,
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        clusters,
    )
}

fn discovery(version: u32, resource_type: &str, mut resources: Vec<Value>) -> Value {
    for resource in &mut resources {
        resource["@type"] = resource_type.into();
    }
    json!({ "version_info": version.to_string(), "resources": resources })
}

/// The domains Istio lists for a Service seen from another namespace
/// (`httproute.go`, `generateVirtualHostDomains`).
fn domains(service: &Service) -> Vec<String> {
    let short = format!("{}.{}", service.name, service.namespace);
    let fqdn = service.fqdn();
    vec![
        fqdn.clone(),
        format!("{fqdn}."),
        short.clone(),
        format!("{short}.svc"),
        service.cluster_ip.to_string(),
    ]
}

/// A virtual host with Istio's default route: no time-out, two retries.
fn virtual_host(name: &str, domains: &[String], service: &Service) -> Value {
    json!({
        "name": name,
        "domains": domains,
        "include_request_attempt_count": true,
        "routes": [{
            "name": "default",
            "match": { "prefix": "/" },
            "route": {
                "cluster": service.cluster(),
                "timeout": "0s",
                "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                    "num_retries": 2,
                    "host_selection_retry_max_attempts": 5,
                },
            },
        }],
    })
}

/// Where requests go whose `Host` no virtual host lists.
fn catch_all(policy: OutboundPolicy) -> Value {
    match policy {
        OutboundPolicy::AllowAny => json!({
            "name": "allow_any",
            "domains": ["*"],
            "include_request_attempt_count": true,
            "routes": [{
                "name": "allow_any",
                "match": { "prefix": "/" },
                "route": { "cluster": PASSTHROUGH, "timeout": "0s" },
            }],
        }),
        OutboundPolicy::RegistryOnly => json!({
            "name": "block_all",
            "domains": ["*"],
            "include_request_attempt_count": true,
            "routes": [{
                "name": "block_all",
                "match": { "prefix": "/" },
                "direct_response": { "status": 502 },
            }],
        }),
    }
}

/// The listener that takes every captured connection and hands it to the one that is named for its
/// original destination, or keeps it.
fn virtual_outbound(policy: OutboundPolicy) -> Value {
    let rest = match policy {
        OutboundPolicy::AllowAny => PASSTHROUGH,
        OutboundPolicy::RegistryOnly => BLACK_HOLE,
    };
    json!({
        "name": "virtualOutbound",
        "address": socket("0.0.0.0", OUTBOUND_PORT),
        "use_original_dst": true,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [
            {
                // A connection to this port itself would loop.
                "name": "virtualOutbound-blackhole",
                "filter_chain_match": { "destination_port": OUTBOUND_PORT },
                "filters": tcp(BLACK_HOLE),
            },
            { "name": "virtualOutbound-catchall-tcp", "filters": tcp(rest) },
        ],
    })
}

/// A listener that only the one above hands connections to.
fn unbound(address: &str, port: u16, filters: &Value) -> Value {
    json!({
        "name": format!("{address}_{port}"),
        "address": socket(address, port),
        "bind_to_port": false,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{ "filters": filters }],
    })
}

fn http(address: &str, port: u16, virtual_hosts: &[Value], outbound: &Outbound) -> Value {
    let any_host = address != "0.0.0.0";
    let marks = match outbound.cluster_field {
        Some(field) => json!([{
            "header": { "key": field, "value": "%UPSTREAM_CLUSTER_RAW%" },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }]),
        None => json!([]),
    };
    json!([{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": format!("outbound_{address}_{port}"),
            "codec_type": "AUTO",
            "use_remote_address": false,
            "normalize_path": true,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "access_log": access_log(),
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                },
            }],
            "route_config": {
                "name": port.to_string(),
                "validate_clusters": false,
                "response_headers_to_add": marks,
                "ignore_port_in_host_matching": !any_host,
                "max_direct_response_body_size_bytes": 1_048_576,
                "virtual_hosts": virtual_hosts,
            },
        },
    }])
}

/// One line a request to standard output, see [`Request`](super::Request).
fn access_log() -> Value {
    json!([{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": { "text_format_source": { "inline_string":
                "request|%START_TIME(%s%3f)%|%DOWNSTREAM_LOCAL_ADDRESS%|%REQ(:AUTHORITY)%|%UPSTREAM_CLUSTER_RAW%|%RESPONSE_CODE%|\n"
            } },
        },
    }])
}

fn tcp(cluster: &str) -> Value {
    json!([{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    }])
}

/// `GET /healthz/ready` is 200 as soon as the listeners are there.
fn readiness() -> Value {
    json!({
        "name": "readiness",
        "address": socket("0.0.0.0", READY_PORT),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "agent",
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
                "route_config": { "virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "path": "/healthz/ready" },
                        "direct_response": { "status": 200 },
                    }],
                }] },
            },
        }] }],
    })
}

fn protocol_options(which: &str) -> Value {
    let options = match which {
        "explicit_http_config" => json!({ "http2_protocol_options": {} }),
        _ => json!({ "http_protocol_options": {}, "http2_protocol_options": {} }),
    };
    json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            which: options,
        },
    })
}

/// The transport socket towards a pod that takes mutual TLS only.
fn mutual_tls(certificates: &Path) -> Value {
    let file = |name: &str| json!({ "filename": certificates.join(name) });
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [{
                    "certificate_chain": file("cert.pem"),
                    "private_key": file("key.pem"),
                }],
                "validation_context": { "trusted_ca": file("cert.pem") },
            },
        },
    })
}

fn socket(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}
