//! The observable state of the resolver.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use mesh_ingress_resolve::{IpFamilies, TargetState};
use mesh_ingress_testkit::Fault;
use support::{WEB, addrs, asking, failures, secs, server, warp, watch};

#[tokio::test]
async fn a_snapshot_tells_the_state_of_every_target() {
    let server = server().await;
    let dns = asking(&server).ip_families(IpFamilies::V4).build().unwrap();
    assert!(dns.snapshot().is_empty());
    let well = watch(&dns, "web.default:80");
    let ill = watch(&dns, "gone.default:http");
    well.ready().await.unwrap();
    ill.ready().await.unwrap_err();
    let [gone, web] = &dns.snapshot()[..] else {
        panic!("two targets, sorted by name")
    };
    assert_eq!(web.service, *well.service());
    assert_eq!(web.name, WEB);
    assert_eq!(web.addresses, addrs(&["10.96.0.7:80"]));
    assert!(web.age.unwrap() < secs(60));
    assert!(web.next_refresh.unwrap() < secs(5));
    assert!(!web.stale);
    assert!(web.last_error.is_none());

    assert_eq!(gone.name, "_http._tcp.gone.default.svc.cluster.local.");
    assert!(gone.addresses.is_empty());
    assert!(gone.age.is_none());
    let error = gone.last_error.as_ref().unwrap();
    assert!(error.to_string().contains("has no SRV record"), "{error}");
    assert!(gone.next_refresh.is_some());
}

#[tokio::test]
async fn staleness_shows_and_ends() {
    let server = server().await;
    let dns = asking(&server).ip_families(IpFamilies::V4).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let state = || -> TargetState { dns.snapshot().remove(0) };
    watch.ready().await.unwrap();
    server.set_fault(Some(Fault::ServFail));
    warp(secs(10)).await;
    failures(&dns, 1).await;
    assert!(state().stale);
    assert!(state().last_error.is_some());
    assert_eq!(state().addresses, addrs(&["10.96.0.7:80"]));
    assert_eq!(dns.counters().stale_served, 0);
    for _ in 0..3 {
        watch.get().unwrap().unwrap();
    }
    assert_eq!(dns.counters().stale_served, 3);
    server.set_fault(None);
    let refreshes = dns.counters().refreshes;
    warp(secs(5)).await;
    support::refreshes(&dns, refreshes + 1).await;
    assert!(state().last_error.is_none());
    assert!(!state().stale);
    watch.get().unwrap().unwrap();
    let counters = dns.counters();
    assert_eq!(counters.stale_served, 3);
    assert_eq!(counters.queries as usize, server.queries().len());
    assert_eq!(counters.refreshes, counters.queries, "one family");
}
