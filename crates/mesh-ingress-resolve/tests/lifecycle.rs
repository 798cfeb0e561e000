//! When the refresh task of a target starts and ends.
#![cfg(feature = "hickory")]
#![allow(clippy::unwrap_used)]

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh_ingress_core::ErrorKind;
use mesh_ingress_resolve::{BuildError, ClusterDns, ExternalNames, Resolve};
use mesh_ingress_testkit::Fault;
use support::{IP2, TempDir, WEB, addr, addrs, asking, closed_port, queries, secs, server, watch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_cold_requests_are_one_question_a_family() {
    let server = server().await;
    server.set_fault(Some(Fault::Delay(Duration::from_millis(100))));
    let dns = asking(&server).build().unwrap();
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let dns = dns.clone();
            tokio::spawn(async move { watch(&dns, "web.default:80").ready().await })
        })
        .collect();
    // One is held, so that the target outlives the requests.
    let held = watch(&dns, "web.default:80");
    for request in requests {
        let upstream = request.await.unwrap().unwrap();
        assert_eq!(upstream.addr(), addr("10.96.0.7:80"));
    }
    assert_eq!(queries(&server).len(), 2);
    drop(held);
}

#[tokio::test]
async fn watches_of_one_service_share_the_work() {
    let server = server().await;
    let dns = asking(&server).build().unwrap();
    let one = watch(&dns, "web.default:80");
    let by_trait: &dyn Resolve = &dns;
    let two = by_trait.watch(&"web.default:80".parse().unwrap());
    one.ready().await.unwrap();
    two.ready().await.unwrap();
    assert_eq!(queries(&server).len(), 2);
    // Another port is another target.
    let other = watch(&dns, "web.default:81");
    assert_eq!(other.ready().await.unwrap().addr(), addr("10.96.0.7:81"));
    assert_eq!(dns.snapshot().len(), 2);
    drop((one, two, other));
    assert!(dns.snapshot().is_empty());
}

#[tokio::test]
async fn many_targets_can_start_together() {
    let server = server().await;
    let dns = asking(&server).build().unwrap();
    let watches: Vec<_> = (0..300)
        .map(|index| {
            let name = format!("s{index}.default.svc.cluster.local");
            server.set_a(&name, [IP2]);
            watch(&dns, &format!("s{index}.default:80"))
        })
        .collect();
    for watch in &watches {
        watch.ready().await.unwrap();
    }
    assert_eq!(server.queries().len(), 600);
    assert_eq!(dns.snapshot().len(), 300);
}

#[test]
fn without_a_runtime_nothing_panics_and_the_error_says_so() {
    let dns = ClusterDns::builder()
        .nameserver(closed_port())
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    assert!(watch.get().is_none());
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = pin!(watch.ready()).poll(&mut cx) else {
        panic!("it would wait for ever")
    };
    assert_eq!(error.kind(), ErrorKind::ProxyInternalError);
    let report = error.report().to_string();
    assert!(report.contains("Tokio runtime"), "{report}");
    let mut changes = watch.changes();
    let Poll::Ready(Err(_)) = pin!(changes.next()).poll(&mut cx) else {
        panic!("it would wait for ever")
    };
    watch.report_failure(addr("10.96.0.7:80"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn made_outside_a_runtime_it_starts_with_the_first_request_inside_one() {
    let runtime = runtime();
    let server = runtime.block_on(server());
    let dns = asking(&server).build().unwrap();
    let by_ready = watch(&dns, "web.default:80");
    let by_get = watch(&dns, "web.default:81");
    assert!(by_get.get().is_none());
    assert!(server.queries().is_empty());
    runtime.block_on(async {
        by_ready.ready().await.unwrap();
        assert_eq!(queries(&server).len(), 2);
        assert!(by_get.get().is_none());
        by_get.changes().next().await.unwrap();
        assert_eq!(queries(&server).len(), 4);
    });
}

#[test]
fn another_runtime_takes_over_when_one_ends() {
    let (first, second) = (runtime(), runtime());
    let server = second.block_on(server());
    let dns = asking(&server).build().unwrap();
    // The server runs on another thread, so that either runtime can ask it.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        second.block_on(async {
            let _ = stopped.await;
        });
    });
    let watch = watch(&dns, "web.default:80");
    first.block_on(async { watch.ready().await.unwrap() });
    drop(first);
    // Between runtimes the answer stays.
    assert_eq!(watch.get().unwrap().unwrap().addr(), addr("10.96.0.7:80"));
    server.set_a(WEB, [IP2]);
    runtime().block_on(async {
        let mut changes = watch.changes();
        while changes.next().await.unwrap() != addrs(&["10.96.0.8:80"]) {}
    });
    drop(server);
    stop.send(()).unwrap();
    serving.join().unwrap();
}

