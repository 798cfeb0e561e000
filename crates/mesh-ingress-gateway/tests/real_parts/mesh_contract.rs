//! The contract with the mesh: every request lands in the cluster of its own service. Both halves
//! are needed for that: the Service's own name, and its ClusterIP and port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use mesh_ingress::resolve::{Resolve, Watch};
use mesh_ingress::{MeshIngress, ServiceRef, Upstream, VhostPolicy};

use crate::lab::{Gateway, Lab, tool};
use crate::mesh::{
    Call, DNS, Embedded, Failures, Kind, Load, Mesh, OutboundPolicy, Outcome, Service, Sidecar,
    api, builder, cluster_dns, legacy, orders, route, shop_api, web,
};

/// Services with their public host and the name they answer with.
type Target = (fn() -> Service, &'static str, &'static [&'static str]);

pub(crate) const WEB: Target = (web, "shop.example.com", &["web.default"]);
pub(crate) const API: Target = (api, "api.example.com", &["api.default"]);
pub(crate) const SHOP_API: Target = (shop_api, "api.shop.example.com", &["api.shop"]);
pub(crate) const ORDERS: Target = (orders, "orders.example.com", &["orders.shop"]);
pub(crate) const LEGACY: Target = (legacy, "legacy.example.com", &["legacy.shop"]);

/// How many of each kind for each service in the mixed load: 11 000.
const MIX: &[(usize, Kind, Target)] = &[
    (1500, Kind::Get, WEB),
    (1000, Kind::H2Get, WEB),
    (1000, Kind::Get, API),
    (1000, Kind::H2Get, API),
    (1000, Kind::Post, API),
    (1000, Kind::Chunked, API),
    (500, Kind::WebSocket, API),
    (1000, Kind::Get, SHOP_API),
    (500, Kind::Chunked, SHOP_API),
    (1500, Kind::Grpc, ORDERS),
    (500, Kind::Get, LEGACY),
    (500, Kind::Post, LEGACY),
];

#[test]
fn every_request_of_a_mixed_load_lands_in_its_own_cluster() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().build().unwrap());
        all_in_their_own_clusters(&sidecar, MIX);
    });
}

/// The same through the binary: routes of its command line, and of an Ingress manifest for what
/// speaks another protocol.
#[test]
fn every_request_through_the_binary_lands_in_its_own_cluster() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let manifest = lab.write("ingress.yaml", ORDERS_MANIFEST);
        let mut args = vec!["--dns", DNS, "--ingress", manifest.to_str().unwrap()];
        let routes = [WEB, API, SHOP_API, LEGACY]
            .map(|(service, host, _)| format!("{host}/={}", service().reference()));
        for route in &routes {
            args.extend(["--route", route]);
        }
        let gateway = Gateway::serve(&args);
        all_in_their_own_clusters(&sidecar, MIX);
        assert!(gateway.stop().success());
    });
}

/// As people have it from ingress-nginx.
const ORDERS_MANIFEST: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: orders
  namespace: shop
  annotations:
    nginx.ingress.kubernetes.io/service-upstream: "true"
    nginx.ingress.kubernetes.io/upstream-vhost: orders.shop.svc.cluster.local
    nginx.ingress.kubernetes.io/backend-protocol: GRPC
spec:
  ingressClassName: nginx
  rules:
    - host: orders.example.com
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: orders
                port:
                  number: 50051
"#;

/// A client not of our making: h2load, over h2c and over HTTP/1.1.
#[test]
fn every_request_of_h2load_lands_in_its_own_cluster() {
    const EACH: usize = 4000;
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let route = |(service, host, _): Target| format!("{host}/={}", service().reference());
        let (web_route, api_route) = (route(WEB), route(API));
        let gateway = Gateway::serve(&["--dns", DNS, "--route", &web_route, "--route", &api_route]);

        for (options, (_, host, _)) in [(&["-m", "20"][..], API), (&["--h1"], WEB)] {
            let mut h2load = Command::new(tool("h2load"));
            let requests = EACH.to_string();
            h2load
                .args(["-n", &requests, "-c", "10", "--connect-to", Gateway::ADDR])
                .args(options);
            let output = h2load.arg(format!("http://{host}/")).output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            let line = told.lines().find(|line| line.starts_with("status codes: "));
            println!("h2load {options:?}: {}", line.unwrap_or(&told));
            assert!(
                line.is_some_and(|line| line.contains(&format!(" {EACH} 2xx"))),
                "{told}"
            );
        }
        let stats = Sidecar::stats();
        assert_eq!(
            [web(), api()].map(|service| stats.meshed(&service)),
            [EACH as u64; 2]
        );
        assert_eq!(stats.passthrough_connections(), 0);
        assert_eq!(sidecar.wait_for_requests(2 * EACH).len(), 2 * EACH);
        assert!(gateway.stop().success());
    });
}

