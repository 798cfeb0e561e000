//! A mesh lab: an application pod with a sidecar, a node with pods, cluster DNS, kube-proxy.
//!
//! ```text
//!  application pod (the test's host)                        node
//!  ┌─────────────────────────────────────────────┐   ┌──────────────────────────────┐
//!  │ client ─> gateway ─> iptables ─> Envoy ─────┼───┼─> pods 10.244.1.0/24         │
//!  │                └───────── UDP to 10.96.0.10 ┼───┼─> kube-proxy ─> dnsmasq      │
//!  └─────────────────────────────────────────────┘   └──────────────────────────────┘
//! ```

mod config;
mod embedded;
mod failures;
mod load;
mod network;
mod pods;
mod service;
mod sidecar;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

pub(crate) use self::embedded::{Embedded, builder, cluster_dns, route};
pub(crate) use self::failures::Failures;
pub(crate) use self::load::{Call, Kind, Load, Outcome};
use self::pods::Pods;
pub(crate) use self::pods::SLOW;
pub(crate) use self::service::{Outbound, OutboundPolicy, PortKind, Service};
use self::sidecar::ControlPlane;
pub(crate) use self::sidecar::Sidecar;
use crate::lab::{Dnsmasq, Host, Lab, Nginx, Record, succeed, tool};

/// Cluster DNS as the gateway is told of it: a ClusterIP like any other.
pub(crate) const DNS: &str = "10.96.0.10:53";

/// Everything but the sidecar and the gateway, which tests start when they want them.
pub(crate) struct Mesh {
    services: Vec<Service>,
    control: ControlPlane,
    dns: Option<Dnsmasq>,
    pods: Pods,
    _nginx: Nginx,
    node: Host,
}

/// `web.default:80`, a port named `http`: two pods, nginx.
pub(crate) fn web() -> Service {
    Service::new("web", "default", 80, PortKind::Http)
        .cluster_ip([10, 96, 0, 7])
        .pods(8080, [[10, 244, 1, 7], [10, 244, 1, 8]])
}

/// `api.default:80`: the same port number as [`web`], so the same listener of the sidecar.
pub(crate) fn api() -> Service {
    Service::new("api", "default", 80, PortKind::Http)
        .cluster_ip([10, 96, 0, 8])
        .pods(9080, [[10, 244, 1, 20], [10, 244, 1, 21]])
}

/// `api.shop:80`: the same name in another namespace.
pub(crate) fn shop_api() -> Service {
    Service::new("api", "shop", 80, PortKind::Http)
        .cluster_ip([10, 96, 1, 8])
        .pods(9081, [[10, 244, 1, 22]])
}

/// `orders.shop:50051`, a port named `grpc`.
pub(crate) fn orders() -> Service {
    Service::new("orders", "shop", 50051, PortKind::Grpc)
        .cluster_ip([10, 96, 1, 9])
        .pods(9090, [[10, 244, 1, 30]])
}

/// `legacy.shop:8080`, a port without a name the mesh understands.
pub(crate) fn legacy() -> Service {
    Service::new("legacy", "shop", 8080, PortKind::Unnamed)
        .cluster_ip([10, 96, 1, 10])
        .pods(3000, [[10, 244, 1, 40]])
}

/// `vault.shop:80`, whose pods take mutual TLS only.
pub(crate) fn vault() -> Service {
    Service::new("vault", "shop", 80, PortKind::Http)
        .cluster_ip([10, 96, 1, 11])
        .pods(8443, [[10, 244, 1, 50]])
        .strict()
}

/// A service that is not there.
pub(crate) fn missing() -> Service {
    Service::new("missing", "shop", 80, PortKind::Http)
}

fn kube_dns() -> Service {
    Service::new("kube-dns", "kube-system", 53, PortKind::Tcp)
        .cluster_ip([10, 96, 0, 10])
        .pods(5353, [[10, 244, 0, 53]])
}

