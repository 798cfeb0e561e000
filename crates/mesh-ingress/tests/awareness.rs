//! Mesh verdicts, identity restoring, `explain` and `doctor`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use http::header::{HOST, LOCATION, SERVER, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use mesh_ingress::headers::verdict::VerdictRules;
use mesh_ingress::{
    Backend, Body, Downstream, Explanation, Health, Mesh, MeshIngressBuilder, Route, Scheme,
    ServiceRef, Verdict, VhostPolicy,
};
use mesh_ingress_testkit::{Behaviour, Origin};
use support::{Cluster, get};

/// A gateway for `shop.example.com`, served by an origin as `web.default`.
async fn gateway(origin: &Origin) -> (Cluster, MeshIngressBuilder) {
    let cluster = Cluster::start().await;
    let web: ServiceRef = format!("web.default:{}", origin.addr().port())
        .parse()
        .unwrap();
    cluster.service(&web, origin.addr().ip());
    let route = Route::host("shop.example.com").path_prefix("/").to(web);
    let mesh = cluster.mesh().route(route);
    (cluster, mesh)
}

fn answering(fields: &'static [(&'static str, &'static str)]) -> Behaviour {
    Behaviour::handler(move |_| async move {
        let mut response = Response::new(Body::empty());
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        response
    })
}

#[tokio::test]
async fn public_identity_is_restored_and_internal_names_do_not_leak() {
    let origin = Origin::builder().behaviour(answering(&[
        (
            "location",
            "http://web.default.svc.cluster.local/login?next=%2F",
        ),
        (
            "set-cookie",
            "a=1; Domain=web.default.svc.cluster.local; Path=/",
        ),
        ("set-cookie", "b=2"),
        (
            "link",
            "<http://web.default.svc.cluster.local/2>; rel=next, <https://cdn.example/x>",
        ),
        ("server", "istio-envoy"),
        ("x-envoy-upstream-service-time", "3"),
        ("x-envoy-peer-metadata-id", "sidecar~10.0.0.7~web~default"),
    ]));
    let origin = origin.start().await.unwrap();
    let (_cluster, mesh) = gateway(&origin).await;
    let client = Downstream::new("203.0.113.7:4711".parse().unwrap()).scheme(Scheme::Https);
    let mesh = mesh.build().unwrap().for_connection(&client);
    let response = mesh
        .handle(get("shop.example.com:8443", "/"))
        .await
        .unwrap();
    let headers = response.headers();
    assert_eq!(
        headers[LOCATION],
        "https://shop.example.com:8443/login?next=%2F"
    );
    let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
    assert_eq!(
        headers["link"],
        "<https://shop.example.com:8443/2>; rel=next, <https://cdn.example/x>"
    );
    assert!(!headers.contains_key(SERVER));
    assert!(
        headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-envoy")),
        "{headers:?}"
    );
    assert_eq!(response.extensions().get(), Some(&Verdict::Meshed));
}

#[tokio::test]
async fn preserved_host_leaves_the_responses_as_they_are() {
    let location = [("location", "http://web.default.svc.cluster.local/")];
    let origin = Origin::builder().behaviour(answering(Box::leak(Box::new(location))));
    let origin = origin.start().await.unwrap();
    let cluster = Cluster::start().await;
    let web: ServiceRef = format!("web.default:{}", origin.addr().port())
        .parse()
        .unwrap();
    cluster.service(&web, origin.addr().ip());
    let backend = Backend::new(web).vhost(VhostPolicy::Preserve);
    let route = Route::any_host().path_prefix("/").to_backend(backend);
    let mesh = cluster.mesh().route(route).build().unwrap();
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.headers()[LOCATION], location[0].1);
    assert_eq!(origin.requests()[0].host(), Some("shop.example.com"));
}

