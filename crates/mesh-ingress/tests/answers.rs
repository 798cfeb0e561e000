//! Responses to requests that cannot be served.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use mesh_ingress::route::{HeaderMatch, ValueMatch};
use mesh_ingress::{Body, Downstream, MeshIngress, ResponseBody, Route};
use mesh_ingress_testkit::{Fault, Origin};
use support::{Cluster, body_of, get};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

async fn gateway() -> (Cluster, Origin, MeshIngress) {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await.unwrap();
    let port = origin.addr().port();
    let web = format!("web.default:{port}").parse().unwrap();
    cluster.service(&web, origin.addr().ip());
    let route = |path, service: &str| {
        let route = Route::host("shop.example.com").path_prefix(path);
        route.to(service.parse().unwrap())
    };
    let mesh = cluster
        .mesh()
        .route(Route::host("shop.example.com").path_prefix("/").to(web))
        .route(route("/missing", "missing.default:80"))
        .route(route("/down", "down.default:9"))
        .route(route("/metadata", "metadata.default:80"))
        .build()
        .unwrap();
    let down = "down.default:9".parse().unwrap();
    cluster.service(&down, "127.0.9.9".parse().unwrap());
    let metadata = "metadata.default:80".parse().unwrap();
    cluster.service(&metadata, "169.254.169.254".parse().unwrap());
    (cluster, origin, mesh)
}

fn error_of(response: &Response<ResponseBody>) -> &str {
    let status = response.headers()["proxy-status"].to_str().unwrap();
    status.strip_prefix("mesh-ingress; error=").unwrap()
}

