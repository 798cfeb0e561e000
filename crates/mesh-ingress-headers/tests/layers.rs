//! The rules as tower layers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests, too

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use mesh_ingress_core::{BoxError, Downstream, Error, ErrorKind, Scheme};
use mesh_ingress_headers::layer::{EdgeHygieneLayer, ForwardedLayer, HopByHopLayer};
use mesh_ingress_headers::{
    Client, ConnectionOptions, EdgeHygiene, ForwardedPolicy, RequestHost, TrustedPeers,
    UnderscorePolicy,
};
use tower_layer::Layer;
use tower_service::Service;

/// Echoes the request, with these response fields.
#[derive(Clone, Default)]
struct Echo {
    status: StatusCode,
    fields: HeaderMap,
}

struct Asked(Request<()>);

impl Echo {
    fn respond(&self, request: Request<()>) -> Response<Asked> {
        let mut response = Response::new(Asked(request));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.clone();
        response
    }
}

impl Service<Request<()>> for Echo {
    type Response = Response<Asked>;
    type Error = Error;
    type Future = Ready<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(self.respond(request)))
    }
}

fn call<S>(service: &mut S, request: Request<()>) -> Result<S::Response, S::Error>
where
    S: Service<Request<()>>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("nothing in here waits"),
    }
}

fn request(fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::new(());
    for (name, value) in fields {
        request
            .headers_mut()
            .append(*name, HeaderValue::from_static(value));
    }
    request
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn hop_by_hop_fields_are_stripped_from_requests_and_responses() {
    let mut service = HopByHopLayer::new().layer(Echo {
        status: StatusCode::OK,
        fields: request(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("upgrade", "h2c"),
            ("etag", "\"1\""),
        ])
        .headers()
        .clone(),
    });
    let response = call(
        &mut service,
        request(&[("connection", "x-a"), ("x-a", "1"), ("accept", "*/*")]),
    )
    .unwrap();
    assert_eq!(names(response.headers()), ["etag"]);
    assert_eq!(names(response.body().0.headers()), ["accept"]);
}

#[test]
fn rfc9110_7_8_upgrade_is_forwarded_in_http11_only() {
    for (version, expected) in [
        (Version::HTTP_10, &[][..]),
        (Version::HTTP_11, &["connection", "te", "upgrade"]),
        (Version::HTTP_2, &["te"]),
    ] {
        let mut asked = request(&[
            ("connection", "Upgrade, TE, X-Hop"),
            ("upgrade", "websocket"),
            ("te", "trailers, gzip"),
            ("x-hop", "1"),
        ]);
        *asked.version_mut() = version;
        let response = call(&mut HopByHopLayer::new().layer(Echo::default()), asked).unwrap();
        let asked = &response.body().0;
        assert_eq!(names(asked.headers()), expected, "{version:?}");
        if version == Version::HTTP_11 {
            assert_eq!(asked.headers()["connection"], "te, upgrade");
            assert_eq!(asked.headers()["te"], "trailers");
        }
        let options = asked.extensions().get::<ConnectionOptions>().unwrap();
        assert!(options.te_trailers);
    }
}

#[test]
fn rfc9110_15_2_2_101_keeps_its_upgrade() {
    let mut service = HopByHopLayer::new().layer(Echo {
        status: StatusCode::SWITCHING_PROTOCOLS,
        fields: request(&[
            ("connection", "upgrade, x-hop"),
            ("x-hop", "1"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "x"),
        ])
        .headers()
        .clone(),
    });
    let response = call(&mut service, request(&[])).unwrap();
    assert_eq!(
        names(response.headers()),
        ["connection", "sec-websocket-accept", "upgrade"]
    );
    assert_eq!(response.headers()["connection"], "upgrade");
}