/// Without the Service's name in `Host`, requests to a named port leave the mesh
/// unnoticed: they are served all the same.
#[test]
fn with_the_public_host_requests_to_a_named_port_leave_the_mesh_unnoticed() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| preserving().build().unwrap());

        let outcomes = Load::run(
            calls(&[
                (300, Kind::Get, WEB),
                (300, Kind::Post, API),
                (300, Kind::Get, LEGACY),
            ]),
            8,
        );
        let stats = Sidecar::stats();
        println!(
            "public Host: web meshed {}, api meshed {}, legacy (unnamed port) meshed {}, passthrough {}",
            stats.meshed(&web()),
            stats.meshed(&api()),
            stats.meshed(&legacy()),
            stats.passthrough_requests()
        );
        assert_all_served(&outcomes);
        assert_eq!((stats.meshed(&web()), stats.meshed(&api())), (0, 0));
        assert_eq!(stats.passthrough_requests(), 600);
        // A port without a name is picked by ClusterIP: there the public host is safe.
        assert_eq!(stats.meshed(&legacy()), 300);
        for request in sidecar.wait_for_requests(900) {
            assert!(request.authority.ends_with(".example.com"), "{request:?}");
        }
    });
}

/// With a pod's address instead of the ClusterIP, no listener of the mesh is met, whatever the
/// `Host`: they are named for service ports.
#[test]
fn with_pod_addresses_requests_leave_the_mesh_unnoticed() {
    Lab::run(|lab| {
        let mesh = Mesh::start(lab, OutboundPolicy::AllowAny);
        let sidecar = mesh.start_sidecar();
        let _gateway = Embedded::start(|| builder().resolver(PodAddresses).build().unwrap());

        let mix = [
            (200, Kind::Get, WEB),
            (200, Kind::H2Get, API),
            (200, Kind::Grpc, ORDERS),
            (200, Kind::Get, LEGACY),
        ];
        let outcomes = Load::run(calls(&mix), 8);
        let stats = Sidecar::stats();
        println!(
            "pod addresses: {} requests over {} connections past the mesh",
            outcomes.len(),
            stats.passthrough_connections()
        );
        assert_all_served(&outcomes);
        for (service, ..) in [WEB, API, ORDERS, LEGACY] {
            assert_eq!(stats.meshed(&service()), 0, "{}", service().cluster());
        }
        assert!(stats.passthrough_connections() >= 4);
        // Just bytes to the sidecar: it did not even see that they are requests.
        assert_eq!(sidecar.requests(), []);
    });
}

/// A gateway as [`builder`] makes it that leaves `Host` as the client wrote it.
pub(crate) fn preserving() -> mesh_ingress::MeshIngressBuilder {
    let routes = [WEB, API, SHOP_API, ORDERS, LEGACY];
    let routes =
        routes.map(|(service, host, _)| route(host, &service()).vhost(VhostPolicy::Preserve));
    MeshIngress::builder()
        .resolver(cluster_dns())
        .routes(routes)
}

/// Sends straight to a pod, as an ingress that watches endpoints does.
#[derive(Debug)]
pub(crate) struct PodAddresses;

impl Resolve for PodAddresses {
    fn watch(&self, service: &ServiceRef) -> Watch {
        let known = [web(), api(), shop_api(), orders(), legacy()];
        let found = known
            .iter()
            .find(|known| known.reference() == service.to_string());
        let pod: SocketAddr = found.and_then(|found| found.endpoints().next()).unwrap();
        Watch::fixed(service.clone(), Upstream::new(pod))
    }
}

fn all_in_their_own_clusters(sidecar: &Sidecar, mix: &[(usize, Kind, Target)]) {
    let outcomes = Load::run(calls(mix), 16);
    let stats = Sidecar::stats();
    assert_all_served(&outcomes);

    let mut sent: BTreeMap<String, (Service, usize)> = BTreeMap::new();
    for (count, _, (service, ..)) in mix {
        let service = service();
        sent.entry(service.cluster()).or_insert((service, 0)).1 += count;
    }
    let requests = sidecar.wait_for_requests(outcomes.len());
    for (cluster, (service, sent)) in sent {
        let (meshed, retried) = (stats.meshed(&service), stats.retried(&service));
        println!("{cluster}: sent {sent}, meshed {meshed}, retried by the mesh {retried}");
        assert_eq!((meshed, retried), (sent as u64, 0), "{cluster}");
        // Both halves, in every single one.
        let of_it: Vec<_> = requests
            .iter()
            .filter(|request| request.cluster == cluster)
            .collect();
        assert_eq!(of_it.len(), sent, "{cluster}");
        for request in of_it {
            assert_eq!(request.authority, service.fqdn());
            assert_eq!(request.destination, service.vip().to_string());
        }
    }
    let passthrough = stats.passthrough_connections();
    println!(
        "PassthroughCluster: {passthrough} connections, of {} requests",
        outcomes.len()
    );
    assert_eq!((passthrough, stats.passthrough_requests()), (0, 0));
}

/// The calls of a mix, the kinds in turn.
pub(crate) fn calls(mix: &[(usize, Kind, Target)]) -> Vec<Call> {
    let mut calls: Vec<(f64, Call)> = Vec::new();
    for &(count, kind, (_, host, origins)) in mix {
        let call = Call {
            kind,
            host,
            origins,
        };
        calls.extend((0..count).map(|index| (index as f64 / count as f64, call)));
    }
    calls.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    calls.into_iter().map(|(_, call)| call).collect()
}

pub(crate) fn assert_all_served(outcomes: &[Outcome]) {
    let failures = Failures::of(outcomes);
    assert!(failures.count() == 0, "{failures}");
}
