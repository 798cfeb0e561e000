//! The sidecar at a named http port.
#![allow(clippy::unwrap_used)] // helpers of tests are tests, too

mod common;

use common::{get, get2, http1, http2, raw, send1, send2, with_trailers};
use http::{HeaderMap, Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use mesh_ingress_core::{Body, ClusterDomain, ServiceRef};
use mesh_ingress_testkit::{
    Behaviour, BodyEnd, Gate, HostRouter, Origin, OutboundPolicy, RawOrigin, Step, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VHOST: &str = "web.shop.svc.cluster.local";

struct Mesh {
    router: HostRouter,
    web: ServiceRef,
    pod: Origin,
    internet: Origin,
}

/// A sidecar that knows one Service, `web.shop:http`.
async fn mesh(behaviour: Behaviour) -> Mesh {
    let web: ServiceRef = "web.shop:http".parse().unwrap();
    let pod = Origin::builder().name("pod").behaviour(behaviour);
    let pod = pod.start().await.unwrap();
    let internet = Origin::builder().name("internet").start().await.unwrap();
    let router = HostRouter::start().await.unwrap();
    let ip = Some("10.96.0.7".parse().unwrap());
    router.add_service(&web, &ClusterDomain::default(), ip, pod.addr());
    router.set_passthrough(Some(internet.addr()));
    Mesh {
        router,
        web,
        pod,
        internet,
    }
}

#[tokio::test]
async fn the_host_decides_and_every_spelling_istio_generates_counts() {
    let mesh = mesh(Behaviour::Echo).await;
    let mut one = http1(mesh.router.addr()).await;
    let two = http2(mesh.router.addr()).await;
    let mut meshed = 0;
    for host in [
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
        "web.shop.svc",
        "web.shop",
        "10.96.0.7",
        "web.shop.svc.cluster.local:80",
        "web.shop.svc.cluster.local:12345",
        "Web.Shop.SVC.cluster.local",
    ] {
        let answer = send1(&mut one, get(host, "/")).await;
        assert_eq!(answer.header("x-origin"), Some("pod"), "{host}");
        let answer = send2(&two, get2(host, "/")).await;
        assert_eq!(answer.header("x-origin"), Some("pod"), "{host}");
        meshed += 2;
    }
    assert_eq!(mesh.router.meshed(&mesh.web), meshed);
    assert_eq!(mesh.router.passthrough(), 0);
    assert_eq!(mesh.pod.bypassed(), 0);

    for (index, host) in ["web", "shop.example.com", "web.other", "127.0.0.1"]
        .into_iter()
        .enumerate()
    {
        let answer = send1(&mut one, get(host, "/")).await;
        assert_eq!(answer.header("x-origin"), Some("internet"), "{host}");
        assert_eq!(mesh.router.passthrough(), index as u64 + 1);
    }
    assert_eq!(mesh.router.meshed(&mesh.web), meshed);
    assert_eq!(mesh.internet.bypassed(), 4);
}

#[tokio::test]
async fn the_bare_name_is_for_the_namespace_of_the_gateway() {
    let mesh = mesh(Behaviour::Echo).await;
    mesh.router.set_namespace("shop");
    let mut client = http1(mesh.router.addr()).await;
    let answer = send1(&mut client, get("web", "/")).await;
    assert_eq!(answer.header("x-origin"), Some("pod"));
    mesh.router.remove_service(&mesh.web);
    let answer = send1(&mut client, get("web", "/")).await;
    assert_eq!(answer.header("x-origin"), Some("internet"));
}

#[tokio::test]
async fn headers_are_those_of_envoy_and_only_x_mesh_router_tells_the_paths_apart() {
    let mesh = mesh(Behaviour::Echo).await;
    let mut client = http1(mesh.router.addr()).await;
    for host in [VHOST, "shop.example.com"] {
        let mut request = get(host, "/");
        let headers = request.headers_mut();
        headers.insert("x-mesh-router", "forged".parse().unwrap());
        headers.insert("x-forwarded-client-cert", "forged".parse().unwrap());
        headers.insert("x-envoy-attempt-count", "7".parse().unwrap());
        let answer = send1(&mut client, request).await;
        assert_eq!(answer.header("server"), Some("envoy"));
        let time = answer.header("x-envoy-upstream-service-time").unwrap();
        assert!(time.parse::<u64>().is_ok(), "{time}");
    }
    let requests = [&mesh.pod, &mesh.internet].map(|origin| origin.requests().remove(0));
    for request in &requests {
        assert_eq!(request.header_values("x-envoy-attempt-count"), ["1"]);
        assert_eq!(request.header("x-forwarded-proto"), Some("http"));
        assert_eq!(request.header("x-forwarded-client-cert"), None);
        assert_eq!(request.header("x-request-id").unwrap().len(), 36);
    }
    assert_eq!(requests[0].mesh_router(), Some("host"));
    assert_eq!(requests[0].host(), Some(VHOST));
    assert_eq!(requests[1].mesh_router(), None);

    // Present fields are kept.
    mesh.router.set_passthrough_attempt_count(false);
    let mut request = get("shop.example.com", "/");
    let id = "8f14e45f-ceea-467f-a0e6-1d3f2b7c9a10";
    request
        .headers_mut()
        .insert("x-request-id", id.parse().unwrap());
    request
        .headers_mut()
        .insert("x-forwarded-proto", "https".parse().unwrap());
    send1(&mut client, request).await;
    let request = mesh.internet.requests().remove(1);
    assert_eq!(request.header("x-request-id"), Some(id));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-envoy-attempt-count"), None);
}

#[tokio::test]
async fn an_unknown_host_is_treated_by_the_outbound_policy() {
    let mesh = mesh(Behaviour::Echo).await;
    mesh.router
        .set_outbound_policy(OutboundPolicy::RegistryOnly);
    let mut client = http1(mesh.router.addr()).await;
    let blocked = send1(&mut client, get("shop.example.com:8080", "/a?b")).await;
    assert_eq!(blocked.status, StatusCode::BAD_GATEWAY);
    assert_eq!(blocked.header("server"), Some("envoy"));
    assert_eq!(blocked.header("x-envoy-upstream-service-time"), None);
    assert!(blocked.body.is_empty());
    // Known destinations are still served.
    assert_eq!(send1(&mut client, get(VHOST, "/")).await.status, 200);

    mesh.router.set_outbound_policy(OutboundPolicy::AllowAny);
    mesh.router.set_passthrough(None);
    let nowhere = send1(&mut client, get("shop.example.com", "/")).await;
    assert_eq!(nowhere.status, StatusCode::SERVICE_UNAVAILABLE);

    let outcomes = mesh.router.outcomes();
    let verdicts: Vec<_> = outcomes.iter().map(|outcome| outcome.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Blocked, Verdict::Meshed, Verdict::Passthrough]
    );
    assert_eq!(outcomes[0].service, None);
    assert_eq!(outcomes[0].host(), Some("shop.example.com"));
    assert_eq!(outcomes[0].port(), Some(8080));
    assert_eq!(outcomes[0].target, "/a?b");
    assert_eq!(outcomes[0].connected_to, mesh.router.addr());
    assert_eq!(outcomes[1].service, Some(mesh.web.clone()));
    assert_eq!(outcomes[1].authority.as_deref(), Some(VHOST));
    assert_eq!(outcomes[1].port(), None);
    assert_eq!(mesh.router.blocked(), 1);
    assert_eq!(mesh.router.connections(), 1);
    assert!(mesh.internet.requests().is_empty());

    mesh.router.clear_outcomes();
    assert_eq!(mesh.router.blocked(), 0);
    tokio::join!(mesh.router.wait_for_outcomes(1), async {
        send1(&mut client, get(VHOST, "/")).await;
    });
}

#[tokio::test]
async fn http_1_0_is_answered_426_unless_allowed() {
    let mesh = mesh(Behaviour::Echo).await;
    let request = format!("GET / HTTP/1.0\r\nhost: {VHOST}\r\n\r\n");
    let refused = raw(mesh.router.addr(), &request).await;
    assert!(refused.contains(" 426 Upgrade Required\r\n"), "{refused}");
    assert_eq!(mesh.router.blocked(), 1);
    mesh.router.set_http10(true);
    let served = raw(mesh.router.addr(), &request).await;
    assert!(served.contains(" 200 OK\r\n"), "{served}");
    assert_eq!(mesh.router.meshed(&mesh.web), 1);
}

#[tokio::test]
async fn unroutable_request_is_refused() {
    let mesh = mesh(Behaviour::Echo).await;
    let addr = mesh.router.addr();
    let no_host = raw(addr, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(no_host.starts_with("HTTP/1.1 400 "), "{no_host}");
    let connect =
        format!("CONNECT {VHOST}:80 HTTP/1.1\r\nhost: {VHOST}:80\r\nconnection: close\r\n\r\n");
    let connect = raw(addr, &connect).await;
    assert!(connect.starts_with("HTTP/1.1 404 "), "{connect}");
    assert_eq!(mesh.router.blocked(), 2);

    let gone = mesh.pod.addr();
    drop(mesh.pod);
    let mut client = http1(addr).await;
    let answer = send1(&mut client, get(VHOST, "/")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().starts_with("upstream connect error"));
    // It comes back, and so does the way to it.
    let _pod = Origin::builder().bind(gone).await.unwrap();
    assert_eq!(send1(&mut client, get(VHOST, "/")).await.status, 200);
}

#[tokio::test]
async fn bodies_and_trailers_stream_through() {
    const LENGTH: u64 = 5_000_000;
    let mesh = mesh(Behaviour::StreamChunked(LENGTH)).await;
    let mut one = http1(mesh.router.addr()).await;
    let two = http2(mesh.router.addr()).await;
    assert_eq!(
        send1(&mut one, get(VHOST, "/")).await.body.len() as u64,
        LENGTH
    );
    assert_eq!(
        send2(&two, get2(VHOST, "/")).await.body.len() as u64,
        LENGTH
    );

    mesh.pod.set_behaviour(Behaviour::EchoBody);
    mesh.pod.clear_requests();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let request = Request::post("/")
        .header("host", VHOST)
        .header("te", "trailers")
        .header("trailer", "grpc-status")
        .body(with_trailers(b"ping", trailers.clone()))
        .unwrap();
    let answer = send1(&mut one, request).await;
    assert_eq!(
        (answer.text(), answer.trailers.as_ref()),
        ("ping", Some(&trailers))
    );
    let request = Request::post(format!("http://{VHOST}/"))
        .header("te", "trailers")
        .body(with_trailers(b"ping", trailers.clone()))
        .unwrap();
    let answer = send2(&two, request).await;
    assert_eq!(
        (answer.text(), answer.trailers.as_ref()),
        ("ping", Some(&trailers))
    );

    let requests = mesh.pod.requests();
    assert_eq!(requests[0].version, Version::HTTP_11);
    assert_eq!(requests[1].version, Version::HTTP_2);
    for request in requests {
        assert_eq!(request.trailers, Some(trailers.clone()));
        assert_eq!(request.header("te"), Some("trailers"));
    }
    // A connection down, a connection up.
    assert_eq!(mesh.pod.connections(), 2);
}

#[tokio::test]
async fn a_response_is_passed_on_before_its_body_is_there() {
    let gate = Gate::new();
    let mesh = mesh(Behaviour::GatedBody(gate.clone())).await;
    let mut client = http1(mesh.router.addr()).await;
    let response = client.send_request(get(VHOST, "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    gate.open();
    assert_eq!(common::Answer::of(response).await.text(), "ok\n");
}

#[tokio::test]
async fn connection_fields_end_at_the_router() {
    let mesh = mesh(Behaviour::Echo).await;
    let request = format!(
        "GET http://{VHOST}/a HTTP/1.1\r\nhost: other\r\nconnection: close, x-private\r\n\
         connection: x-more\r\nx-private: 1\r\nx-more: 2\r\nkeep-alive: 5\r\nproxy-connection: x\r\n\
         upgrade: h2c\r\nte: gzip\r\nx-kept: 3\r\n\r\n"
    );
    let response = raw(mesh.router.addr(), &request).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let received = mesh.pod.requests().remove(0);
    // An absolute target overrides Host (RFC 9112 §3.2.2).
    assert_eq!(received.host(), Some(VHOST));
    assert_eq!(received.uri, "/a");
    assert_eq!(received.header("x-kept"), Some("3"));
    for name in [
        "connection",
        "x-private",
        "x-more",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
    ] {
        assert_eq!(received.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_websocket_goes_through_and_no_other_upgrade() {
    let mesh = mesh(Behaviour::UpgradeEcho).await;
    let upgrade = |to: &str| {
        let mut request = get(VHOST, "/");
        let headers = request.headers_mut();
        headers.insert("upgrade", to.parse().unwrap());
        headers.insert("connection", "Upgrade".parse().unwrap());
        request
    };
    let mut client = http1(mesh.router.addr()).await;
    let response = client.send_request(upgrade("websocket")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["server"], "envoy");
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    tunnel.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
    drop(tunnel);
    mesh.pod.wait_for_open_connections(0).await;

    let mut client = http1(mesh.router.addr()).await;
    let refused = send1(&mut client, upgrade("spdy/3.1")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    // An origin that does not want it answers as it likes.
    mesh.pod.set_behaviour(Behaviour::Echo);
    let declined = send1(&mut client, upgrade("websocket")).await;
    assert_eq!(declined.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_the_upstream_request_with_it() {
    let gate = Gate::new();
    let mesh = mesh(Behaviour::Gated(gate)).await;
    let mut client = http1(mesh.router.addr()).await;
    let answer = tokio::spawn(client.send_request(get(VHOST, "/")));
    mesh.pod.wait_for_requests(1).await;
    drop(client);
    answer.abort();
    mesh.pod.wait_for_open_connections(0).await;

    // On HTTP/2 one stream goes, the connection stays.
    mesh.pod.set_behaviour(Behaviour::Drain);
    let mut client = http2(mesh.router.addr()).await;
    let (body, writer) = endless();
    let request = Request::post(format!("http://{VHOST}/"))
        .body(body)
        .unwrap();
    let answer = tokio::spawn(client.send_request(request));
    writer.open();
    mesh.pod
        .wait_until(|r| r.len() == 2 && r[1].body_len > 0)
        .await;
    answer.abort();
    mesh.pod
        .wait_until(|r| r[1].body_end == BodyEnd::Aborted)
        .await;
    assert_eq!(mesh.pod.open_connections(), 1);
}

/// A body that sends one byte once its gate is open, and never ends.
fn endless() -> (Body, Gate) {
    let gate = Gate::new();
    let opened = gate.clone();
    let mut opened = Box::pin(async move { opened.opened().await });
    let mut sent = false;
    let body = PollFn(move |cx: &mut std::task::Context<'_>| {
        if sent || opened.as_mut().poll(cx).is_pending() {
            return std::task::Poll::Pending;
        }
        sent = true;
        let byte = bytes::Bytes::from_static(b"x");
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(byte))))
    });
    (Body::new(body), gate)
}

struct PollFn<F>(F);

impl<F> http_body::Body for PollFn<F>
where
    F: FnMut(&mut std::task::Context<'_>) -> PolledFrame + Unpin,
{
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> PolledFrame {
        (self.0)(cx)
    }
}

type PolledFrame =
    std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>>>;

#[tokio::test]
async fn a_kept_connection_that_the_origin_has_closed_is_no_error() {
    let ok = || {
        vec![
            Step::ReadHead,
            Step::send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
            Step::Close,
        ]
    };
    let origin = RawOrigin::start([ok()]).await.unwrap();
    let router = HostRouter::start().await.unwrap();
    let web: ServiceRef = "web.shop:http".parse().unwrap();
    router.add_service(&web, &ClusterDomain::default(), None, origin.addr());
    let mut client = http1(router.addr()).await;
    for round in 0..3 {
        assert_eq!(send1(&mut client, get(VHOST, "/")).await.status, 200);
        origin.wait_for_closed(round).await;
    }
    assert_eq!(origin.connections(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_router_frees_its_port_and_closes_its_connections() {
    let mesh = mesh(Behaviour::Echo).await;
    let addr = mesh.router.addr();
    let mut client = http1(addr).await;
    send1(&mut client, get(VHOST, "/")).await;
    drop(mesh.router);
    mesh.pod.wait_for_open_connections(0).await;
    let router = HostRouter::start_on(addr).await.unwrap();
    assert_eq!(router.addr(), addr);
}
