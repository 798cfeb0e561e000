//! Refreshing in virtual time: a watch, its refresh task and a mock name server.

use std::time::Duration;

use hickory_net::proto::rr::RecordType;
use mesh_ingress_core::{ClusterDomain, ErrorKind};

use super::super::mock_name_server::{MockNameServer, Reply, replies, secs, settings, sockets};
use super::super::refresh_task::RefreshTask;
use super::super::state::Stats;
use super::super::{Headless, IpFamilies};
use super::*;
use crate::snapshot_cell::{Outcome, RefreshState, SnapshotCell};
use crate::{Balance, Watch};

fn watch(server: &Arc<MockNameServer>, settings: Settings) -> Watch {
    let service = "web.default:80".parse().unwrap();
    let cell = SnapshotCell::new(Outcome::Pending, RefreshState::Stopped);
    let settings = Arc::new(settings);
    let refresh = RefreshTask::new(
        Arc::clone(server),
        Arc::new(Question::new(&service, &ClusterDomain::default())),
        Arc::clone(&settings),
        Arc::clone(&cell),
        Arc::new(Stats::default()),
        Arc::new(Semaphore::new(1)),
    );
    Watch::new(
        service,
        cell,
        settings.resolve_timeout,
        Some(Box::new(refresh)),
    )
}