#[tokio::test]
async fn each_failure_has_its_status_and_its_rfc9209_type() {
    let (_cluster, _origin, mesh) = gateway().await;
    for (path, status, error) in [
        ("/missing", StatusCode::SERVICE_UNAVAILABLE, "dns_error"),
        ("/down", StatusCode::BAD_GATEWAY, "connection_refused"),
        (
            "/metadata",
            StatusCode::BAD_GATEWAY,
            "destination_ip_prohibited",
        ),
        ("/../etc", StatusCode::BAD_REQUEST, "http_request_error"),
    ] {
        let response = mesh.handle(get("shop.example.com", path)).await.unwrap();
        assert_eq!(
            (response.status(), error_of(&response)),
            (status, error),
            "{path}"
        );
        let body = body_of(response).await;
        for inside in ["127.", "svc", "default", "169."] {
            assert!(!body.contains(inside), "the body names internals: {body}");
        }
    }
    let response = mesh.handle(get("other.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_of(&response), "destination_not_found");
}

#[tokio::test]
async fn ambiguous_requests_never_reach_an_origin() {
    let (_cluster, origin, mesh) = gateway().await;
    let request = |method: Method, uri: &str, fields: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    };
    let host = ("host", "shop.example.com");
    for (case, request, status) in [
        ("no Host", request(Method::GET, "/", &[]), 400),
        ("two Hosts", request(Method::GET, "/", &[host, host]), 400),
        (
            "a bad Host",
            request(Method::GET, "/", &[("host", "shop.example.com/x")]),
            400,
        ),
        (
            "user information",
            request(Method::GET, "/", &[("host", "a@shop.example.com")]),
            400,
        ),
        (
            "two lengths",
            request(
                Method::POST,
                "/",
                &[host, ("content-length", "0"), ("content-length", "1")],
            ),
            400,
        ),
        (
            "a list of codings",
            request(
                Method::POST,
                "/",
                &[host, ("transfer-encoding", "gzip, chunked")],
            ),
            501,
        ),
        (
            "chunked twice",
            request(
                Method::POST,
                "/",
                &[host, ("transfer-encoding", "chunked, chunked")],
            ),
            400,
        ),
        (
            "both framings",
            request(
                Method::POST,
                "/",
                &[
                    host,
                    ("transfer-encoding", "chunked"),
                    ("content-length", "1"),
                ],
            ),
            400,
        ),
        (
            "CONNECT",
            request(Method::CONNECT, "shop.example.com:443", &[host]),
            405,
        ),
        ("TRACE", request(Method::TRACE, "/", &[host]), 405),
        (
            "another scheme",
            request(Method::GET, "ftp://shop.example.com/", &[host]),
            400,
        ),
    ] {
        let response = mesh.handle(request).await.unwrap();
        let got = response.status().as_u16();
        assert!(
            got == status || (got / 100 == 4 && status == 501),
            "{case}: {got}"
        );
        assert_eq!(error_of(&response), "http_request_error", "{case}");
        assert_eq!(
            response.headers().contains_key("allow"),
            status == 405,
            "{case}"
        );
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn rfc9112_3_2_2_absolute_target_wins_over_host() {
    let (_cluster, origin, mesh) = gateway().await;
    let request = Request::get("http://shop.example.com/x").header(HOST, "evil.example");
    let response = mesh
        .handle(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let seen = origin.requests().remove(0);
    assert_eq!(seen.header_values("x-forwarded-host"), ["shop.example.com"]);
    assert_eq!(seen.host(), Some("web.default.svc.cluster.local"));
}

#[tokio::test]
async fn http10_clients_are_served_and_the_upstream_gets_http11() {
    let (_cluster, origin, mesh) = gateway().await;
    let mut request = get("shop.example.com", "/");
    *request.version_mut() = Version::HTTP_10;
    let response = mesh.handle(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(origin.requests()[0].version, Version::HTTP_11);
}

#[tokio::test]
async fn grpc_clients_get_errors_as_grpc_status() {
    let (_cluster, _origin, mesh) = gateway().await;
    for (path, code) in [("/missing/Method", "14"), ("/down/Method", "14")] {
        let mut request = get("shop.example.com", path);
        *request.method_mut() = Method::POST;
        request
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let response = mesh.handle(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], code, "{path}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }
}

#[tokio::test]
async fn rfc9110_9_3_2_head_gets_the_header_fields_of_get() {
    let (_cluster, _origin, mesh) = gateway().await;
    for (host, path) in [("unknown.example.com", "/"), ("shop.example.com", "/down/")] {
        let full = mesh.handle(get(host, path)).await.unwrap();
        let mut request = get(host, path);
        *request.method_mut() = Method::HEAD;
        let head = mesh.handle(request).await.unwrap();
        assert_eq!(head.status(), full.status());
        assert_eq!(head.headers()[CONTENT_TYPE], full.headers()[CONTENT_TYPE]);
        let length = full.body().size_hint().exact().unwrap();
        assert_eq!(head.headers()[CONTENT_LENGTH], length.to_string());
        assert!(length > 0 && head.body().is_end_stream());
    }
}

#[tokio::test]
async fn rfc9110_6_4_1_local_replies_have_no_body_where_the_status_forbids_it() {
    let cluster = Cluster::start().await;
    let mesh = cluster.mesh();
    let mesh = [200, 204, 205, 304].into_iter().fold(mesh, |mesh, status| {
        let status = StatusCode::from_u16(status).unwrap();
        mesh.route(Route::host(format!("s{}.example", status.as_u16())).respond(status))
    });
    let mesh = mesh.build().unwrap();
    for (host, length) in [
        ("s200.example", "200 OK\n".len() as u64),
        ("s204.example", 0),
        ("s205.example", 0),
        ("s304.example", 0),
    ] {
        let response = mesh.handle(get(host, "/")).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), Some(length), "{host}");
        let described = response.headers().contains_key(CONTENT_TYPE);
        assert_eq!(described, length > 0, "{host}");
    }
}

#[tokio::test]
async fn service_created_later_is_served_without_a_restart() {
    let (cluster, origin, mesh) = gateway().await;
    cluster.dns.set_fault(Some(Fault::ServFail));
    let late = format!("late.default:{}", origin.addr().port())
        .parse()
        .unwrap();
    mesh.set_routes([Route::host("late.example.com").path_prefix("/").to(late)])
        .unwrap();
    let response = mesh.handle(get("late.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error_of(&response), "dns_error");

    cluster.dns.set_fault(None);
    cluster.service(
        &format!("late.default:{}", origin.addr().port())
            .parse()
            .unwrap(),
        origin.addr().ip(),
    );
    let recovered = async {
        while mesh
            .handle(get("late.example.com", "/"))
            .await
            .unwrap()
            .status()
            != StatusCode::OK
        {
            tokio::task::yield_now().await;
        }
    };
    // Polls without a sleep; the limit is only for a gateway that never recovers.
    tokio::time::timeout(std::time::Duration::from_secs(20), recovered)
        .await
        .unwrap();
}

#[tokio::test]
async fn details_are_for_operators_only() {
    let cluster = Cluster::start().await;
    let route = || {
        Route::host("shop.example.com")
            .path_prefix("/")
            .to("web.default:80".parse().unwrap())
    };
    let open = cluster
        .mesh()
        .route(route())
        .expose_details(true)
        .build()
        .unwrap();
    let response = open.handle(get("shop.example.com", "/")).await.unwrap();
    let status = response.headers()["proxy-status"].to_str().unwrap();
    assert!(status.contains("; details=\""), "{status}");
    assert!(status.contains("web.default.svc.cluster.local"), "{status}");
}

#[test]
fn invalid_settings_are_refused() {
    let web = || "web.default:80".parse().unwrap();
    let twice = || Route::host("shop.example.com").path_prefix("/").to(web());
    let error = MeshIngress::builder().route(twice()).route(twice());
    let error = error
        .resolver(NeverResolves)
        .build()
        .unwrap_err()
        .to_string();
    assert!(error.contains("shop.example.com"), "{error}");
    let error = MeshIngress::builder().route(Route::host("shop.example.com").path_prefix("/"));
    assert!(
        error.resolver(NeverResolves).build().is_err(),
        "a route without a backend"
    );
    let error = MeshIngress::builder()
        .name("not a token")
        .resolver(NeverResolves)
        .build();
    assert!(error.unwrap_err().to_string().contains("not a token"));
}

#[derive(Debug)]
struct NeverResolves;

impl mesh_ingress::Resolve for NeverResolves {
    fn watch(&self, service: &mesh_ingress::ServiceRef) -> mesh_ingress::Watch {
        mesh_ingress::Watch::channel(service.clone()).1
    }
}

/// A connection remembers the host of its last request, and uses it only for requests that name it.
#[tokio::test]
async fn each_request_of_a_connection_is_routed_by_its_own_host() {
    let cluster = Cluster::start().await;
    let respond = |host: &str, status| Route::host(host).respond(status);
    let mesh = cluster
        .mesh()
        .route(respond("a.example", StatusCode::NO_CONTENT))
        .route(respond("b.example", StatusCode::RESET_CONTENT))
        .build()
        .unwrap();
    let peer = "192.0.2.7:1".parse().unwrap();
    let connection = mesh.for_connection(&Downstream::new(peer));
    for (host, status) in [
        ("a.example", 204),
        ("a.example", 204),
        ("b.example", 205),
        ("A.example", 204),
        ("a.example:8080", 204),
        ("b.example", 205),
        ("c.example", 404),
        ("b.exampl", 404),
        ("b.example", 205),
    ] {
        let response = connection.handle(get(host, "/")).await.unwrap();
        assert_eq!(response.status(), status, "{host}");
        // HTTP/2 names the host in the target only.
        let target = format!("http://{host}/");
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = target.parse().unwrap();
        *request.version_mut() = Version::HTTP_2;
        let response = connection.handle(request).await.unwrap();
        assert_eq!(response.status(), status, "{target}");
    }
    // An absolute target wins over the remembered host, and a repeated Host is refused.
    let mut request = get("b.example", "http://a.example/");
    assert_eq!(connection.handle(request).await.unwrap().status(), 204);
    request = get("b.example", "/");
    let b = HeaderValue::from_static("b.example");
    request.headers_mut().append(HOST, b);
    assert_eq!(connection.handle(request).await.unwrap().status(), 400);
}

/// The gateway generates a request id for the upstream; routes match the client's own fields only.
#[tokio::test]
async fn generated_request_id_does_not_decide_the_route() {
    let cluster = Cluster::start().await;
    let has_id = HeaderMatch::new("x-request-id", ValueMatch::Present);
    let mesh = cluster
        .mesh()
        .route(Route::any_host().respond(StatusCode::NO_CONTENT))
        .route(
            Route::any_host()
                .header_match(has_id)
                .respond(StatusCode::RESET_CONTENT),
        )
        .build()
        .unwrap();
    let peer = "192.0.2.7:1".parse().unwrap();
    let connection = mesh.for_connection(&Downstream::new(peer));
    let kept = HeaderValue::from_static("01234567-89ab-4def-8123-456789abcdef");
    for (id, status) in [(None, 204), (Some(kept), 205)] {
        let request = || {
            let mut request = get("shop.example.com", "/");
            let id = id.clone().map(|id| (X_REQUEST_ID, id));
            request.headers_mut().extend(id);
            request
        };
        for response in [
            connection.handle(request()).await,
            mesh.handle(request()).await,
        ] {
            assert_eq!(response.unwrap().status(), status);
        }
    }
}
