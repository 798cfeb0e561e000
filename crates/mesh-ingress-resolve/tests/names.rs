//! The queries on the wire, and the use of their answers.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::net::Ipv4Addr;

use mesh_ingress_core::ErrorKind;
use mesh_ingress_resolve::{
    AddressPolicy, Balance, ClusterDns, ExternalNames, Headless, IpFamilies,
};
use mesh_ingress_testkit::DnsServer;
use support::{
    IP, IP2, IP6, TempDir, WEB, addr, addrs, asking, error, queries, report, server, watch,
};

fn pairs(name: &str, types: &[&str]) -> Vec<(String, String)> {
    types
        .iter()
        .map(|record_type| (name.to_owned(), (*record_type).to_owned()))
        .collect()
}

#[tokio::test]
async fn one_absolute_name_despite_ndots_and_search_list() {
    let server = server().await;
    let dir = TempDir::new();
    let path = dir.file("resolv.conf");
    let text = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local example.com\n\
         nameserver [{}]:{}\noptions ndots:5 attempts:3 timeout:1\n",
        server.addr().ip(),
        server.addr().port()
    );
    std::fs::write(&path, text).unwrap();
    let dns = ClusterDns::builder().resolv_conf(&path).build().unwrap();
    let upstream = watch(&dns, "web.default:80").ready().await.unwrap();
    assert_eq!(upstream.addr(), addr("10.96.0.7:80"));
    assert_eq!(queries(&server), pairs(WEB, &["A", "AAAA"]));
    // Nor are other names tried when there is no such name.
    server.clear_queries();
    error(&watch(&dns, "gone.default:80")).await;
    let gone = "gone.default.svc.cluster.local.";
    assert_eq!(queries(&server), pairs(gone, &["A", "AAAA"]));
}

#[tokio::test]
async fn only_configured_families_are_queried() {
    let server = server().await;
    server.set_aaaa(WEB, [IP6]);
    let v4_only = AddressPolicy::default().only(["10.0.0.0/8".parse().unwrap()]);
    let v6_only = AddressPolicy::default().only(["fd00::/8".parse().unwrap()]);
    let (v4, v6) = ("10.96.0.7:80", "[fd00::7]:80");
    let of = |families| asking(&server).ip_families(families);
    for (builder, types, addresses) in [
        (of(IpFamilies::V4), &["A"][..], &[v4][..]),
        (of(IpFamilies::V6), &["AAAA"], &[v6]),
        (of(IpFamilies::Both), &["A", "AAAA"], &[v6, v4]),
        (of(IpFamilies::Both).address_policy(v4_only), &["A"], &[v4]),
        (
            of(IpFamilies::Both).address_policy(v6_only),
            &["AAAA"],
            &[v6],
        ),
    ] {
        let dns = builder.build().unwrap();
        let upstream = watch(&dns, "web.default:80").ready().await.unwrap();
        assert_eq!(upstream.addresses(), addrs(addresses));
        assert_eq!(queries(&server), pairs(WEB, types));
        server.clear_queries();
    }
}

#[tokio::test]
async fn a_cluster_of_either_family_works_without_settings() {
    let server = DnsServer::start().await.unwrap();
    server.set_a("four.default.svc.cluster.local", [IP]);
    server.set_aaaa("six.default.svc.cluster.local", [IP6]);
    let dns = asking(&server).build().unwrap();
    for (service, address) in [
        ("four.default:80", "10.96.0.7:80"),
        ("six.default:80", "[fd00::7]:80"),
    ] {
        let upstream = watch(&dns, service).ready().await.unwrap();
        assert_eq!(upstream.addresses(), addrs(&[address]));
    }
}

#[tokio::test]
async fn special_names_are_asked_like_any_other() {
    // RFC 6761 names, which resolver libraries answer by themselves.
    let server = DnsServer::start().await.unwrap();
    for domain in ["localhost", "invalid", "test", "onion"] {
        let service = "localhost.x:80".parse().unwrap();
        let domain = domain.parse().unwrap();
        server.add_service(&service, &domain, IP.into());
        let dns = asking(&server).domain(domain).build().unwrap();
        let upstream = dns.watch(&service).ready().await.unwrap();
        assert_eq!(upstream.addr(), addr("10.96.0.7:80"));
    }
    assert_eq!(server.queries().len(), 8);
}

#[tokio::test]
async fn a_named_port_is_one_question_if_the_answer_brings_the_address() {
    let server = server().await;
    let srv = format!("_http._tcp.{WEB}");
    server.set_srv(&srv, 8080, WEB);
    let dns = asking(&server).build().unwrap();
    let upstream = watch(&dns, "web.default:http").ready().await.unwrap();
    assert_eq!(upstream.addresses(), addrs(&["10.96.0.7:8080"]));
    assert_eq!(queries(&server), pairs(&srv, &["SRV"]));
}

#[tokio::test]
async fn a_named_port_asks_for_the_address_if_need_be() {
    let server = server().await;
    let srv = format!("_http._tcp.{WEB}");
    server.set_srv(&srv, 8080, WEB);
    server.set_srv_additionals(false);
    let dns = asking(&server).build().unwrap();
    let upstream = watch(&dns, "web.default:http").ready().await.unwrap();
    assert_eq!(upstream.addresses(), addrs(&["10.96.0.7:8080"]));
    let mut expected = pairs(&srv, &["SRV"]);
    expected.extend(pairs(WEB, &["A", "AAAA"]));
    assert_eq!(queries(&server), expected);
}

