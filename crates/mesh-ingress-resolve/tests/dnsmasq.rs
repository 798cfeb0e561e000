//! The main behaviours against a name server that is not ours: `cargo test -- --ignored`, where
//! dnsmasq is installed.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use mesh_ingress_core::ErrorKind;
use mesh_ingress_resolve::{
    Balance, Changes, ClusterDns, ClusterDnsBuilder, ExternalNames, Headless,
};
use support::{WEB, addr, addrs, closed_port, error, failures, report, secs, warp, watch};

/// Runs until dropped.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(at: SocketAddr, records: &[&str]) -> Self {
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
            ])
            .args(["--no-hosts", "--bind-interfaces", "--local=/cluster.local/"])
            .args(["--local-ttl=5", "--log-facility=/dev/null", "--pid-file="])
            .arg(format!("--listen-address={}", at.ip()))
            .arg(format!("--port={}", at.port()))
            .args(records)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn asking(at: SocketAddr) -> ClusterDnsBuilder {
    ClusterDns::builder().nameserver(at)
}

/// The first good answer: the server takes a moment to start.
async fn answer(changes: &mut Changes) -> Vec<SocketAddr> {
    loop {
        if let Ok(addresses) = changes.next().await {
            return addresses;
        }
    }
}

#[tokio::test]
#[ignore = "needs dnsmasq"]
async fn services_resolve_through_dnsmasq() {
    let at = closed_port();
    let _server = Dnsmasq::start(
        at,
        &[
            "--host-record=web.default.svc.cluster.local,10.96.0.7,fd00::7",
            "--srv-host=_http._tcp.web.default.svc.cluster.local,web.default.svc.cluster.local,8080",
            "--address=/pods.default.svc.cluster.local/10.0.0.1",
            "--address=/pods.default.svc.cluster.local/10.0.0.2",
            "--host-record=db.example.com,203.0.113.1",
            "--cname=ext.default.svc.cluster.local,db.example.com",
        ],
    );
    let dns = asking(at).build().unwrap();
    let both = addrs(&["[fd00::7]:80", "10.96.0.7:80"]);
    assert_eq!(
        answer(&mut watch(&dns, "web.default:80").changes()).await,
        both
    );
    let by_name = watch(&dns, "web.default:http").ready().await.unwrap();
    let both = addrs(&["[fd00::7]:8080", "10.96.0.7:8080"]);
    assert_eq!(by_name.addresses(), both);

    let gone = error(&watch(&dns, "gone.default:80")).await;
    assert_eq!(gone.kind(), ErrorKind::DnsError);
    assert!(report(&gone).contains("NXDOMAIN"));
    let pods = error(&watch(&dns, "pods.default:80")).await;
    assert!(report(&pods).contains("headless"));
    let external = error(&watch(&dns, "ext.default:80")).await;
    assert!(report(&external).contains("an alias of db.example.com."));

    let dns = asking(at)
        .headless(Headless::Spread(Balance::RoundRobin))
        .external_names(ExternalNames::follow(["example.com"]))
        .build()
        .unwrap();
    let pods = watch(&dns, "pods.default:80").changes().next().await;
    assert_eq!(pods.unwrap(), addrs(&["10.0.0.1:80", "10.0.0.2:80"]));
    let external = watch(&dns, "ext.default:80").ready().await.unwrap();
    assert_eq!(external.addr(), addr("203.0.113.1:80"));
}

#[tokio::test]
#[ignore = "needs dnsmasq"]
async fn an_outage_and_a_changed_address_of_dnsmasq() {
    let at = closed_port();
    let record = |ip: &str| format!("--host-record={},{ip}", WEB.trim_end_matches('.'));
    let server = Dnsmasq::start(at, &[&record("10.96.0.7")]);
    let dns = asking(at).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    assert_eq!(answer(&mut changes).await, addrs(&["10.96.0.7:80"]));
    drop(server);
    let before = dns.counters().failures;
    for count in 1..=6 {
        warp(secs(5)).await;
        failures(&dns, before + count).await;
        assert_eq!(watch.get().unwrap().unwrap().addr(), addr("10.96.0.7:80"));
    }
    let _server = Dnsmasq::start(at, &[&record("10.96.0.8")]);
    assert_eq!(answer(&mut changes).await, addrs(&["10.96.0.8:80"]));
}