#[tokio::test]
async fn no_task_outlives_its_watch() {
    let server = server().await;
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let dns = asking(&server).build().unwrap();
    let resolved = watch(&dns, "web.default:80");
    resolved.ready().await.unwrap();
    // One that is in the middle of a question, over TCP, too.
    server.set_name_fault("slow.default.svc.cluster.local", Some(Fault::Drop));
    server.set_name_fault("long.default.svc.cluster.local", Some(Fault::Truncate));
    let slow = watch(&dns, "slow.default:80");
    let long = watch(&dns, "long.default:80");
    server.wait_for_queries(6).await;
    assert!(alive() >= before + 3);
    drop((resolved, slow, long, dns));
    while alive() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_wait_for_a_first_answer_is_bounded() {
    let server = server().await;
    server.set_fault(Some(Fault::Drop));
    let dns = asking(&server)
        .resolve_timeout(Duration::from_millis(50))
        .query_timeout(secs(60))
        .build()
        .unwrap();
    let watch = watch(&dns, "web.default:80");
    let error = watch.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DnsTimeout);
    assert!(error.report().to_string().contains("after 50ms"));
    assert!(watch.get().is_none(), "the question is still open");
}

#[test]
fn settings_are_checked_once() {
    let builder = || ClusterDns::builder().nameserver(addr("10.96.0.10:53"));
    let range = |result: Result<ClusterDns, BuildError>, setting: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, BuildError::OutOfRange { .. }), "{error}");
        assert!(error.to_string().starts_with(setting), "{error}");
    };
    assert!(builder().build().is_ok());
    assert!(builder().min_ttl(secs(1)).build().is_ok());
    assert!(builder().max_stale(secs(0)).build().is_ok());
    range(
        builder().min_ttl(Duration::from_millis(999)).build(),
        "min_ttl",
    );
    range(builder().max_ttl(secs(4)).build(), "max_ttl");
    range(builder().max_ttl(Duration::MAX).build(), "max_ttl");
    range(builder().max_stale(Duration::MAX).build(), "max_stale");
    range(
        builder().resolve_timeout(secs(0)).build(),
        "resolve_timeout",
    );
    range(builder().query_timeout(secs(0)).build(), "query_timeout");
    range(
        builder().query_timeout(Duration::MAX).build(),
        "query_timeout",
    );
    for bad in ["", "*.example.com", "Example.com", "a..b", "exa mple"] {
        let error = builder()
            .external_names(ExternalNames::follow([bad]))
            .build()
            .unwrap_err();
        assert!(matches!(error, BuildError::ExternalName(_)), "{error}");
    }
    let error = builder().resolv_conf("/etc/resolv.conf").build();
    assert!(matches!(error, Err(BuildError::TwoSources)));
    let dir = TempDir::new();
    let error = ClusterDns::builder().resolv_conf(dir.file("none")).build();
    assert!(matches!(error, Err(BuildError::ResolvConf { .. })));
    let empty = dir.file("empty");
    std::fs::write(&empty, "search cluster.local\n").unwrap();
    let error = ClusterDns::builder().resolv_conf(empty).build();
    assert!(matches!(error, Err(BuildError::NoNameserver { .. })));
}
