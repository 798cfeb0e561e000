//! End to end: cluster DNS, the gateway, and meshes that route by Host and by ClusterIP.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use http::header::HOST;
use http::{Request, StatusCode};
use mesh_ingress::resolve::{Resolve, Watch};
use mesh_ingress::{Backend, MeshIngress, Route, ServiceRef, Upstream, VhostPolicy};
use mesh_ingress_testkit::{HostRouter, Origin, OutboundPolicy, VipRouter};
use support::{Cluster, body_of, get};

/// Resolves every service to one address, as a gateway does that dials pods.
#[derive(Debug)]
struct Fixed(std::net::SocketAddr);

impl Resolve for Fixed {
    fn watch(&self, service: &ServiceRef) -> Watch {
        Watch::fixed(service.clone(), Upstream::new(self.0))
    }
}

#[tokio::test]
async fn every_request_is_meshed_by_host_and_by_clusterip() {
    let cluster = Cluster::start().await;
    let web = Origin::builder().name("web").start().await.unwrap();
    let api = Origin::builder().name("api").start().await.unwrap();
    let passthrough = Origin::builder().name("outside").start().await.unwrap();

    // Named http ports: one listener per port, the destination is in Host.
    let sidecar = HostRouter::start().await.unwrap();
    sidecar.set_passthrough(Some(passthrough.addr()));
    let ports = sidecar.addr().port();
    // Unnamed ports and ambient: the destination is the ClusterIP.
    let ambient = VipRouter::new();

    let mut routes = Vec::new();
    for (name, host, origin) in [
        ("web", "shop.example.com", &web),
        ("api", "api.example.com", &api),
    ] {
        let service: ServiceRef = format!("{name}.default:{ports}").parse().unwrap();
        cluster.service(&service, sidecar.addr().ip());
        sidecar.add_service(&service, &cluster.domain, None, origin.addr());
        routes.push(Route::host(host).path_prefix("/").to(service));

        let vip = "127.0.7.7:0".parse().unwrap();
        let service: ServiceRef = format!("{name}.ambient:80").parse().unwrap();
        let vip = ambient
            .add_service(&service, vip, origin.addr())
            .await
            .unwrap();
        let service: ServiceRef = format!("{name}.ambient:{}", vip.port()).parse().unwrap();
        cluster.service(&service, vip.ip());
        routes.push(
            Route::host(format!("ambient.{host}"))
                .path_prefix("/")
                .to(service),
        );
    }
    let mesh = cluster.mesh().routes(routes).build().unwrap();

    for _ in 0..50 {
        for (host, name) in [
            ("shop.example.com", "web"),
            ("api.example.com", "api"),
            ("ambient.shop.example.com", "web"),
            ("ambient.api.example.com", "api"),
        ] {
            let response = mesh.handle(get(host, "/")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["x-origin"], name);
        }
    }
    assert_eq!(sidecar.outcomes().len(), 100);
    assert_eq!(sidecar.passthrough() + sidecar.blocked(), 0);
    assert_eq!(web.bypassed() + api.bypassed() + passthrough.bypassed(), 0);
}

#[tokio::test]
async fn without_the_vhost_a_sidecar_passes_requests_out_of_the_mesh() {
    let cluster = Cluster::start().await;
    let web = Origin::builder().name("web").start().await.unwrap();
    let outside = Origin::builder().name("outside").start().await.unwrap();
    let sidecar = HostRouter::start().await.unwrap();
    sidecar.set_passthrough(Some(outside.addr()));
    let service: ServiceRef = format!("web.default:{}", sidecar.addr().port())
        .parse()
        .unwrap();
    cluster.service(&service, sidecar.addr().ip());
    sidecar.add_service(&service, &cluster.domain, None, web.addr());

    let public = Backend::new(service.clone()).vhost(VhostPolicy::Preserve);
    let route = Route::host("shop.example.com").path_prefix("/");
    let mesh = cluster
        .mesh()
        .route(route.to_backend(public))
        .build()
        .unwrap();

    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.headers()["x-origin"], "outside");
    assert_eq!((sidecar.meshed(&service), sidecar.passthrough()), (0, 1));

    sidecar.set_outbound_policy(OutboundPolicy::RegistryOnly);
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(sidecar.blocked(), 1);
}

#[tokio::test]
async fn without_the_clusterip_requests_bypass_ambient() {
    let cluster = Cluster::start().await;
    let pod = Origin::builder().name("pod").start().await.unwrap();
    let ambient = VipRouter::new();
    let service: ServiceRef = "web.default:80".parse().unwrap();
    let vip = "127.0.7.8:0".parse().unwrap();
    let vip = ambient
        .add_service(&service, vip, pod.addr())
        .await
        .unwrap();
    let reached: ServiceRef = format!("web.default:{}", vip.port()).parse().unwrap();
    cluster.service(&reached, vip.ip());

    let route = Route::host("shop.example.com").path_prefix("/");
    let by_clusterip = cluster
        .mesh()
        .route(route.clone().to(reached))
        .build()
        .unwrap();
    by_clusterip
        .handle(get("shop.example.com", "/"))
        .await
        .unwrap();
    assert_eq!((ambient.meshed(&service), pod.bypassed()), (1, 0));

    let by_pod = MeshIngress::builder()
        .route(route.to(service.clone()))
        .resolver(Fixed(pod.addr()))
        .build()
        .unwrap();
    by_pod.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!((ambient.meshed(&service), pod.bypassed()), (1, 1));
}

