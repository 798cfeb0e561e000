//! Answers that change.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use mesh_ingress_core::ErrorKind;
use mesh_ingress_resolve::IpFamilies;
use mesh_ingress_testkit::Fault;
use support::{IP, IP2, IP6, WEB, addrs, asking, queries, refreshes, secs, server, warp, watch};

#[tokio::test]
async fn a_changed_cluster_ip_is_used_within_its_ttl() {
    let server = server().await;
    server.set_ttl(1);
    let dns = asking(&server).min_ttl(secs(1)).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
    server.set_a(WEB, [IP2]);
    // In real time: the refresh is due before the second is over.
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.8:80"]));
    let upstream = watch.get().unwrap().unwrap();
    assert_eq!(upstream.addresses(), addrs(&["10.96.0.8:80"]));
}

#[tokio::test]
async fn a_service_that_becomes_dual_stack_gets_its_second_address() {
    let server = server().await;
    let dns = asking(&server).build().unwrap();
    let mut changes = watch(&dns, "web.default:80").changes();
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
    server.set_aaaa(WEB, [IP6]);
    warp(secs(5)).await;
    let both = addrs(&["[fd00::7]:80", "10.96.0.7:80"]);
    assert_eq!(changes.next().await.unwrap(), both);
}

#[tokio::test]
async fn a_changed_port_number_is_found_like_a_changed_address() {
    let server = server().await;
    let srv = format!("_http._tcp.{WEB}");
    server.set_srv(&srv, 80, WEB);
    let dns = asking(&server).build().unwrap();
    let mut changes = watch(&dns, "web.default:http").changes();
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
    server.set_srv(&srv, 8080, WEB);
    warp(secs(5)).await;
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:8080"]));
}

#[tokio::test]
async fn deleted_service_fails_after_a_second_lookup() {
    let server = server().await;
    let dns = asking(&server).ip_families(IpFamilies::V4).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    server.remove(WEB);
    server.clear_queries();
    warp(secs(5)).await;
    refreshes(&dns, 2).await;
    warp(secs(1)).await;
    let error = changes.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DnsError);
    assert!(error.report().to_string().contains("NXDOMAIN"));
    assert_eq!(queries(&server).len(), 2);
    // It comes back under another address.
    server.set_a(WEB, [IP2]);
    warp(secs(5)).await;
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.8:80"]));
}

#[tokio::test]
async fn a_name_server_that_denies_all_for_a_moment_takes_nothing_away() {
    let server = server().await;
    let dns = asking(&server).ip_families(IpFamilies::V4).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    server.set_fault(Some(Fault::NxDomain));
    warp(secs(5)).await;
    refreshes(&dns, 2).await;
    assert_eq!(dns.counters().failures, 1);
    assert!(watch.get().unwrap().is_ok());
    server.set_fault(None);
    warp(secs(1)).await;
    refreshes(&dns, 3).await;
    server.set_a(WEB, [IP2]);
    warp(secs(5)).await;
    // Nothing in between was news.
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.8:80"]));
}

#[tokio::test]
async fn a_service_that_comes_late_is_found_within_five_seconds() {
    let server = server().await;
    server.set_negative_ttl(3600);
    let dns = asking(&server).build().unwrap();
    let watch = watch(&dns, "late.default:80");
    let mut changes = watch.changes();
    changes.next().await.unwrap_err();
    server.set_a("late.default.svc.cluster.local", [IP]);
    warp(secs(5)).await;
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
}