#[tokio::test]
async fn verdicts_are_counted_and_require_mesh_refuses_unmeshed_responses() {
    let rules = || {
        VerdictRules::istio_sidecar()
            .to_builder()
            .cluster_field("x-cluster")
            .build()
            .unwrap()
    };
    let meshed = answering(&[("x-cluster", "outbound|80||web.default.svc.cluster.local")]);
    let passthrough = answering(&[("x-cluster", "PassthroughCluster")]);
    let unmarked = answering(&[("x-envoy-upstream-service-time", "1")]);
    let origin = Origin::builder().behaviour(meshed).start().await.unwrap();
    let (_cluster, lenient) = gateway(&origin).await;
    let lenient = lenient.verdict(rules()).build().unwrap();
    let (_cluster, strict) = gateway(&origin).await;
    let strict = strict.verdict(rules()).require_mesh(true).build().unwrap();

    for (behaviour, verdict, strict_status) in [
        (None, Verdict::Meshed, StatusCode::OK),
        (
            Some(passthrough),
            Verdict::Passthrough,
            StatusCode::BAD_GATEWAY,
        ),
        (Some(unmarked), Verdict::Unknown, StatusCode::BAD_GATEWAY),
    ] {
        if let Some(behaviour) = behaviour {
            origin.set_behaviour(behaviour);
        }
        let response = lenient.handle(get("shop.example.com", "/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.extensions().get(), Some(&verdict));
        let response = strict.handle(get("shop.example.com", "/")).await.unwrap();
        assert_eq!(response.status(), strict_status, "{verdict}");
        if strict_status != StatusCode::OK {
            let proxy_status = &response.headers()["proxy-status"];
            assert_eq!(proxy_status, "mesh-ingress; error=destination_unavailable");
        }
    }
    let counted = lenient.verdicts().remove(0);
    assert_eq!(
        (counted.meshed, counted.passthrough, counted.unknown),
        (1, 1, 1)
    );
    assert_eq!(counted.service.name(), "web");
}

#[tokio::test]
async fn linkerd_dst_override_is_set_by_the_gateway_and_never_by_clients() {
    let origin = Origin::start().await.unwrap();
    let (_cluster, mesh) = gateway(&origin).await;
    let mesh = mesh.mesh(Mesh::Linkerd).build().unwrap();
    let request = Request::get("/").header(HOST, "shop.example.com");
    let request = request.header("l5d-dst-override", "evil.default.svc.cluster.local:80");
    mesh.handle(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let expected = format!("web.default.svc.cluster.local:{}", origin.addr().port());
    assert_eq!(
        origin.requests()[0].header_values("l5d-dst-override"),
        [expected]
    );

    let (_cluster, mesh) = gateway(&origin).await;
    let mesh = mesh.build().unwrap();
    let request = Request::get("/").header(HOST, "shop.example.com");
    let request = request.header("l5d-dst-override", "evil.default.svc.cluster.local:80");
    mesh.handle(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(origin.requests()[1].header("l5d-dst-override"), None);
}

#[tokio::test]
async fn explain_agrees_with_dispatch_and_sends_nothing() {
    let origin = Origin::start().await.unwrap();
    let (cluster, mesh) = gateway(&origin).await;
    let canary = Route::host("canary.example.com")
        .path_prefix("/")
        .weighted([
            Backend::new("web.default:80".parse().unwrap()).weight(9),
            Backend::new("web-canary.default:80".parse().unwrap()).weight(1),
        ]);
    let mesh = mesh.route(canary).build().unwrap();
    // The address is looked up in the background.
    cluster.dns.wait_for_queries(1).await;
    let request = || {
        let mut request = get("shop.example.com", "/cart?id=7");
        let headers = request.headers_mut();
        headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx"));
        headers.insert("connection", HeaderValue::from_static("x-secret"));
        headers.insert("x-secret", HeaderValue::from_static("1"));
        request
    };
    mesh.handle(request()).await.unwrap();
    origin.clear_requests();

    let explained = mesh.explain(&request());
    assert_eq!(origin.requests().len(), 0);
    let text = explained.to_string();
    for line in [
        "service   web.default:",
        "vhost     web.default.svc.cluster.local",
        &format!("address   {}, confirmed ", origin.addr()),
        "protocol  http1",
        "target    /cart?id=7",
        "- host: shop.example.com\n+ host: web.default.svc.cluster.local",
        "- x-envoy-retry-on: 5xx",
        "- x-secret: 1",
        "+ x-forwarded-host: shop.example.com",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }

    let Explanation::Forward(backends) = mesh.explain(&get("canary.example.com", "/")) else {
        panic!("not forwarded");
    };
    let services: Vec<_> = backends
        .iter()
        .map(|backend| backend.service.name())
        .collect();
    assert_eq!(services, ["web", "web-canary"]);

    let refused = mesh.explain(&get("other.example.com", "/")).to_string();
    assert!(
        refused.starts_with("refused: no route matches"),
        "{refused}"
    );
}

#[tokio::test]
async fn doctor_names_the_likely_cause() {
    let origin = Origin::builder()
        .behaviour(answering(&[("x-cluster", "PassthroughCluster")]))
        .start()
        .await
        .unwrap();
    let (_cluster, mesh) = gateway(&origin).await;
    let rules = VerdictRules::builder()
        .cluster_field("x-cluster")
        .build()
        .unwrap();
    let missing = Route::host("b.example.com")
        .path_prefix("/")
        .to("missing.default:80".parse().unwrap());
    let mesh = mesh.verdict(rules).route(missing).build().unwrap();
    let findings = mesh.doctor().await;
    let text: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert!(
        text.contains("Host matched no virtual host of the mesh"),
        "{text}"
    );
    assert!(
        text.contains("missing.default:80: cluster DNS could not resolve"),
        "{text}"
    );
    let bad = findings
        .iter()
        .filter(|finding| finding.health == Health::Bad)
        .count();
    assert_eq!(bad, 2, "{text}");
    assert_eq!(mesh.sidecar_ready().await.map(|ready| ready.is_ok()), None);
}
