//! The roads of a mesh lab: an application pod and a node, joined by a virtual cable.
//!
//! The application pod is the test's own host: gateway, clients and sidecar are in it, and its TCP
//! connections out are captured as Istio's init container does it. The node has the addresses of
//! all other pods, and its kube-proxy (destination NAT) serves the ClusterIPs, which are no
//! host's address. A request that leaves the mesh is therefore served all the same, and nothing tells.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use super::config::OUTBOUND_PORT;
use super::service::{PortKind, Service};
use crate::lab::{Host, Lab, succeed, tool};

/// The sidecar's user, whose connections are not captured.
pub(crate) const SIDECAR_USER: &str = "1337";

const APP: &str = "10.244.0.2";
const NODE: &str = "10.244.0.1";

/// kube-proxy's chain on the node.
const SERVICES: &str = "KUBE-SERVICES";

/// Joins the test's host with a new node and captures.
pub(crate) fn connect(lab: &Lab) -> Host {
    let node = lab.another_host("node");
    let app = lab.host();
    app.ip(&[
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "name",
        "veth0",
        "netns",
        node.name(),
    ]);
    app.ip(&["addr", "add", &format!("{APP}/32"), "dev", "eth0"]);
    app.ip(&["link", "set", "eth0", "up"]);
    app.ip(&["route", "add", NODE, "dev", "eth0"]);
    app.ip(&["route", "add", "default", "via", NODE]);
    node.ip(&["addr", "add", &format!("{NODE}/32"), "dev", "veth0"]);
    node.ip(&["link", "set", "veth0", "up"]);
    node.ip(&["route", "add", APP, "dev", "veth0"]);
    // A ClusterIP that kube-proxy does not know ends here and is refused.
    node.ip(&["route", "add", "local", "10.96.0.0/16", "dev", "lo"]);
    nat(node.command("iptables"), &["-N", SERVICES]);
    nat(
        node.command("iptables"),
        &["-A", "PREROUTING", "-j", SERVICES],
    );
    capture();
    node
}

/// Gives the node the address of a pod.
pub(crate) fn add_pod(node: &Host, address: Ipv4Addr) {
    node.ip(&["addr", "replace", &format!("{address}/32"), "dev", "lo"]);
}

/// Has the node's kube-proxy serve these, and no other, ClusterIPs. As kube-proxy, it picks a pod
/// for each connection.
pub(crate) fn set_services(node: &Host, services: &[Service]) {
    nat(node.command("iptables"), &["-F", SERVICES]);
    for service in services {
        for protocol in ["tcp", "udp"] {
            if protocol == "udp" && service.kind != PortKind::Tcp {
                continue;
            }
            let endpoints: Vec<SocketAddr> = service.endpoints().collect();
            for (index, endpoint) in endpoints.iter().enumerate() {
                let vip = service.cluster_ip.to_string();
                let port = service.port.to_string();
                let every = (endpoints.len() - index).to_string();
                let target = endpoint.to_string();
                nat(
                    node.command("iptables"),
                    &[
                        &["-A", SERVICES, "-p", protocol, "-d", &vip, "--dport", &port][..],
                        &[
                            "-m",
                            "statistic",
                            "--mode",
                            "nth",
                            "--every",
                            &every,
                            "--packet",
                            "0",
                        ],
                        &["-j", "DNAT", "--to-destination", &target],
                    ]
                    .concat(),
                );
            }
        }
    }
}

/// Captures outbound TCP as Istio's init container does (`tools/istio-iptables`): all connections go
/// to the sidecar, except its own and those on the loopback.
fn capture() {
    let iptables = || Command::new(tool("iptables"));
    nat(iptables(), &["-N", "ISTIO_OUTPUT"]);
    nat(
        iptables(),
        &["-A", "OUTPUT", "-p", "tcp", "-j", "ISTIO_OUTPUT"],
    );
    let own = ["-m", "owner", "--uid-owner", SIDECAR_USER, "-j", "RETURN"];
    nat(iptables(), &[&["-A", "ISTIO_OUTPUT"][..], &own].concat());
    nat(
        iptables(),
        &["-A", "ISTIO_OUTPUT", "-d", "127.0.0.0/8", "-j", "RETURN"],
    );
    let port = OUTBOUND_PORT.to_string();
    let redirect = [
        "-A",
        "ISTIO_OUTPUT",
        "-p",
        "tcp",
        "-j",
        "REDIRECT",
        "--to-ports",
        &port,
    ];
    nat(iptables(), &redirect);
}

fn nat(mut iptables: Command, args: &[&str]) {
    succeed(iptables.args(["-w", "10", "-t", "nat"]).args(args));
}
