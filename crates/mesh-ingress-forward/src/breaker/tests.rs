use std::sync::atomic::AtomicUsize;

use http::StatusCode;
use mesh_ingress_core::ErrorOrigin;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn breaker(builder: FailureAccrualBuilder) -> (Arc<Breaker>, Instant) {
    let now = Instant::now();
    (Arc::new(Breaker::new(builder.build().unwrap(), now)), now)
}

/// Opens after three failures in a row, however fast.
fn opens_after_three() -> FailureAccrualBuilder {
    FailureAccrual::builder()
        .consecutive_failures(3)
        .sustained(Duration::ZERO)
        .penalty(SECOND, 8 * SECOND)
}

fn fail(breaker: &Arc<Breaker>, now: Instant) -> Option<Change> {
    let admission = breaker.admit(now).unwrap();
    breaker.failure(admission, now)
}

fn succeed(breaker: &Arc<Breaker>, now: Instant) -> Option<Change> {
    let admission = breaker.admit(now).unwrap();
    breaker.success(admission)
}

/// Fails until the circuit opens, and returns for how long.
fn trip(breaker: &Arc<Breaker>, now: Instant) -> Duration {
    for _ in 0..3 {
        if let Some(Change::Opened(penalty)) = fail(breaker, now) {
            return penalty;
        }
    }
    panic!("it did not open: {breaker:?}");
}

#[test]
fn failures_in_a_row_open_the_circuit() {
    let (breaker, now) = breaker(opens_after_three());
    assert_eq!(fail(&breaker, now), None);
    assert_eq!(fail(&breaker, now), None);
    let Some(Change::Opened(penalty)) = fail(&breaker, now) else {
        panic!("it did not open");
    };
    assert!(
        penalty >= SECOND && penalty <= SECOND * 3 / 2,
        "{penalty:?}"
    );
    let rejected = breaker.admit(now).unwrap_err();
    assert!(rejected.retry_after <= penalty);
    assert!(rejected.retry_after + Duration::from_millis(1) > penalty);
    let error = rejected.into_error();
    assert_eq!(error.kind(), ErrorKind::DestinationUnavailable);
    assert!(error.may_retry());
    let almost = now + penalty - Duration::from_millis(2);
    assert!(breaker.admit(almost).is_err());
}

#[test]
fn success_resets_the_count_of_failures() {
    let (breaker, now) = breaker(opens_after_three());
    for _ in 0..10 {
        assert_eq!(fail(&breaker, now), None);
        assert_eq!(fail(&breaker, now), None);
        assert_eq!(succeed(&breaker, now), None);
    }
    fail(&breaker, now);
    fail(&breaker, now);
    // A cancelled request is no success.
    drop(breaker.admit(now).unwrap());
    assert!(matches!(fail(&breaker, now), Some(Change::Opened(_))));
}

#[test]
fn failures_that_are_not_sustained_do_not_open_the_circuit() {
    let (breaker, now) = breaker(opens_after_three().sustained(SECOND));
    for _ in 0..50 {
        assert_eq!(fail(&breaker, now), None);
    }
    assert_eq!(fail(&breaker, now + Duration::from_millis(999)), None);
    // The other pods still succeed.
    succeed(&breaker, now + Duration::from_millis(999));
    assert_eq!(fail(&breaker, now + 2 * SECOND), None);
    assert_eq!(fail(&breaker, now + 2 * SECOND), None);
    // Two sustained failures are too few, three are enough.
    let change = fail(&breaker, now + 3 * SECOND);
    assert!(matches!(change, Some(Change::Opened(_))), "{change:?}");
}

