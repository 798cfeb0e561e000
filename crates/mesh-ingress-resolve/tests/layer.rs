//! The layer, over watches that the tests feed themselves.
#![allow(clippy::unwrap_used)]

use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use mesh_ingress_core::{Error, ErrorKind, Protocol, Upstream};
use mesh_ingress_resolve::{
    Balance, InFlight, ResolveError, ServiceUpstream, ServiceUpstreamLayer, Watch, WatchSender,
};
use tower::{Layer, Service, ServiceExt, service_fn};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn channel() -> (WatchSender, Watch) {
    Watch::channel("web.default:80".parse().unwrap())
}

fn fixed() -> Watch {
    let upstream = Upstream::new(addr(A));
    Watch::fixed("web.default:80".parse().unwrap(), upstream)
}

/// Answers with the upstream it was told. As strict as tower allows a service to be: a clone is not
/// ready, and a call uses readiness up.
#[derive(Debug, Default)]
struct Strict {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            calls: Arc::clone(&self.calls),
        }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<Upstream>;
    type Error = Error;
    type Future = Ready<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "called before it was ready"
        );
        self.calls.fetch_add(1, Ordering::Relaxed);
        let upstream = request.extensions().get::<Upstream>().unwrap();
        ready(Ok(Response::new(upstream.clone())))
    }
}

fn strict(watch: Watch) -> ServiceUpstream<Strict> {
    ServiceUpstreamLayer::new(watch).layer(Strict::default())
}

/// The result of the first poll.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn a_known_address_goes_into_the_request_without_any_wait() {
    let service = strict(fixed());
    assert_eq!(service.watch().service().to_string(), "web.default:80");
    let response = now(service.oneshot(Request::new(()))).unwrap().unwrap();
    assert_eq!(response.body().addr(), addr(A));
    assert_eq!(response.body().http_protocol(), Protocol::Http1);
}

#[test]
fn the_protocol_is_the_layers_if_it_has_one() {
    let h2c = Upstream::new(addr(A)).protocol(Protocol::Http2);
    let watch = Watch::fixed("web.default:80".parse().unwrap(), h2c);
    for (layer, protocol) in [
        (ServiceUpstreamLayer::new(watch.clone()), Protocol::Http2),
        (
            ServiceUpstreamLayer::new(watch).protocol(Protocol::Http1),
            Protocol::Http1,
        ),
        (
            ServiceUpstreamLayer::new(fixed()).protocol(Protocol::Http2),
            Protocol::Http2,
        ),
    ] {
        let service = layer.layer(Strict::default());
        let response = now(service.oneshot(Request::new(()))).unwrap().unwrap();
        assert_eq!(response.body().http_protocol(), protocol);
    }
}

#[tokio::test]
async fn a_cold_request_waits_for_the_first_answer() {
    let (sender, watch) = channel();
    let mut service = strict(watch);
    let waiting = tokio::spawn(service.ready().await.unwrap().call(Request::new(())));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    assert_eq!(service.get_ref().calls.load(Ordering::Relaxed), 0);
    sender.send(Upstream::new(addr(A)));
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(response.body().addr(), addr(A));
    // The service that is left is used as any other.
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.body().addr(), addr(A));
}

#[tokio::test(start_paused = true)]
async fn wait_for_the_first_answer_times_out() {
    let (_sender, watch) = channel();
    let started = tokio::time::Instant::now();
    let service = strict(watch);
    let calls = Arc::clone(&service.get_ref().calls);
    let error = service.oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DnsTimeout);
    assert!(error.may_retry());
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_target_that_cannot_be_resolved_fails_without_a_call() {
    let (sender, watch) = channel();
    let mut service = strict(watch);
    // One that waits already, and one that comes later.
    let waiting = tokio::spawn(service.ready().await.unwrap().call(Request::new(())));
    tokio::task::yield_now().await;
    sender.fail(ResolveError::new(
        ErrorKind::DnsError,
        "there is no such service",
    ));
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DnsError);
    let calls = Arc::clone(&service.get_ref().calls);
    let error = now(service.clone().oneshot(Request::new(())))
        .unwrap()
        .unwrap_err();
    let report = error.report().to_string();
    assert!(report.ends_with("there is no such service"), "{report}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    // It may come yet.
    sender.send(Upstream::new(addr(A)));
    service.oneshot(Request::new(())).await.unwrap();
}

