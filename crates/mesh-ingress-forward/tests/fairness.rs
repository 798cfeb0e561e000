//! One client is served by all pods of a Service.
//!
//! A ClusterIP is no proxy: the rules of kube-proxy choose a pod for the first packet of a
//! connection, and all later packets follow it. They balance *connections*, not requests. A gateway
//! that keeps a connection for as long as it works sends everything to one pod: that is overloaded,
//! and pods added under load stay idle. Hence
//! [`max_lifetime`](mesh_ingress_forward::ForwarderBuilder::max_lifetime), which makes kube-proxy
//! choose again from time to time, is on by default.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_ingress_core::Protocol;
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::Origin;
use support::{get, read, send, to};
use tokio::time::Instant;

/// The pause between two requests of a steady client.
const PACE: Duration = Duration::from_millis(10);

struct Service {
    addr: SocketAddr,
    _pods: Vec<Origin>,
}

/// Three pods behind one address that gives each connection to the next pod, as IPVS does.
async fn service() -> Service {
    let mut pods = Vec::new();
    for name in ["a", "b", "c"] {
        let pod = Origin::builder().name(name).record_requests(false).start();
        pods.push(pod.await.unwrap());
    }
    let addr = support::balance(pods.iter().map(Origin::addr).collect()).await;
    Service { addr, _pods: pods }
}

/// Requests by the pod that served them.
#[derive(Debug, Default)]
struct Shares(BTreeMap<String, u32>);

impl Shares {
    /// Whether each of three pods has served its share, give or take a fifth.
    fn are_even(&self) -> bool {
        let even = f64::from(self.0.values().sum::<u32>()) / 3.0;
        self.0.len() == 3
            && self
                .0
                .values()
                .all(|&had| (f64::from(had) - even).abs() <= even / 5.0)
    }
}

/// One request after another for `time`, or until `enough`.
async fn ask(
    forwarder: &Forwarder,
    service: &Service,
    protocol: Protocol,
    time: Duration,
    enough: impl Fn(&Shares) -> bool,
) -> Shares {
    let mut shares = Shares::default();
    let mut pace = tokio::time::interval(PACE);
    let begun = Instant::now();
    while begun.elapsed() < time && !enough(&shares) {
        pace.tick().await;
        let reply = send(forwarder, to(service.addr, protocol, get(service.addr))).await;
        let pod = reply.as_ref().unwrap().headers()["x-origin"].clone();
        read(reply).await;
        *shares
            .0
            .entry(pod.to_str().unwrap().to_owned())
            .or_default() += 1;
    }
    shares
}

fn ageing(lifetime: impl Into<Option<Duration>>) -> Forwarder {
    Forwarder::builder().max_lifetime(lifetime).build()
}

#[tokio::test(start_paused = true)]
async fn connections_with_a_lifetime_reach_all_pods() {
    support::fine_clock();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let service = service().await;
        let forwarder = ageing(Duration::from_secs(1));
        let five = Duration::from_secs(5);
        let shares = ask(&forwarder, &service, protocol, five, Shares::are_even).await;
        assert!(shares.are_even(), "within 5 s, {protocol:?}: {shares:?}");
        // The distribution stays even.
        let long = Duration::from_secs(30);
        let shares = ask(&forwarder, &service, protocol, long, |_| false).await;
        assert!(shares.are_even(), "over 30 s, {protocol:?}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_lifetime_reach_one_pod() {
    support::fine_clock();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let service = service().await;
        let long = Duration::from_secs(30);
        let shares = ask(&ageing(None), &service, protocol, long, |_| false).await;
        assert_eq!(shares.0.len(), 1, "{protocol:?}: {shares:?}");
        assert!(shares.0["a"] > 2000, "{protocol:?}: {shares:?}");
    }
}