#[test]
fn probe_closes_the_circuit_or_doubles_the_penalty() {
    let (breaker, mut now) = breaker(opens_after_three());
    let mut penalty = trip(&breaker, now);
    for expected in [2, 4, 8, 8, 8] {
        now += penalty;
        let probe = breaker.admit(now).unwrap();
        assert_eq!(breaker.admit(now).unwrap_err().retry_after, SECOND);
        let Some(Change::Opened(next)) = breaker.failure(probe, now) else {
            panic!("the probe did not count");
        };
        let expected = SECOND * expected;
        assert!(next >= expected && next <= expected * 3 / 2, "{next:?}");
        assert!(breaker.admit(now).is_err());
        penalty = next;
    }
    now += penalty;
    assert_eq!(succeed(&breaker, now), Some(Change::Closed));
    // The count and the penalty start anew.
    assert_eq!(fail(&breaker, now), None);
    assert_eq!(fail(&breaker, now), None);
    let Some(Change::Opened(first)) = fail(&breaker, now) else {
        panic!("it did not open");
    };
    assert!(first <= SECOND * 3 / 2, "{first:?}");
}

#[test]
fn probe_without_an_outcome_is_left_to_the_next_request() {
    let (breaker, mut now) = breaker(opens_after_three());
    now += trip(&breaker, now);
    let cancelled = breaker.admit(now).unwrap();
    assert!(breaker.admit(now).is_err());
    drop(cancelled);
    let by_client: Result<Response<()>, _> = Err(Error::new(ErrorKind::HttpRequestError, "test"));
    let neither = breaker.admit(now).unwrap();
    assert_eq!(breaker.record(neither, &by_client, now), None);
    assert_eq!(succeed(&breaker, now), Some(Change::Closed));
    // No admission holds it any more.
    assert_eq!(Arc::strong_count(&breaker), 1);
}

#[test]
fn probe_that_never_ends_is_replaced() {
    let (breaker, mut now) = breaker(opens_after_three());
    now += trip(&breaker, now);
    let hung = breaker.admit(now).unwrap();
    assert!(
        breaker
            .admit(now + 8 * SECOND - Duration::from_millis(2))
            .is_err()
    );
    now += 8 * SECOND;
    let second = breaker.admit(now).unwrap();
    // The outcome of the first does not count now.
    drop(hung);
    assert!(breaker.admit(now).is_err());
    assert_eq!(breaker.success(second), Some(Change::Closed));
}

#[test]
fn successes_of_an_earlier_phase_do_not_count() {
    let (breaker, mut now) = breaker(opens_after_three());
    let mut old: Vec<_> = (0..5).map(|_| breaker.admit(now).unwrap()).collect();
    let penalty = trip(&breaker, now);
    assert_eq!(breaker.failure(old.pop().unwrap(), now), None);
    assert_eq!(breaker.success(old.pop().unwrap()), None);
    assert!(breaker.admit(now).is_err());
    now += penalty;
    let probe = breaker.admit(now).unwrap();
    // It succeeded before the circuit opened.
    assert_eq!(breaker.success(old.pop().unwrap()), None);
    assert!(breaker.admit(now).is_err());
    assert_eq!(breaker.success(probe), Some(Change::Closed));
    fail(&breaker, now);
    fail(&breaker, now);
    assert_eq!(breaker.success(old.pop().unwrap()), None);
    assert!(matches!(fail(&breaker, now), Some(Change::Opened(_))));
    assert_eq!(breaker.failure(old.pop().unwrap(), now), None);
}

#[test]
fn failures_of_an_earlier_phase_do_not_count() {
    let (breaker, mut now) = breaker(opens_after_three());
    let old: Vec<_> = (0..5).map(|_| breaker.admit(now).unwrap()).collect();
    now += trip(&breaker, now);
    assert_eq!(succeed(&breaker, now), Some(Change::Closed));
    for admission in old {
        assert_eq!(breaker.failure(admission, now), None);
    }
    assert!(breaker.admit(now).is_ok());
}