/// How far apart the questions were, in seconds.
fn pauses(server: &MockNameServer) -> Vec<f64> {
    let asked = server.queries();
    asked
        .windows(2)
        .map(|pair| (pair[1].at - pair[0].at).as_secs_f64())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_zero_makes_no_hot_loop() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(0, &["10.96.0.7"]));
    let watch = watch(&server, settings());
    watch.ready().await.unwrap();
    tokio::time::sleep(secs(60)).await;
    let pauses = pauses(&server);
    assert!((12..=16).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause > 3.7), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn very_long_ttl_is_capped_at_a_minute() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(u32::MAX, &["10.96.0.7"]));
    let watch = watch(&server, settings());
    watch.ready().await.unwrap();
    tokio::time::sleep(secs(600)).await;
    let pauses = pauses(&server);
    assert!(pauses.len() >= 10, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause < 60.0), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_to_five_seconds_and_requests_fail_at_once() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, Reply::ServFail);
    let watch = watch(&server, settings());
    let started = Instant::now();
    let error = watch.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DnsError);
    // A thousand requests in a second: each has its answer, and they cost no questions.
    for _ in 0..1000 {
        assert!(watch.get().unwrap().is_err());
        watch.ready().await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(started.elapsed() < secs(2));
    assert!(server.queries().len() <= 5, "{:?}", pauses(&server));
    tokio::time::sleep(secs(60)).await;
    let pauses = pauses(&server);
    assert!((14..=20).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 5.001), "{pauses:?}");
    server.reply(RecordType::A, replies(5, &["10.96.0.7"]));
    let mut changes = watch.changes();
    changes.next().await.unwrap_err();
    assert_eq!(changes.next().await.unwrap(), sockets(&["10.96.0.7:80"]));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_cold_requests_are_one_question() {
    let server = MockNameServer::new();
    let answer = Box::new(replies(5, &["10.96.0.7"]));
    server.reply(RecordType::A, Reply::Late(secs(1), answer));
    let watch = watch(&server, settings());
    let requests: Vec<_> = (0..200).map(|_| tokio::spawn(watch.ready())).collect();
    for request in requests {
        assert!(request.await.unwrap().is_ok());
    }
    assert_eq!(server.queries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_is_waited_for_no_longer_than_allowed() {
    let server = MockNameServer::new();
    let answer = Box::new(replies(5, &["10.96.0.7"]));
    server.reply(RecordType::A, Reply::Late(secs(10), answer));
    let watch = watch(&server, settings());
    let started = Instant::now();
    let error = watch.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DnsTimeout);
    assert_eq!(started.elapsed(), secs(2));
    assert!(error.may_retry());
    // The question is not given up.
    assert_eq!(
        watch.changes().next().await.unwrap(),
        sockets(&["10.96.0.7:80"])
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_failure_ends_the_wait_at_once() {
    let server = MockNameServer::new();
    let answer = Box::new(Reply::NoName);
    server.reply(
        RecordType::A,
        Reply::Late(Duration::from_millis(10), answer),
    );
    let watch = watch(&server, settings());
    let started = Instant::now();
    let error = watch.ready().await.unwrap_err();
    assert!(error.report().to_string().contains("NXDOMAIN"));
    assert_eq!(started.elapsed(), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_new_address_is_in_use_within_its_ttl_and_a_second() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(5, &["10.96.0.7"]));
    let watch = watch(&server, settings());
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    server.reply(RecordType::A, replies(5, &["10.96.0.8"]));
    let changed = Instant::now();
    assert_eq!(changes.next().await.unwrap(), sockets(&["10.96.0.8:80"]));
    assert!(changed.elapsed() <= secs(6));
    assert_eq!(
        watch.get().unwrap().unwrap().addr().ip().to_string(),
        "10.96.0.8"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_service_is_known_within_its_ttl_and_a_second() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(5, &["10.96.0.7"]));
    let watch = watch(&server, settings());
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    server.reply(RecordType::A, Reply::NoName);
    let deleted = Instant::now();
    changes.next().await.unwrap_err();
    assert!(deleted.elapsed() <= secs(6));
    // And one that comes back within five.
    server.reply(RecordType::A, replies(5, &["10.96.0.8"]));
    let back = Instant::now();
    changes.next().await.unwrap();
    assert!(back.elapsed() <= secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_work_is_asked_again_once_a_second() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(60, &["10.96.0.7"]));
    let watch = watch(&server, settings());
    let address = watch.ready().await.unwrap().addr();
    for _ in 0..100 {
        watch.report_failure(address);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pauses = pauses(&server);
    assert!((8..=10).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause >= 0.999), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_answer_is_left_alone_for_a_while() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(60, &["10.0.0.1", "10.0.0.2"]));
    let settings = Settings {
        headless: Headless::Spread(Balance::RoundRobin),
        ..settings()
    };
    let watch = watch(&server, settings);
    let bad = watch.ready().await.unwrap().addr();
    watch.report_failure(bad);
    // A refresh with the same pods does not forget_queries it.
    tokio::time::sleep(secs(5)).await;
    assert!(server.queries().len() > 1);
    for _ in 0..10 {
        assert_ne!(watch.get().unwrap().unwrap().addr(), bad);
    }
    tokio::time::sleep(secs(5)).await;
    let mut picks = (0..2).map(|_| watch.get().unwrap().unwrap().addr());
    assert!(picks.any(|address| address == bad));
}

#[tokio::test(start_paused = true)]
async fn a_silent_second_family_delays_the_first_answer_by_fifty_milliseconds() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(5, &["10.96.0.7"]));
    server.reply(RecordType::AAAA, Reply::Silence);
    let settings = Settings {
        families: IpFamilies::Both,
        ..settings()
    };
    let watch = watch(&server, settings);
    let started = Instant::now();
    watch.ready().await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(50));
    // Nor does it delay the news of a change.
    let mut changes = watch.changes();
    changes.next().await.unwrap();
    server.reply(RecordType::A, replies(5, &["10.96.0.8"]));
    let changed = Instant::now();
    changes.next().await.unwrap();
    assert!(changed.elapsed() <= secs(6));
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_watch() {
    let server = MockNameServer::new();
    server.reply(RecordType::A, replies(5, &["10.96.0.7"]));
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let watch = watch(&server, settings());
    let clone = watch.clone();
    watch.ready().await.unwrap();
    assert_eq!(alive(), 1);
    drop(watch);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(alive(), 1);
    let asked = server.queries().len();
    drop(clone);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(alive(), 0);
    assert_eq!(server.queries().len(), asked);
}
