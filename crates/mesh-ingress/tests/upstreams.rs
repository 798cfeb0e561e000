//! Error pages, and the gateway's connections to services.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use mesh_ingress::forward::{FailureAccrual, Forwarder};
use mesh_ingress::resolve::Balance;
use mesh_ingress::{Body, MeshIngress, Resolve, Route, ServiceRef, Upstream, Watch};
use mesh_ingress_testkit::Origin;
use support::{Cluster, body_of, get};

#[tokio::test]
async fn custom_error_pages_keep_proxy_status() {
    let cluster = Cluster::start().await;
    let mesh = cluster
        .mesh()
        .route(Route::any_host().to("missing.default:80".parse().unwrap()))
        .error_page(|error, response| {
            let (mut parts, _) = response.into_parts();
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            parts.headers.insert(CONTENT_TYPE, html);
            Response::from_parts(parts, Body::from(format!("<h1>{}</h1>", error.kind())))
        })
        .build()
        .unwrap();
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers();
    assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(headers[CACHE_CONTROL], "no-store");
    assert_eq!(headers["proxy-status"], "mesh-ingress; error=dns_error");
    assert_eq!(body_of(response).await, "<h1>dns_error</h1>");
}

#[tokio::test]
async fn grpc_clients_get_no_error_pages() {
    let cluster = Cluster::start().await;
    let mesh = cluster
        .mesh()
        .route(Route::any_host().to("missing.default:80".parse().unwrap()))
        .error_page(|_, _| Response::new(Body::from("<h1>no gRPC</h1>")))
        .build()
        .unwrap();
    let mut request = get("shop.example.com", "/svc/M");
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert(CONTENT_TYPE, grpc);
    let response = mesh.handle(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(body_of(response).await, "");
}

#[tokio::test]
async fn warm_up_opens_the_connections() {
    let cluster = Cluster::start().await;
    let origin = Origin::start().await.unwrap();
    let web: ServiceRef = format!("web.default:{}", origin.addr().port())
        .parse()
        .unwrap();
    cluster.service(&web, origin.addr().ip());
    let mesh = cluster
        .mesh()
        .route(Route::host("shop.example.com").to(web))
        .route(Route::host("gone.example.com").to("gone.default:80".parse().unwrap()))
        .build()
        .unwrap();
    let failed = mesh.warm_up(3).await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0.to_string(), "gone.default:80");
    origin.wait_for_open_connections(3).await;
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(origin.connections(), 3);
}

/// A resolver whose one service moves on the test's command.
#[derive(Debug)]
struct Moving(Watch);

impl Resolve for Moving {
    fn watch(&self, _: &ServiceRef) -> Watch {
        self.0.clone()
    }
}

#[tokio::test]
async fn moved_service_leaves_no_connection_to_its_old_address() {
    let (before, after) = (
        Origin::start().await.unwrap(),
        Origin::start().await.unwrap(),
    );
    let web: ServiceRef = "web.default:80".parse().unwrap();
    let (sender, watch) = Watch::channel(web.clone());
    sender.send(Upstream::new(before.addr()));
    let mesh = MeshIngress::builder()
        .resolver(Moving(watch))
        // Only the move may close the connection.
        .forwarder(Forwarder::builder().idle_timeout(None).build())
        .route(Route::any_host().to(web))
        .build()
        .unwrap();
    body_of(mesh.handle(get("shop.example.com", "/")).await.unwrap()).await;
    assert_eq!(before.open_connections(), 1);
    sender.send(Upstream::new(after.addr()));
    body_of(mesh.handle(get("shop.example.com", "/")).await.unwrap()).await;
    before.wait_for_open_connections(0).await;
    assert_eq!(after.open_connections(), 1);
}

/// Requests go to the addresses in turn, which is not a move of the service.
#[tokio::test]
async fn service_with_several_addresses_keeps_connections_to_each() {
    let (one, other) = (
        Origin::start().await.unwrap(),
        Origin::start().await.unwrap(),
    );
    let web: ServiceRef = "web.default:80".parse().unwrap();
    let (sender, watch) = Watch::channel(web.clone());
    sender.send_spread(&[one.addr(), other.addr()], Balance::RoundRobin);
    let mesh = MeshIngress::builder()
        .resolver(Moving(watch))
        .route(Route::any_host().to(web))
        .build()
        .unwrap();
    for _ in 0..6 {
        body_of(mesh.handle(get("shop.example.com", "/")).await.unwrap()).await;
    }
    assert_eq!((one.connections(), other.connections()), (1, 1));
    // Once only one address is left, a move from it is like any other.
    sender.send(Upstream::new(one.addr()));
    body_of(mesh.handle(get("shop.example.com", "/")).await.unwrap()).await;
    assert_eq!(one.connections(), 1);
    sender.send(Upstream::new(other.addr()));
    body_of(mesh.handle(get("shop.example.com", "/")).await.unwrap()).await;
    one.wait_for_open_connections(0).await;
    assert_eq!(other.connections(), 1);
}

#[tokio::test]
async fn failing_upstream_is_ejected() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // Connections are refused from here on: the system does not hand a port out again so soon.
    drop(listener);
    let web: ServiceRef = "web.default:80".parse().unwrap();
    let accrual = FailureAccrual::builder()
        .consecutive_failures(2)
        .sustained(Duration::ZERO)
        .build()
        .unwrap();
    let mesh = MeshIngress::builder()
        .resolver(Moving(Watch::fixed(web.clone(), Upstream::new(addr))))
        .forwarder(Forwarder::builder().failure_accrual(accrual).build())
        .route(Route::any_host().to(web))
        .build()
        .unwrap();
    let mesh = Arc::new(mesh);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
        statuses.push((
            response.status().as_u16(),
            response.headers().contains_key("retry-after"),
        ));
    }
    assert_eq!(statuses, [(502, false), (502, false), (503, true)]);
}