#[test]
fn peer_is_read_from_the_extensions() {
    let trusted = TrustedPeers::parse(["10.0.0.0/8"]).unwrap();
    let policy = ForwardedPolicy::builder()
        .trusted(trusted.clone())
        .via("edge")
        .build()
        .unwrap();
    let mut service = EdgeHygieneLayer::new(EdgeHygiene::default(), trusted)
        .layer(ForwardedLayer::new(policy).layer(Echo::default()));
    let fields = &[
        ("host", "Shop.example"),
        ("x-envoy-retry-on", "5xx"),
        ("x-forwarded-for", "203.0.113.7"),
    ];

    let outside = Downstream::new("198.51.100.1:1".parse().unwrap()).scheme(Scheme::Https);
    let balancer = Downstream::new("10.0.0.9:1".parse().unwrap());
    for (downstream, chain, retry) in [
        (outside, "198.51.100.1", false),
        (balancer, "203.0.113.7, 10.0.0.9", true),
    ] {
        let mut plain = request(fields);
        plain.extensions_mut().insert(downstream.clone());
        let mut formatted = request(fields);
        formatted.extensions_mut().insert(Client::new(&downstream));
        // A `Client` wins over a `Downstream`.
        formatted
            .extensions_mut()
            .insert(Downstream::new("192.0.2.9:9".parse().unwrap()));
        for asked in [plain, formatted] {
            let response = call(&mut service, asked).unwrap();
            let asked = &response.body().0;
            assert_eq!(asked.headers()["x-forwarded-for"], chain);
            assert_eq!(asked.headers()["x-forwarded-host"], "Shop.example");
            assert_eq!(asked.headers()["via"], "1.1 edge");
            assert_eq!(asked.headers().contains_key("x-envoy-retry-on"), retry);
            let host = asked.extensions().get::<RequestHost>().unwrap();
            assert_eq!(host.canonical_host(), "shop.example");
        }
    }

    let response = call(&mut service, request(fields)).unwrap();
    let asked = &response.body().0;
    assert!(
        !asked.headers().contains_key("x-forwarded-for"),
        "nothing is known"
    );
    assert!(!asked.headers().contains_key("x-envoy-retry-on"));
}

#[test]
fn request_host_in_the_extensions_is_used() {
    let mut service = ForwardedLayer::new(ForwardedPolicy::default()).layer(Echo::default());
    let mut asked = request(&[("host", "web.default.svc.cluster.local")]);
    asked
        .extensions_mut()
        .insert("shop.example".parse::<RequestHost>().unwrap());
    let response = call(&mut service, asked).unwrap();
    let asked = &response.body().0;
    assert_eq!(asked.headers()["x-forwarded-host"], "shop.example");
    assert_eq!(asked.headers()[HOST], "web.default.svc.cluster.local");
}

#[test]
fn refused_requests_do_not_reach_the_service() {
    let policy = ForwardedPolicy::builder().via("edge").build().unwrap();
    let mut service = ForwardedLayer::new(policy).layer(Echo::default());
    let refused = |result: Result<Response<Asked>, Error>| result.err().unwrap().kind();
    assert_eq!(
        refused(call(&mut service, request(&[]))),
        ErrorKind::HttpRequestError
    );
    let looped = request(&[("host", "a"), ("via", "1.1 edge")]);
    assert_eq!(
        refused(call(&mut service, looped)),
        ErrorKind::ProxyLoopDetected
    );

    let rules = EdgeHygiene::builder()
        .underscores(UnderscorePolicy::Reject)
        .build()
        .unwrap();
    let mut service = EdgeHygieneLayer::new(rules, TrustedPeers::none()).layer(Echo::default());
    let refused = refused(call(&mut service, request(&[("a_b", "1")])));
    assert_eq!(refused, ErrorKind::HttpRequestError);
}

#[test]
fn boxed_errors_are_accepted() {
    #[derive(Clone)]
    struct Boxed(Echo);

    impl Service<Request<()>> for Boxed {
        type Response = Response<Asked>;
        type Error = BoxError;
        type Future = Ready<Result<Self::Response, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            ready(Ok(self.0.respond(request)))
        }
    }

    let layer = ForwardedLayer::new(ForwardedPolicy::default());
    let error = call(&mut layer.layer(Boxed(Echo::default())), request(&[]))
        .err()
        .unwrap();
    assert!(error.downcast_ref::<Error>().is_some());
}

#[test]
fn hop_by_hop_layer_has_no_bound_on_the_error() {
    struct Never;

    impl Service<Request<()>> for Never {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            ready(Ok(Response::new(())))
        }
    }

    let mut service = HopByHopLayer::new().layer(Never);
    assert!(call(&mut service, request(&[])).is_ok());
    let Never = service.into_inner();
}