impl Mesh {
    /// A cluster with all services above.
    pub(crate) fn start(lab: &Lab, outbound: impl Into<Outbound>) -> Self {
        let services = vec![
            web(),
            api(),
            shop_api(),
            orders(),
            legacy(),
            vault(),
            kube_dns(),
        ];
        let node = network::connect(lab);
        for pod in services.iter().flat_map(|service| &service.pods) {
            network::add_pod(&node, *pod);
        }
        network::set_services(&node, &services);

        let certificates = make_certificates(lab);
        let mut control = ControlPlane::new(lab, outbound.into(), Some(certificates.clone()));
        control.set_services(&services);

        let mut servers = Vec::new();
        for service in &services {
            let name = service.full_name();
            let answer =
                format!("add_header x-origin {name} always; return 200 \"host: $http_host\\n\";");
            if service.strict {
                servers.extend(
                    service
                        .endpoints()
                        .map(|addr| (addr, strict_server(&certificates, &answer))),
                );
            } else if service.name == "web" {
                servers.extend(
                    service
                        .endpoints()
                        .map(|addr| (addr, format!("location / {{ {answer} }}"))),
                );
            }
        }
        let nginx = Nginx::start_on(lab, &node, &servers);
        let others = [api(), shop_api(), orders(), legacy()];
        let pods = Pods::start(&node, &others);

        let mut mesh = Self {
            services,
            control,
            dns: None,
            pods,
            _nginx: nginx,
            node,
        };
        mesh.start_dns(lab);
        mesh
    }

    pub(crate) fn start_sidecar(&self) -> Sidecar {
        Sidecar::start(&self.control)
    }

    /// Starts cluster DNS (again).
    pub(crate) fn start_dns(&mut self, lab: &Lab) {
        let addr: SocketAddr = kube_dns().endpoints().next().expect("a pod of DNS");
        self.dns = Some(Dnsmasq::start_on(
            lab,
            &self.node,
            addr,
            &records(&self.services),
        ));
    }

    /// Cluster DNS is gone: nothing answers.
    pub(crate) fn stop_dns(&mut self) {
        if let Some(dns) = self.dns.take() {
            dns.stop();
        }
    }

    /// Deletes a service and makes it anew, which is how a ClusterIP changes: DNS, kube-proxy and
    /// the mesh learn of the new one, and nothing serves the old one.
    pub(crate) fn recreate(&mut self, sidecar: &Sidecar, name: &str, cluster_ip: [u8; 4]) {
        for service in self
            .services
            .iter_mut()
            .filter(|service| service.full_name() == name)
        {
            service.cluster_ip = cluster_ip.into();
        }
        let version = self.control.set_services(&self.services);
        sidecar.wait_for_version(version);
        network::set_services(&self.node, &self.services);
        if let Some(dns) = &self.dns {
            dns.set(&records(&self.services));
        }
    }

    /// The queries that cluster DNS got since its last start.
    pub(crate) fn dns_queries(&self) -> Vec<String> {
        self.dns.as_ref().map(Dnsmasq::queries).unwrap_or_default()
    }

    pub(crate) fn pods(&self) -> &Pods {
        &self.pods
    }
}

fn records(services: &[Service]) -> Vec<Record> {
    let of = |service: &Service| Record::Address(service.fqdn(), service.cluster_ip.into());
    services.iter().map(of).collect()
}

/// nginx as the sidecar of a pod under STRICT: mutual TLS, and for plain text not even an answer.
fn strict_server(certificates: &std::path::Path, answer: &str) -> String {
    let certificates = certificates.display();
    format!(
        "ssl_certificate {certificates}/cert.pem; ssl_certificate_key {certificates}/key.pem;
         ssl_client_certificate {certificates}/cert.pem; ssl_verify_client on;
         error_page 497 = @plain_text; location @plain_text {{ return 444; }}
         location / {{ {answer} }}"
    )
}

/// One key pair that is its own authority, for both ends.
fn make_certificates(lab: &Lab) -> PathBuf {
    let dir = lab.path("certificates");
    std::fs::create_dir(&dir).expect("a directory");
    let mut openssl = Command::new(tool("openssl"));
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=mesh-lab"])
        .args([
            "-addext",
            "subjectAltName=URI:spiffe://cluster.local/ns/shop/sa/default",
        ])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"));
    succeed(&mut openssl);
    dir
}
