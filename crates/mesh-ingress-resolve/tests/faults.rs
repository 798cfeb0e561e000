//! Name servers that fail, and what requests see of it.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_ingress_core::ErrorKind;
use mesh_ingress_resolve::{Balance, ClusterDns, Headless, IpFamilies};
use mesh_ingress_testkit::{DnsServer, Fault, Transport};
use support::{
    IP, IP2, Silent, WEB, addr, addrs, asking, closed_port, error, failures, report, secs, server,
    transports, warp, watch,
};

#[tokio::test]
async fn every_fault_has_its_kind_and_its_cause_and_an_end() {
    for (fault, kind, cause) in [
        (Fault::ServFail, ErrorKind::DnsError, "answered SERVFAIL"),
        (Fault::Refused, ErrorKind::DnsError, "answered REFUSED"),
        (
            Fault::NxDomain,
            ErrorKind::DnsError,
            "does not exist (NXDOMAIN)",
        ),
        (
            Fault::Drop,
            ErrorKind::DnsTimeout,
            "did not answer within 50ms",
        ),
    ] {
        let server = server().await;
        server.set_fault(Some(fault));
        server.set_negative_ttl(1);
        let dns = asking(&server)
            .query_timeout(Duration::from_millis(50))
            .build()
            .unwrap();
        let watch = watch(&dns, "web.default:80");
        let error = error(&watch).await;
        assert_eq!(error.kind(), kind, "{fault:?}");
        assert!(error.may_retry(), "{fault:?}");
        let report = report(&error);
        assert!(report.contains(cause), "{report}");
        assert!(report.contains(WEB), "{report}");
        // Once known it is told at once.
        assert_eq!(watch.get().unwrap().unwrap_err().kind(), kind);
        // And it ends without a restart.
        server.set_fault(None);
        let mut changes = watch.changes();
        while changes.next().await.is_err() {}
        assert_eq!(watch.get().unwrap().unwrap().addr(), addr("10.96.0.7:80"));
    }
}

#[tokio::test]
async fn a_name_without_addresses() {
    let server = DnsServer::start().await.unwrap();
    server.set_a(WEB, []);
    let dns = asking(&server).build().unwrap();
    let error = error(&watch(&dns, "web.default:80")).await;
    assert_eq!(error.kind(), ErrorKind::DnsError);
    assert!(report(&error).contains("(NODATA)"));
}

#[tokio::test]
async fn closed_port_fails_at_once_not_as_a_timeout() {
    let port = closed_port();
    let dns = ClusterDns::builder()
        .nameserver(port)
        .query_timeout(secs(60))
        .resolve_timeout(secs(60))
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    // The test's own patience: without ICMP being heard this would take the whole minute.
    let error = tokio::time::timeout(secs(30), error(&watch)).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::DnsError);
    let report = report(&error);
    assert!(
        report.contains(&format!("nothing listens at {port} (connection refused)")),
        "{report}"
    );
    // A name server that comes later is found.
    let server = DnsServer::start_on(port).await.unwrap();
    server.set_a(WEB, [IP]);
    let mut changes = watch.changes();
    while changes.next().await.is_err() {}
    assert!(watch.get().unwrap().is_ok());
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let server = server().await;
    server.set_fault(Some(Fault::Truncate));
    let dns = asking(&server).ip_families(IpFamilies::V4).build().unwrap();
    let upstream = watch(&dns, "web.default:80").ready().await.unwrap();
    assert_eq!(upstream.addr(), addr("10.96.0.7:80"));
    assert_eq!(transports(&server), [Transport::Udp, Transport::Tcp]);
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_is_complete() {
    let server = DnsServer::start().await.unwrap();
    let pods: Vec<_> = (0..1000u16)
        .map(|pod| Ipv4Addr::from(0x0a00_0000 + u32::from(pod)))
        .collect();
    server.set_a(WEB, pods);
    let dns = asking(&server)
        .headless(Headless::Spread(Balance::RoundRobin))
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    let addresses = watch.changes().next().await.unwrap();
    assert_eq!(addresses.len(), 1000);
    assert!(transports(&server).contains(&Transport::Tcp));
}

