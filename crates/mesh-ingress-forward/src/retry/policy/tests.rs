use super::*;

fn policy() -> RetryPolicy {
    RetryPolicy::builder().build().unwrap()
}

fn response(status: u16) -> Result<Response<()>, Error> {
    Ok(Response::builder().status(status).body(()).unwrap())
}

fn failed(kind: ErrorKind) -> Result<Response<()>, Error> {
    Err(Error::new(kind, "as a test"))
}

#[test]
fn rfc9110_9_2_2_only_idempotent_methods_are_allowed() {
    let idempotent = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
    let safe = &idempotent[..4];
    let safe_only = RetryPolicy::builder().safe_only(true).build().unwrap();
    let others = ["POST", "PATCH", "CONNECT", "PROPFIND", "get"];
    for name in idempotent.into_iter().chain(others) {
        let method = Method::from_bytes(name.as_bytes()).unwrap();
        assert_eq!(
            policy().allows_method(&method),
            idempotent.contains(&name),
            "{name}"
        );
        assert_eq!(
            safe_only.allows_method(&method),
            safe.contains(&name),
            "{name}"
        );
    }
}

#[test]
fn statuses_call_for_a_retry_only_if_the_method_is_allowed() {
    let policy = policy();
    for status in [200, 404, 429, 500, 501, 502, 503, 504, 505] {
        let retried = policy.calls_for_retry(true, &response(status));
        assert_eq!(retried, (502..=504).contains(&status), "{status}");
        assert!(!policy.calls_for_retry(false, &response(status)));
    }
    let own = [StatusCode::INTERNAL_SERVER_ERROR];
    let own = RetryPolicy::builder().statuses(own).build().unwrap();
    assert!(own.calls_for_retry(true, &response(500)));
    assert!(!own.calls_for_retry(true, &response(503)));
    let none = RetryPolicy::builder().statuses([]).build().unwrap();
    assert!(!none.calls_for_retry(true, &response(503)));
    assert!(none.calls_for_retry(true, &failed(ErrorKind::ConnectionTerminated)));
}

#[test]
fn rfc9110_10_2_3_retry_after_beyond_the_longest_pause_prevents_a_retry() {
    let after = |value: &str| {
        let response = Response::builder().status(503).header(RETRY_AFTER, value);
        policy().calls_for_retry(true, &Ok(response.body(()).unwrap()))
    };
    assert!(after("0"));
    assert!(!after("1"));
    assert!(!after("Fri, 31 Dec 1999 23:59:59 GMT"));
    assert!(!after(""));
    assert!(!after("-1"));
    let patient = RetryPolicy::builder().backoff(Duration::ZERO, Duration::from_secs(1));
    let response = Response::builder().status(503).header(RETRY_AFTER, "1");
    let outcome = Ok(response.body(()).unwrap());
    assert!(patient.build().unwrap().calls_for_retry(true, &outcome));
}

#[test]
fn transient_errors_call_for_a_retry() {
    let transient = [
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "destination_ip_unroutable",
        "http_response_incomplete",
        "http_response_timeout",
    ];
    let policy = policy();
    for &kind in ErrorKind::ALL {
        let expected = transient.contains(&kind.as_str());
        assert_eq!(
            policy.calls_for_retry(true, &failed(kind)),
            expected,
            "{kind}"
        );
        assert!(!policy.calls_for_retry(false, &failed(kind)), "{kind}");
        let unsent: Result<Response<()>, _> = Err(Error::new(kind, "as a test").retryable());
        let expected = expected || kind == ErrorKind::HttpProtocolError;
        assert_eq!(policy.calls_for_retry(false, &unsent), expected, "{kind}");
    }
    let by_client = Error::new(ErrorKind::ConnectionTerminated, "it went away")
        .with_origin(ErrorOrigin::Client)
        .retryable();
    assert!(!policy.calls_for_retry::<()>(true, &Err(by_client)));
}

#[test]
fn pauses_are_random_below_the_ceilings_of_envoy() {
    let policy = policy();
    let ceilings: Vec<_> = (1..=6).map(|n| policy.ceiling(n).as_millis()).collect();
    assert_eq!(ceilings, [25, 75, 175, 250, 250, 250]);
    assert_eq!(policy.ceiling(u32::MAX).as_millis(), 250);
    let pauses: Vec<_> = (0..1000).map(|_| policy.pause(1)).collect();
    assert!(
        pauses
            .iter()
            .all(|&pause| pause < Duration::from_millis(25))
    );
    assert!(pauses.iter().any(|&pause| pause < Duration::from_millis(8)));
    assert!(
        pauses
            .iter()
            .any(|&pause| pause > Duration::from_millis(17))
    );
    let at_once = RetryPolicy::builder().backoff(Duration::ZERO, Duration::ZERO);
    assert_eq!(at_once.build().unwrap().pause(3), Duration::ZERO);
}

#[test]
fn invalid_settings_are_refused_by_name() {
    let second = Duration::from_secs(1);
    let builder = RetryPolicy::builder;
    for (builder, setting) in [
        (builder().attempts(0), "attempts"),
        (builder().attempts(11), "attempts"),
        (builder().budget(101), "budget"),
        (builder().budget(0).min_retries(0), "budget"),
        (builder().buffer(64 * 1024 + 1), "buffer"),
        (builder().backoff(second, second / 2), "backoff"),
        (builder().statuses([StatusCode::OK]), "statuses"),
    ] {
        assert_eq!(builder.build().unwrap_err().setting(), setting);
    }
    assert!(builder().attempts(10).budget(100).buffer(0).build().is_ok());
    assert!(builder().budget(0).build().is_ok());
    let off = builder().per_try_timeout(Duration::ZERO).build().unwrap();
    assert_eq!(off.per_try_timeout, None);
}