#[tokio::test]
async fn weighted_backends_carry_their_own_host_and_address() {
    let cluster = Cluster::start().await;
    let [stable, canary] = ["stable", "canary"].map(|name| Origin::builder().name(name));
    let (stable, canary) = (stable.start().await.unwrap(), canary.start().await.unwrap());
    let backend = |name: &str, origin: &Origin, weight| {
        let service: ServiceRef = format!("{name}.default:{}", origin.addr().port())
            .parse()
            .unwrap();
        cluster.service(&service, origin.addr().ip());
        Backend::new(service).weight(weight)
    };
    let route = Route::host("shop.example.com").path_prefix("/");
    let route = route.weighted([
        backend("web", &stable, 80),
        backend("web-canary", &canary, 20),
    ]);
    let mesh = cluster.mesh().route(route).build().unwrap();
    for _ in 0..200 {
        let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
        let name = response.headers()["x-origin"].clone();
        let body = body_of(response).await;
        let vhost = if name == "stable" {
            "web"
        } else {
            "web-canary"
        };
        assert!(
            body.contains(&format!("\nhost: {vhost}.default.svc.cluster.local\n")),
            "{body}"
        );
    }
    // 200 draws at 20 %: six sigma are 34.
    let drawn = canary.requests().len();
    assert!((6..=74).contains(&drawn), "{drawn}");
}

#[tokio::test]
async fn routes_are_swapped_while_requests_go_on() {
    let cluster = Cluster::start().await;
    let [old, new] = ["old", "new"].map(|name| Origin::builder().name(name));
    let gate = mesh_ingress_testkit::Gate::new();
    let old = old
        .at(
            "/slow",
            mesh_ingress_testkit::Behaviour::Gated(gate.clone()),
        )
        .start()
        .await
        .unwrap();
    let new = new.start().await.unwrap();
    let route = |name: &str, origin: &Origin| {
        let service: ServiceRef = format!("{name}.default:{}", origin.addr().port())
            .parse()
            .unwrap();
        cluster.service(&service, origin.addr().ip());
        Route::host("shop.example.com").path_prefix("/").to(service)
    };
    let mesh = cluster.mesh().route(route("old", &old)).build().unwrap();
    let slow = tokio::spawn(mesh.handle(get("shop.example.com", "/slow")));
    old.wait_for_requests(1).await;

    mesh.set_routes([route("new", &new)]).unwrap();
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.headers()["x-origin"], "new");
    // An invalid table changes nothing.
    let broken = [route("new", &new), route("old", &old)];
    assert!(
        mesh.set_routes(broken).is_err(),
        "two routes for one host and path"
    );
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.headers()["x-origin"], "new");

    gate.open();
    let response = slow.await.unwrap().unwrap();
    assert_eq!(response.headers()["x-origin"], "old");
}

#[tokio::test]
async fn fields_about_the_client_are_sent_once() {
    let cluster = Cluster::start().await;
    let web = Origin::builder().name("web").start().await.unwrap();
    let service: ServiceRef = format!("web.default:{}", web.addr().port())
        .parse()
        .unwrap();
    cluster.service(&service, web.addr().ip());
    let route = Route::host("shop.example.com").path_prefix("/").to(service);
    let mesh = cluster.mesh().route(route).build().unwrap();
    let client = mesh_ingress::Downstream::new("203.0.113.7:4711".parse().unwrap())
        .scheme(mesh_ingress::Scheme::Https)
        .listener_port(443);
    let request = Request::get("/a%2Fb?c")
        .header(HOST, "shop.example.com")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-host", "evil.example")
        .header("x-envoy-retry-on", "5xx")
        .header("connection", "x-forwarded-host, x-secret")
        .header("x-secret", "1")
        .body(mesh_ingress::Body::empty())
        .unwrap();
    mesh.for_connection(&client).handle(request).await.unwrap();
    let seen = web.requests().remove(0);
    for (name, value) in [
        ("host", "web.default.svc.cluster.local"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-host", "shop.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "203.0.113.7"),
    ] {
        assert_eq!(seen.header_values(name), [value], "{name}");
    }
    for name in ["x-envoy-retry-on", "x-secret", "connection", "forwarded"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.uri, "/a%2Fb?c");
    assert_eq!(seen.header("x-request-id").unwrap().len(), 36);
}
