mod origin;
mod wire;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_ingress_core::{Body, BoxError};
use tokio::sync::mpsc;

use self::origin::{Action, Origin, answer};
use super::*;

type Outcome = Result<Response<Body>, Error>;

fn request(method: &Method, body: RequestBody) -> Request<RequestBody> {
    Request::builder()
        .method(method)
        .uri("http://web.default.svc.cluster.local/a?b")
        .header("x-field", "one")
        .header("x-field", "two")
        .body(body)
        .unwrap()
}

fn get() -> Request<RequestBody> {
    request(&Method::GET, RequestBody::empty())
}

async fn send(
    builder: RetryPolicyBuilder,
    origin: &Origin,
    request: Request<RequestBody>,
) -> Outcome {
    let policy = builder.build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    super::send(&policy, &budget, request, None, |request| {
        origin.serve(request)
    })
    .await
}

fn policy() -> RetryPolicyBuilder {
    RetryPolicy::builder()
}

fn kind(outcome: Outcome) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn request_is_retried_until_it_succeeds() {
    let origin = Origin::new([
        Action::Answer(503),
        Action::Fail(ErrorKind::ConnectionTerminated),
        Action::Unsent(ErrorKind::ConnectionRefused),
        Action::Answer(200),
    ]);
    let response = send(policy().attempts(5), &origin, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = origin.only_received();
    let line = "GET http://web.default.svc.cluster.local/a?b HTTP/1.1";
    assert_eq!(seen.line, line);
    assert_eq!(seen.fields.get_all("x-field").iter().count(), 2);
    assert_eq!(seen.size, Some(0));
}

#[tokio::test(start_paused = true)]
async fn last_outcome_is_returned() {
    let origin = Origin::new([Action::Answer(502), Action::Answer(503)]);
    let response = send(policy(), &origin, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "unavailable");

    let failed = Action::Fail(ErrorKind::ConnectionTerminated);
    let origin = Origin::new([Action::Answer(502), failed]);
    let outcome = send(policy(), &origin, get()).await;
    assert_eq!(kind(outcome), ErrorKind::ConnectionTerminated);
    let origin = Origin::new([Action::Answer(502)]);
    let outcome = send(policy().attempts(1), &origin, get()).await.unwrap();
    assert_eq!(outcome.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn rfc9110_9_2_2_post_is_retried_only_if_it_was_not_sent() {
    for method in [Method::POST, Method::PATCH, Method::CONNECT] {
        let request = || request(&method, RequestBody::new(Full::from("once")));
        for action in [
            Action::Answer(503),
            Action::Fail(ErrorKind::ConnectionTerminated),
            Action::Fail(ErrorKind::ConnectionTimeout),
            Action::Hang,
        ] {
            let origin = Origin::new([action]);
            let policy = policy().per_try_timeout(Duration::from_secs(1));
            let _ = send(policy, &origin, request()).await;
            assert_eq!(origin.attempts(), 1);
        }
        let origin = Origin::new([
            Action::Unsent(ErrorKind::ConnectionRefused),
            Action::Answer(200),
        ]);
        let response = send(policy(), &origin, request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(origin.only_received().body, "once");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_of_the_gateway_are_not_retried() {
    for kind in [
        ErrorKind::ConnectionLimitReached,
        ErrorKind::DestinationUnavailable,
        ErrorKind::ProxyConfigurationError,
    ] {
        let origin = Origin::new([Action::Unsent(kind)]);
        let outcome = send(policy(), &origin, get()).await;
        assert_eq!(outcome.unwrap_err().kind(), kind);
        assert_eq!(origin.attempts(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn body_and_trailers_are_the_same_in_each_attempt() {
    let fields = HeaderMap::from_iter([("x-checksum".parse().unwrap(), "42".parse().unwrap())]);
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from("one "))),
        Ok(Frame::data(Bytes::from("two"))),
        Ok(Frame::trailers(fields.clone())),
    ];
    let body = RequestBody::new(StreamBody::new(futures_util::stream::iter(frames)));
    let origin = Origin::new([
        Action::Answer(503),
        Action::Answer(503),
        Action::Answer(200),
    ]);
    let request = request(&Method::PUT, body);
    let response = send(policy().attempts(3), &origin, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = origin.only_received();
    assert_eq!((seen.body, seen.size), (Bytes::from("one two"), None));
    assert_eq!(seen.trailers, Some(fields));
}

#[tokio::test(start_paused = true)]
async fn known_length_is_the_same_in_each_attempt() {
    let origin = Origin::new([
        Action::Answer(503),
        Action::AnswerEarly(503),
        Action::Answer(200),
    ]);
    let body = RequestBody::new(Full::from(vec![b'x'; 64 * 1024]));
    let request = request(&Method::PUT, body);
    let response = send(policy().attempts(3), &origin, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = origin.only_received();
    assert_eq!((seen.size, seen.body.len()), (Some(65_536), 65_536));
}

#[tokio::test(start_paused = true)]
async fn body_beyond_the_buffer_is_sent_once() {
    let body = || RequestBody::new(Full::from(vec![b'x'; 64 * 1024 + 1]));
    let origin = Origin::new([Action::Answer(503)]);
    let response = send(policy(), &origin, request(&Method::PUT, body()))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(origin.only_received().body.len(), 65_537);
    // It is retried if none of it was read.
    let origin = Origin::new([
        Action::Unsent(ErrorKind::ConnectionRefused),
        Action::Answer(200),
    ]);
    let response = send(policy(), &origin, request(&Method::POST, body()))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(origin.only_received().body.len(), 65_537);
}

#[tokio::test(start_paused = true)]
async fn upload_continues_after_an_early_response_that_is_not_retried() {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, Infallible>>();
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let held = Mutex::new(None);
    let policy = policy().budget(0).min_retries(1).build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    assert!(budget.withdraw(Instant::now()));
    let request = request(&Method::PUT, RequestBody::new(StreamBody::new(frames)));
    let response = super::send(&policy, &budget, request, None, |request| {
        *held.lock().unwrap() = Some(request.into_body());
        async { Ok(answer(503)) }
    });
    assert_eq!(
        response.await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    sender.send(Ok(Frame::data(Bytes::from("more")))).unwrap();
    drop(sender);
    let body = held.lock().unwrap().take().unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "more");
}

#[tokio::test(start_paused = true)]
async fn retried_attempt_loses_the_body_before_the_pause() {
    let pause = Duration::from_secs(1000);
    let held = Mutex::new(Vec::new());
    let policy = policy().backoff(pause, pause).build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    let request = request(&Method::PUT, RequestBody::new(Full::from("body")));
    let sent = super::send(&policy, &budget, request, None, |request| {
        let mut held = held.lock().unwrap();
        held.push(request.into_body());
        let status = if held.len() == 1 { 503 } else { 200 };
        async move { Ok(answer(status)) }
    });
    let started = Instant::now();
    let upstream = async {
        let stale = held.lock().unwrap().pop().unwrap();
        let error = stale.collect().await.unwrap_err();
        assert!(error.to_string().contains("sent again"), "{error}");
        assert_eq!(started.elapsed(), Duration::ZERO);
        held.lock().unwrap().push(RequestBody::empty());
    };
    let (response, ()) = tokio::join!(sent, upstream);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    let body = held.lock().unwrap().pop().unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test(start_paused = true)]
async fn client_disconnect_is_not_retried() {
    let frames = [
        Ok(Frame::data(Bytes::from("half"))),
        Err(BoxError::from("gone")),
    ];
    let body = RequestBody::new(StreamBody::new(futures_util::stream::iter(frames)));
    let origin = Origin::new([Action::Answer(200)]);
    let outcome = send(policy(), &origin, request(&Method::PUT, body)).await;
    assert_eq!(kind(outcome), ErrorKind::HttpRequestError);
    assert_eq!(origin.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn budget_limits_all_retries_together() {
    let policy = policy().budget(20).min_retries(2).build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    let origin = Origin::new((0..300).map(|_| Action::Answer(503)));
    for _ in 0..100 {
        let outcome = super::send(&policy, &budget, get(), None, |request| {
            origin.serve(request)
        })
        .await;
        assert_eq!(outcome.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(origin.attempts(), 120);
}

#[tokio::test(start_paused = true)]
async fn attempt_that_times_out_is_retried() {
    let second = Duration::from_secs(1);
    for action in [Action::Hang, Action::Stall] {
        let origin = Origin::new([action, Action::Answer(200)]);
        let body = RequestBody::new(Full::from("body"));
        let policy = policy().per_try_timeout(second);
        let started = Instant::now();
        let response = send(policy, &origin, request(&Method::PUT, body))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let took = started.elapsed();
        assert!(
            took >= second && took <= second + Duration::from_millis(50),
            "{took:?}"
        );
    }
    let origin = Origin::new([Action::Hang, Action::Stall]);
    let error = send(policy().per_try_timeout(second), &origin, get())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout);
    assert!(
        error
            .report()
            .to_string()
            .contains("1s that one try may take")
    );
    assert_eq!(origin.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn slow_client_does_not_time_out_an_attempt() {
    let second = Duration::from_secs(1);
    let (sender, mut receiver) = mpsc::unbounded_channel::<Result<Frame<Bytes>, Infallible>>();
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let body = RequestBody::new(StreamBody::new(frames));
    let started = Instant::now();
    let client = tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(3 * second).await;
            sender.send(Ok(Frame::data(Bytes::from("slow ")))).unwrap();
        }
    });
    // The clock of the first attempt starts at the end of the body, which the second has at once.
    let origin = Origin::new([Action::Hang, Action::Answer(200)]);
    let policy = policy().per_try_timeout(second);
    let response = send(policy, &origin, request(&Method::PUT, body))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    client.await.unwrap();
    assert_eq!(origin.only_received().body, "slow slow slow slow slow ");
    let took = started.elapsed();
    assert!(took >= 16 * second && took < 17 * second, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_separated_by_pauses() {
    let pause = Duration::from_secs(100);
    let origin = Origin::new([
        Action::Answer(503),
        Action::Answer(503),
        Action::Answer(503),
    ]);
    let policy = policy().attempts(3).backoff(pause, pause);
    send(policy, &origin, get()).await.unwrap();
    let attempts = origin.attempts.into_inner().unwrap();
    let pauses: Vec<_> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(
        pauses
            .iter()
            .all(|&actual| actual <= pause + Duration::from_millis(1))
    );
    assert_ne!(pauses[0], pauses[1]);
}

#[tokio::test(start_paused = true)]
async fn extensions_reach_every_attempt() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);
    let policy = policy().build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    let mut request = get();
    request.extensions_mut().insert(Mark(7));
    let seen = Mutex::new(Vec::new());
    let outcome = super::send(&policy, &budget, request, None, |request| {
        seen.lock()
            .unwrap()
            .push(request.extensions().get::<Mark>().cloned());
        async { Ok(answer(503)) }
    });
    outcome.await.unwrap();
    assert_eq!(seen.into_inner().unwrap(), [Some(Mark(7)), Some(Mark(7))]);
}

#[test]
fn future_can_be_spawned() {
    fn assert_send<T: Send>(_: T) {}
    let policy = policy().build().unwrap();
    let budget = Budget::new(&policy, Instant::now());
    assert_send(super::send(&policy, &budget, get(), None, |_| async {
        Ok(answer(200))
    }));
}