#[test]
fn outcomes_are_classified_by_their_cause() {
    let accrual = FailureAccrual::builder().build().unwrap();
    let status = |code: u16| Ok(Response::builder().status(code).body(()).unwrap());
    for (code, success) in [(200, true), (404, true), (500, true), (501, true)] {
        assert_eq!(accrual.classify(&status(code)), Some(success), "{code}");
    }
    for code in [502, 503, 504] {
        assert_eq!(accrual.classify(&status(code)), Some(false), "{code}");
    }
    let strict = FailureAccrual::builder().statuses([StatusCode::INTERNAL_SERVER_ERROR]);
    let strict = strict.build().unwrap();
    assert_eq!(strict.classify(&status(500)), Some(false));
    assert_eq!(strict.classify(&status(503)), Some(true));

    let failed = |kind| accrual.classify::<()>(&Err(Error::new(kind, "as a test")));
    for kind in [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionTerminated,
        ErrorKind::ConnectionTimeout,
        ErrorKind::HttpResponseTimeout,
        ErrorKind::TlsProtocolError,
    ] {
        assert_eq!(failed(kind), Some(false), "{kind}");
    }
    for kind in [
        ErrorKind::HttpRequestError,
        ErrorKind::ConnectionLimitReached,
        ErrorKind::DestinationUnavailable,
        ErrorKind::ProxyInternalError,
        ErrorKind::ProxyConfigurationError,
        ErrorKind::HttpUpgradeFailed,
        ErrorKind::HttpResponseHeaderSectionSize,
    ] {
        assert_eq!(failed(kind), None, "{kind}");
    }
    let by_client = Error::new(ErrorKind::ConnectionTerminated, "it went away")
        .with_origin(ErrorOrigin::Client);
    assert_eq!(accrual.classify::<()>(&Err(by_client)), None);
}

#[test]
fn recorded_outcomes_open_and_close_the_circuit() {
    let (breaker, mut now) = breaker(opens_after_three());
    let refused: Result<Response<()>, _> = Err(Error::new(ErrorKind::ConnectionRefused, "test"));
    let unavailable = Ok(Response::builder().status(503).body(()).unwrap());
    let success = Ok(Response::new(()));
    let mut changes = Vec::new();
    for outcome in [&refused, &unavailable, &refused] {
        let admission = breaker.admit(now).unwrap();
        changes.extend(breaker.record(admission, outcome, now));
    }
    let [Change::Opened(penalty)] = changes[..] else {
        panic!("{changes:?}");
    };
    now += penalty;
    let probe = breaker.admit(now).unwrap();
    assert_eq!(breaker.record(probe, &success, now), Some(Change::Closed));
}

#[test]
fn one_of_many_threads_gets_the_probe() {
    const THREADS: usize = 4;
    let (breaker, start) = breaker(opens_after_three().penalty(SECOND, SECOND));
    trip(&breaker, start);
    let out = AtomicUsize::new(0);
    let probes = AtomicUsize::new(0);
    let gate = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut now = start;
                for round in 0..500 {
                    now += 2 * SECOND;
                    gate.wait();
                    let admitted = breaker.admit(now);
                    if admitted.is_ok() {
                        probes.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(out.fetch_add(1, Ordering::SeqCst), 0, "round {round}");
                    }
                    // The probe lasts until all have asked.
                    gate.wait();
                    if let Ok(probe) = admitted {
                        out.fetch_sub(1, Ordering::SeqCst);
                        match round % 2 {
                            0 => drop(breaker.failure(probe, now)),
                            _ => drop(probe),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(probes.into_inner(), 500);
    assert_eq!(Arc::strong_count(&breaker), 1);
}

#[test]
fn concurrent_failures_open_the_circuit_once() {
    let (breaker, start) = breaker(opens_after_three().consecutive_failures(400));
    let opened = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let admission = breaker.admit(start).unwrap();
                    if breaker.failure(admission, start).is_some() {
                        opened.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    // Not one of 400 failures was lost, and not one counted twice.
    assert_eq!(opened.into_inner(), 1);
    assert!(breaker.admit(start).is_err());
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let builder = FailureAccrual::builder;
    for (builder, setting) in [
        (builder().consecutive_failures(0), "consecutive_failures"),
        (builder().consecutive_failures(1001), "consecutive_failures"),
        (builder().sustained(3601 * SECOND), "sustained"),
        (builder().penalty(Duration::ZERO, SECOND), "penalty"),
        (builder().penalty(SECOND, SECOND / 2), "penalty"),
        (builder().penalty(SECOND, 3601 * SECOND), "penalty"),
        (
            builder().statuses([StatusCode::TOO_MANY_REQUESTS]),
            "statuses",
        ),
    ] {
        assert_eq!(builder.build().unwrap_err().setting(), setting);
    }
}