#[tokio::test]
async fn unknown_named_port_fails() {
    let server = server().await;
    let dns = asking(&server).build().unwrap();
    let error = error(&watch(&dns, "web.default:grpc")).await;
    assert_eq!(error.kind(), ErrorKind::DnsError);
    let report = report(&error);
    assert!(report.contains("_grpc._tcp.web.default"), "{report}");
    assert!(report.contains("a TCP port of that name"), "{report}");
}

#[tokio::test]
async fn an_external_name_is_refused() {
    let server = DnsServer::start().await.unwrap();
    server.set_cname(WEB, "evil.test");
    server.set_a("evil.test", [Ipv4Addr::new(203, 0, 113, 1)]);
    let dns = asking(&server).build().unwrap();
    let error = error(&watch(&dns, "web.default:80")).await;
    assert_eq!(error.kind(), ErrorKind::DnsError);
    let report = report(&error);
    assert!(report.contains("an alias of evil.test."), "{report}");
    assert!(report.contains("ExternalName"), "{report}");
    // The alias was not looked up.
    assert_eq!(queries(&server), pairs(WEB, &["A", "AAAA"]));
}

#[tokio::test]
async fn an_external_name_is_followed_where_allowed() {
    let server = DnsServer::start().await.unwrap();
    server.set_cname(WEB, "db.example.com");
    server.set_a("db.example.com", [Ipv4Addr::new(203, 0, 113, 1)]);
    server.set_cname("evil.default.svc.cluster.local", "db.example.com.evil.test");
    let follow = ExternalNames::follow(["example.com"]);
    let dns = asking(&server)
        .ip_families(IpFamilies::V4)
        .external_names(follow)
        .build()
        .unwrap();
    let upstream = watch(&dns, "web.default:80").ready().await.unwrap();
    assert_eq!(upstream.addr(), addr("203.0.113.1:80"));
    error(&watch(&dns, "evil.default:80")).await;
    // The address policy holds there, too.
    server.set_a("db.example.com", [Ipv4Addr::new(169, 254, 169, 254)]);
    let dns = asking(&server)
        .external_names(ExternalNames::follow(["example.com."]))
        .build()
        .unwrap();
    let error = error(&watch(&dns, "web.default:80")).await;
    assert_eq!(error.kind(), ErrorKind::DestinationIpProhibited);
}

#[tokio::test]
async fn a_headless_service_is_refused() {
    let server = server().await;
    server.set_a(WEB, [IP, IP2, Ipv4Addr::new(10, 96, 0, 9)]);
    let dns = asking(&server).build().unwrap();
    let error = error(&watch(&dns, "web.default:80")).await;
    assert_eq!(error.kind(), ErrorKind::DnsError);
    let report = report(&error);
    assert!(report.contains("the addresses of 3 pods"), "{report}");
}

#[tokio::test]
async fn a_headless_service_is_spread_over_if_wanted() {
    let server = server().await;
    let pods: Vec<_> = (1..=40).map(|pod| Ipv4Addr::new(10, 0, 0, pod)).collect();
    server.set_a(WEB, pods.clone());
    for balance in [Balance::RoundRobin, Balance::LeastOutstanding] {
        let dns = asking(&server)
            .headless(Headless::Spread(balance))
            .build()
            .unwrap();
        let watch = watch(&dns, "web.default:80");
        watch.ready().await.unwrap();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let upstream = watch.get().unwrap().unwrap();
            assert_eq!(upstream.addresses().len(), 1);
            seen.insert(upstream.addr());
        }
        assert_eq!(seen.len(), pods.len());
    }
}

#[tokio::test]
async fn a_prohibited_address_is_not_given_out() {
    let server = DnsServer::start().await.unwrap();
    let dns = asking(&server).build().unwrap();
    for (index, address) in [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "100.100.100.200",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("s{index}.default.svc.cluster.local");
        server.set_a(&name, [address.parse().unwrap()]);
        let error = error(&watch(&dns, &format!("s{index}.default:80"))).await;
        assert_eq!(error.kind(), ErrorKind::DestinationIpProhibited);
        assert!(report(&error).contains(address));
    }
    for (index, address) in [
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("v{index}.default.svc.cluster.local");
        server.set_aaaa(&name, [address.parse().unwrap()]);
        let error = error(&watch(&dns, &format!("v{index}.default:80"))).await;
        assert_eq!(error.kind(), ErrorKind::DestinationIpProhibited);
    }
    assert_eq!(dns.counters().prohibited, 10);
    // The range that Istio allocates from is accepted.
    server.set_a(WEB, [Ipv4Addr::new(240, 240, 0, 1)]);
    watch(&dns, "web.default:80").ready().await.unwrap();
}

#[tokio::test]
async fn of_a_mixed_answer_the_good_addresses_are_used() {
    let server = DnsServer::start().await.unwrap();
    server.set_a(WEB, [Ipv4Addr::new(169, 254, 169, 254), IP]);
    let dns = asking(&server).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    watch.ready().await.unwrap();
    for _ in 0..100 {
        let upstream = watch.get().unwrap().unwrap();
        assert_eq!(upstream.addresses(), addrs(&["10.96.0.7:80"]));
    }
    assert_eq!(dns.counters().prohibited, 1);
}