#[tokio::test]
async fn a_dead_first_server_costs_nothing_after_the_first_failure() {
    let (silent, server) = (Silent::start(), server().await);
    let dns = ClusterDns::builder()
        .nameserver(silent.addr())
        .nameserver(server.addr())
        .query_timeout(Duration::from_millis(100))
        .ip_families(IpFamilies::V4)
        .build()
        .unwrap();
    watch(&dns, "web.default:80").ready().await.unwrap();
    assert!(silent.count() > 0);
    for name in ["one", "two", "three"] {
        server.set_a(&format!("{name}.default.svc.cluster.local"), [IP]);
        watch(&dns, &format!("{name}.default:80"))
            .ready()
            .await
            .unwrap();
    }
    assert_eq!(silent.count(), 0, "it is not asked again");
    assert_eq!(server.queries().len(), 4);
}

#[tokio::test]
async fn a_second_server_helps_against_every_fault_of_the_first() {
    for fault in [Fault::ServFail, Fault::Refused, Fault::Drop] {
        let (first, second) = (server().await, server().await);
        first.set_fault(Some(fault));
        let dns = ClusterDns::builder()
            .nameserver(first.addr())
            .nameserver(second.addr())
            .query_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        watch(&dns, "web.default:80").ready().await.unwrap();
        assert_eq!(dns.counters().failures, 0);
    }
    // Absence is an answer: the second has no say.
    let (first, second) = (DnsServer::start().await.unwrap(), server().await);
    let dns = ClusterDns::builder()
        .nameserver(first.addr())
        .nameserver(second.addr())
        .build()
        .unwrap();
    error(&watch(&dns, "web.default:80")).await;
    assert!(second.queries().is_empty());
}

#[tokio::test]
async fn all_servers_are_named_when_none_answers() {
    let (silent, closed) = (Silent::start(), closed_port());
    let dns = ClusterDns::builder()
        .nameserver(silent.addr())
        .nameserver(closed)
        .query_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let report = report(&error(&watch(&dns, "web.default:80")).await);
    assert!(report.contains(&silent.addr().to_string()), "{report}");
    assert!(report.contains(&closed.to_string()), "{report}");
}

#[tokio::test]
async fn an_outage_is_not_noticed_by_requests_until_max_stale() {
    let server = server().await;
    let dns = asking(&server)
        .ip_families(IpFamilies::V4)
        .query_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.7:80"]));
    server.set_fault(Some(Fault::ServFail));
    // TTL 5 s, max_stale 10 min.
    for count in 1..=60 {
        warp(secs(10)).await;
        failures(&dns, count).await;
        assert_eq!(watch.get().unwrap().unwrap().addr(), addr("10.96.0.7:80"));
    }
    assert!(dns.counters().stale_served >= 50);
    let [state] = &dns.snapshot()[..] else {
        panic!("one target")
    };
    assert!(state.stale);
    assert!(state.age.unwrap() >= secs(600));
    assert!(state.last_error.is_some());
    server.clear_queries();
    warp(secs(10)).await;
    assert_eq!(
        changes.next().await.unwrap_err().kind(),
        ErrorKind::DnsError
    );
    // Back it comes, with another address.
    server.set_a(WEB, [IP2]);
    server.set_fault(None);
    warp(secs(5)).await;
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.8:80"]));
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_outage_like_any_other() {
    let server = server().await;
    let at = server.addr();
    let dns = asking(&server).build().unwrap();
    let watch = watch(&dns, "web.default:80");
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    drop(server);
    warp(secs(60)).await;
    // Some refreshes fail in real time; none is seen.
    failures(&dns, 3).await;
    assert!(watch.get().unwrap().is_ok());
    let server = DnsServer::start_on(at).await.unwrap();
    server.set_a(WEB, [IP2]);
    assert_eq!(changes.next().await.unwrap(), addrs(&["10.96.0.8:80"]));
}
