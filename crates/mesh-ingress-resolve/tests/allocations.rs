//! Asking a watch for its address must not touch the heap.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use allocation_counter::measure;
use mesh_ingress_core::Upstream;
use mesh_ingress_resolve::{Balance, Watch};

/// How many allocations a thousand calls make, once each thread has what it keeps.
fn allocations(watch: &Watch) -> u64 {
    watch.get().unwrap().unwrap();
    let info = measure(|| {
        for _ in 0..1000 {
            std::hint::black_box(watch.get()).unwrap().unwrap();
        }
    });
    info.count_total
}

fn pods() -> Vec<SocketAddr> {
    (0..100)
        .map(|pod| SocketAddr::from(([10, 0, 0, pod], 80)))
        .collect()
}

#[test]
fn a_fixed_address_costs_no_allocation() {
    let upstream = Upstream::new("10.96.0.7:80".parse().unwrap());
    let watch = Watch::fixed("web.default:80".parse().unwrap(), upstream);
    assert_eq!(allocations(&watch), 0);
}

#[test]
fn one_of_many_costs_no_allocation() {
    for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
        let (sender, watch) = Watch::channel("web.default:80".parse().unwrap());
        sender.send_spread(&pods(), balance);
        assert_eq!(allocations(&watch), 0);
        // With some of them down.
        for pod in pods().into_iter().step_by(2) {
            watch.report_failure(pod);
        }
        assert_eq!(allocations(&watch), 0);
    }
}

#[cfg(feature = "hickory")]
mod with_dns {
    use std::net::Ipv4Addr;

    use mesh_ingress_resolve::ClusterDns;
    use mesh_ingress_testkit::{DnsServer, Fault};

    use super::*;

    #[tokio::test]
    async fn an_address_from_cluster_dns_costs_no_allocation() {
        let server = DnsServer::start().await.unwrap();
        let ip = Ipv4Addr::new(10, 96, 0, 7);
        server.set_a("web.default.svc.cluster.local", [ip]);
        let dns = ClusterDns::builder()
            .nameserver(server.addr())
            .build()
            .unwrap();
        let watch = dns.watch(&"web.default:80".parse().unwrap());
        watch.ready().await.unwrap();
        assert_eq!(allocations(&watch), 0);
        // Nor in an outage.
        server.set_fault(Some(Fault::ServFail));
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        tokio::time::resume();
        while dns.counters().failures == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(allocations(&watch), 0);
        assert!(dns.counters().stale_served >= 1000);
    }
}
