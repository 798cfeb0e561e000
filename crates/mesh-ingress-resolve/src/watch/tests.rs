use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_ingress_core::ErrorKind;

use super::*;
use crate::snapshot_cell::Timing;

#[derive(Debug, Default)]
struct Counting {
    starts: Arc<AtomicUsize>,
    stale: Arc<AtomicUsize>,
}

impl Refresh for Counting {
    fn start(&self) -> Result<(), ResolveError> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        Err(ResolveError::new(
            ErrorKind::ProxyInternalError,
            "no runtime",
        ))
    }

    fn request_refresh(&self) {}

    fn count_stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }
}

/// An answer without a refresh task, fresh and usable until so many seconds from now.
fn left_alone(fresh: i64, usable: i64) -> (Watch, Counting) {
    let upstream = Upstream::new("10.96.0.7:80".parse().unwrap());
    let cell = SnapshotCell::new(Outcome::One(upstream), RefreshState::Stopped);
    let now = Instant::now() + Duration::from_secs(3600);
    let at = |seconds: i64| Some(now - Duration::from_secs((3600 - seconds) as u64));
    cell.update(|snapshot| {
        snapshot.timing = Timing {
            fresh_until: at(fresh),
            usable_until: at(usable),
            ..Timing::default()
        };
    });
    let refresh = Counting::default();
    let counting = Counting {
        starts: Arc::clone(&refresh.starts),
        stale: Arc::clone(&refresh.stale),
    };
    let service = "web.default:80".parse().unwrap();
    let timeout = DEFAULT_RESOLVE_TIMEOUT;
    (
        Watch::new(service, cell, timeout, Some(Box::new(refresh))),
        counting,
    )
}

#[test]
fn unrefreshed_answer_is_used_until_it_expires() {
    for (fresh, stale) in [(10, 0), (-10, 1)] {
        let (watch, counting) = left_alone(fresh, 600);
        assert!(watch.get().unwrap().is_ok());
        assert_eq!(counting.starts.load(Ordering::Relaxed), 1);
        assert_eq!(counting.stale.load(Ordering::Relaxed), stale);
    }
}

#[test]
fn an_answer_that_is_too_old_is_no_answer() {
    let (watch, counting) = left_alone(-610, -10);
    assert!(watch.get().is_none());
    assert!(watch.get().is_none());
    assert_eq!(counting.starts.load(Ordering::Relaxed), 2);
}

#[test]
fn a_revision_lasts_as_long_as_the_answer() {
    let upstream = |address: &str| Upstream::new(address.parse().unwrap());
    let (sender, watch) = Watch::channel("web.default:80".parse().unwrap());
    assert_eq!(watch.revision(), None, "no answer yet");
    sender.send(upstream("10.96.0.7:80"));
    let first = watch.revision();
    assert!(first.is_some());
    sender.send(upstream("10.96.0.7:80"));
    assert_eq!(watch.revision(), first, "the same once more");
    sender.send(upstream("10.96.0.8:80"));
    let second = watch.revision();
    assert!(second.is_some() && second != first);
    sender.send(upstream("10.96.0.7:80"));
    let third = watch.revision();
    assert!(third.is_some() && third != first && third != second);

    let both = ["10.96.0.7:80", "10.96.0.8:80"].map(|address| address.parse().unwrap());
    sender.send_spread(&both, Balance::RoundRobin);
    assert_eq!(watch.revision(), None, "which of them is for each to ask");
    sender.fail(ResolveError::new(ErrorKind::DnsError, "refused"));
    assert_eq!(watch.revision(), None);
}

#[test]
fn unrefreshed_answer_has_no_revision() {
    let (watch, _) = left_alone(10, 600);
    assert_eq!(watch.revision(), None);
    watch
        .cell
        .update(|snapshot| snapshot.refresh_state = RefreshState::Active);
    let kept = watch.revision();
    assert!(kept.is_some());
    watch
        .cell
        .update(|snapshot| snapshot.refresh_state = RefreshState::Stale);
    assert_eq!(watch.revision(), None);
    watch
        .cell
        .update(|snapshot| snapshot.refresh_state = RefreshState::Active);
    assert_eq!(watch.revision(), kept);
}

#[test]
fn revision_is_published_after_its_snapshot() {
    const LAST: u16 = 20_000;
    // The answer of each revision is told by its port.
    let upstream = |port: u16| Upstream::new(SocketAddr::from(([10, 96, 0, 7], port)));
    let (sender, watch) = Watch::channel("web.default:80".parse().unwrap());
    sender.send(upstream(1));
    let first = watch.revision().unwrap().0.get();
    let both = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            both.wait();
            loop {
                let before = watch.revision().unwrap().0.get() - first + 1;
                let port = watch.get().unwrap().unwrap().addr().port();
                let after = watch.revision().unwrap().0.get() - first + 1;
                // ReceivedQuery for before, it is never newer than the answer; and it follows at once.
                assert!(before <= u64::from(port), "{before} for {port}");
                assert!(u64::from(port) <= after + 1, "{port} for {after}");
                if port == LAST {
                    break;
                }
            }
        });
        both.wait();
        (2..=LAST).for_each(|port| sender.send(upstream(port)));
    });
    assert_eq!(watch.revision().unwrap().0.get() - first + 1, LAST.into());
}