#[tokio::test]
async fn dropped_sender_fails_waiting_requests() {
    let (sender, watch) = channel();
    let service = strict(watch.clone());
    let waiting = tokio::spawn(service.oneshot(Request::new(())));
    tokio::task::yield_now().await;
    drop(sender);
    assert!(waiting.await.unwrap().is_err());
    // The last answer stays.
    let (sender, watch) = channel();
    sender.send(Upstream::new(addr(A)));
    drop(sender);
    assert_eq!(watch.get().unwrap().unwrap().addr(), addr(A));
}

#[tokio::test]
async fn errors_of_the_inner_service_pass() {
    struct Mine;

    impl From<Mine> for Error {
        fn from(_: Mine) -> Self {
            Self::new(ErrorKind::HttpResponseTimeout, "too slow")
        }
    }

    let inner = service_fn(async |_: Request<()>| Err::<Response<()>, _>(Mine));
    let service = ServiceUpstreamLayer::new(fixed()).layer(inner);
    let error = service.oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HttpResponseTimeout);
}

#[tokio::test]
async fn an_address_that_refuses_is_left_alone_one_that_is_slow_is_not() {
    for (kind, left_alone) in [
        (ErrorKind::ConnectionRefused, true),
        (ErrorKind::ConnectionTimeout, true),
        (ErrorKind::DestinationIpUnroutable, true),
        (ErrorKind::ConnectionTerminated, false),
        (ErrorKind::HttpResponseTimeout, false),
    ] {
        let (sender, watch) = channel();
        sender.send_spread(&[addr(A), addr(B)], Balance::RoundRobin);
        let inner = service_fn(move |request: Request<()>| {
            let upstream = request.extensions().get::<Upstream>().unwrap();
            ready(if upstream.addr() == addr(A) {
                Err(Error::new(kind, "on purpose"))
            } else {
                Ok(Response::new(()))
            })
        });
        let service = ServiceUpstreamLayer::new(watch).layer(inner);
        let mut errors = 0;
        for _ in 0..20 {
            errors += usize::from(service.clone().oneshot(Request::new(())).await.is_err());
        }
        assert_eq!(errors, if left_alone { 1 } else { 10 }, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_count_of_failures() {
    let (sender, watch) = channel();
    sender.send_spread(&[addr(A), addr(B)], Balance::RoundRobin);
    let is_well = |watch: &Watch| (0..2).any(|_| watch.get().unwrap().unwrap().addr() == addr(A));
    watch.report_failure(addr(A));
    assert!(!is_well(&watch));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(is_well(&watch));
    for _ in 0..2 {
        strict(watch.clone())
            .oneshot(Request::new(()))
            .await
            .unwrap();
    }
    // A first failure again, and not the second.
    watch.report_failure(addr(A));
    assert!(!is_well(&watch));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(is_well(&watch));
    watch.report_failure(addr(A));
    watch.report_success(addr(A));
    assert!(is_well(&watch));
}

#[tokio::test]
async fn an_address_is_busy_until_its_response_is_there_or_longer() {
    let (sender, watch) = channel();
    sender.send_spread(&[addr(A), addr(B)], Balance::LeastOutstanding);
    let held: Arc<Mutex<Vec<InFlight>>> = Arc::default();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (keep, pass) = (Arc::clone(&held), Arc::clone(&gate));
    let inner = service_fn(move |request: Request<()>| {
        let extensions = request.extensions();
        let in_flight = extensions.get::<InFlight>().unwrap().clone();
        let upstream = extensions.get::<Upstream>().unwrap().clone();
        keep.lock().unwrap().push(in_flight);
        let pass = Arc::clone(&pass);
        async move {
            pass.acquire().await.unwrap().forget();
            Ok::<_, Error>(Response::new(upstream.addr()))
        }
    });
    let service = ServiceUpstreamLayer::new(watch.clone()).layer(inner);
    let call = || tokio::spawn(service.clone().oneshot(Request::new(())));
    // Two at once go to different addresses.
    let (one, two) = (call(), call());
    while held.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    // As a forwarder would that keeps only the request, not the response's body.
    held.lock().unwrap().clear();
    gate.add_permits(1);
    let mut both = [one, two];
    let first = loop {
        if let Some(done) = both.iter().position(tokio::task::JoinHandle::is_finished) {
            break done;
        }
        tokio::task::yield_now().await;
    };
    let free = (&mut both[first]).await.unwrap().unwrap().into_body();
    for _ in 0..20 {
        assert_eq!(watch.get().unwrap().unwrap().addr(), free);
    }
    gate.add_permits(1);
    let busy = (&mut both[1 - first]).await.unwrap().unwrap().into_body();
    assert_ne!(free, busy);
    // One whose response's body is still under way.
    gate.add_permits(1);
    let busy = call().await.unwrap().unwrap().into_body();
    for _ in 0..20 {
        assert_ne!(watch.get().unwrap().unwrap().addr(), busy);
    }
    held.lock().unwrap().clear();
    let mut picks = (0..200).map(|_| watch.get().unwrap().unwrap().addr());
    assert!(picks.any(|address| address == busy));
}

#[test]
fn one_address_is_not_counted() {
    let inner = service_fn(|request: Request<()>| {
        ready(Ok::<_, Error>(Response::new(
            request.extensions().get::<InFlight>().is_some(),
        )))
    });
    let service = ServiceUpstreamLayer::new(fixed()).layer(inner);
    let response = now(service.oneshot(Request::new(()))).unwrap().unwrap();
    assert!(!response.into_body());
}

#[tokio::test]
async fn cancelled_wait_does_not_affect_others() {
    let (sender, watch) = channel();
    let service = strict(watch);
    let cancelled = tokio::spawn(service.clone().oneshot(Request::new(())));
    let waiting = tokio::spawn(service.clone().oneshot(Request::new(())));
    tokio::task::yield_now().await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    sender.send(Upstream::new(addr(A)));
    waiting.await.unwrap().unwrap();
    assert_eq!(service.get_ref().calls.load(Ordering::Relaxed), 1);
}

#[test]
fn without_a_runtime_the_wait_is_the_senders_to_end() {
    let (sender, watch) = channel();
    let mut waiting = Box::pin(watch.ready());
    assert!(now(waiting.as_mut()).is_none());
    sender.send(Upstream::new(addr(A)));
    assert!(now(waiting.as_mut()).unwrap().is_ok());
}

#[test]
fn a_service_without_addresses_is_unavailable() {
    let (sender, watch) = channel();
    sender.send_spread(&[], Balance::RoundRobin);
    let error = watch.get().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationUnavailable);
}

#[test]
fn futures_can_be_sent_and_are_small() {
    fn is_send<T: Send + 'static>(_: &T) {}
    let mut service = strict(fixed());
    let waker = Waker::noop();
    assert!(
        service
            .poll_ready(&mut Context::from_waker(waker))
            .is_ready()
    );
    let future = service.call(Request::new(()));
    is_send(&future);
    is_send(&fixed().ready());
    // State that is only needed before the first answer is kept elsewhere.
    let inner = size_of::<Ready<Result<Response<Upstream>, Error>>>();
    let word = size_of::<usize>();
    assert!(size_of_val(&future) <= inner + 8 * word);
    assert!(now(future).unwrap().is_ok());
}
