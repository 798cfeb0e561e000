//! The mesh that looks at addresses.
#![allow(clippy::unwrap_used)] // helpers of tests are tests, too

mod common;

use std::net::SocketAddr;

use common::{get, get2, http1, http2, raw, send1, send2};
use mesh_ingress_core::ServiceRef;
use mesh_ingress_testkit::{Origin, Verdict, VipRouter};
use tokio::net::TcpStream;

struct Mesh {
    router: VipRouter,
    services: [ServiceRef; 2],
    vips: [SocketAddr; 2],
    pods: [Origin; 2],
}

async fn mesh() -> Mesh {
    let services = ["web.shop:80", "api.shop:80"].map(|s| s.parse::<ServiceRef>().unwrap());
    let pods = [
        Origin::builder().name("web").start().await.unwrap(),
        Origin::builder().name("api").start().await.unwrap(),
    ];
    let router = VipRouter::new();
    let any = "127.0.0.1:0".parse().unwrap();
    let vips = [
        router
            .add_service(&services[0], any, pods[0].addr())
            .await
            .unwrap(),
        router
            .add_service(&services[1], any, pods[1].addr())
            .await
            .unwrap(),
    ];
    Mesh {
        router,
        services,
        vips,
        pods,
    }
}

#[tokio::test]
async fn the_address_decides_and_the_host_does_not() {
    let mesh = mesh().await;
    for (vip, name) in mesh.vips.into_iter().zip(["web", "api"]) {
        for host in ["shop.example.com", "api.shop.svc.cluster.local", "web.shop"] {
            let answer = send1(&mut http1(vip).await, get(host, "/")).await;
            assert_eq!(answer.header("x-origin"), Some(name), "{host}");
            let answer = send2(&http2(vip).await, get2(host, "/")).await;
            assert_eq!(answer.header("x-origin"), Some(name), "{host}");
        }
    }
    for (service, pod) in mesh.services.iter().zip(&mesh.pods) {
        assert_eq!(mesh.router.meshed(service), 6);
        assert_eq!(mesh.router.connections(service), 6);
        assert_eq!(pod.bypassed(), 0);
        assert_eq!(pod.requests()[0].mesh_router(), Some("vip"));
        assert_eq!(pod.requests()[0].host(), Some("shop.example.com"));
    }
    let outcome = mesh.router.outcomes().remove(0);
    assert_eq!(outcome.verdict, Verdict::Meshed);
    assert_eq!(outcome.connected_to, mesh.vips[0]);
    assert_eq!(outcome.service.as_ref(), Some(&mesh.services[0]));
    assert_eq!((mesh.router.passthrough(), mesh.router.blocked()), (0, 0));
}

#[tokio::test]
async fn a_pod_address_bypasses_the_mesh() {
    let mesh = mesh().await;
    let pod = &mesh.pods[0];
    let answer = send1(&mut http1(pod.addr()).await, get("web.shop", "/")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("server"), None);
    assert_eq!(pod.bypassed(), 1);
    assert!(mesh.router.outcomes().is_empty());
}

#[tokio::test]
async fn request_without_host_is_forwarded_at_an_unnamed_port() {
    let mesh = mesh().await;
    let old = raw(mesh.vips[0], "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK\r\n"), "{old}");
    let no_host = raw(mesh.vips[0], "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(no_host.contains(" 200 OK\r\n"), "{no_host}");
    assert_eq!(mesh.router.meshed(&mesh.services[0]), 2);
}

#[tokio::test]
async fn headers_are_those_of_envoy_or_none() {
    let mesh = mesh().await;
    let mut client = http1(mesh.vips[0]).await;
    let answer = send1(&mut client, get("web", "/")).await;
    assert_eq!(answer.header("server"), Some("envoy"));
    assert!(answer.header("x-envoy-upstream-service-time").is_some());
    mesh.router.set_envoy_headers(false);
    let answer = send1(&mut client, get("web", "/")).await;
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.header("x-envoy-upstream-service-time"), None);

    let requests = mesh.pods[0].requests();
    assert_eq!(requests[0].header("x-envoy-attempt-count"), Some("1"));
    assert!(requests[0].header("x-request-id").is_some());
    assert_eq!(requests[1].header("x-envoy-attempt-count"), None);
    assert_eq!(requests[1].header("x-request-id"), None);
    assert_eq!(requests[1].mesh_router(), Some("vip"));
}

#[tokio::test]
async fn a_service_can_have_several_addresses_move_and_go() {
    let mesh = mesh().await;
    let [web, api] = &mesh.services;
    let any = "127.0.0.1:0".parse().unwrap();
    let second = mesh
        .router
        .add_service(web, any, mesh.pods[0].addr())
        .await
        .unwrap();
    for vip in [mesh.vips[0], second] {
        send1(&mut http1(vip).await, get("web", "/")).await;
    }
    assert_eq!(mesh.router.meshed(web), 2);

    // The address changes hands: the old connections end.
    let kept = http1(second).await;
    mesh.router
        .add_service(api, second, mesh.pods[1].addr())
        .await
        .unwrap();
    let answer = send1(&mut http1(second).await, get("web", "/")).await;
    assert_eq!(answer.header("x-origin"), Some("api"));
    assert_eq!(mesh.router.meshed(api), 1);
    drop(kept);

    mesh.router.remove_service(web);
    assert!(TcpStream::connect(mesh.vips[0]).await.is_err());
    assert!(TcpStream::connect(second).await.is_ok());
}

#[cfg(target_os = "linux")] // elsewhere only 127.0.0.1 is there unless it is set up
#[tokio::test]
async fn loopback_addresses_serve_as_cluster_ips() {
    let pod = Origin::start().await.unwrap();
    let router = VipRouter::new();
    let [web, api] = ["web.shop:80", "api.shop:80"].map(|s| s.parse::<ServiceRef>().unwrap());
    let vip = router
        .add_service(&web, "127.0.1.7:0".parse().unwrap(), pod.addr())
        .await
        .unwrap();
    // The same port at another address is another Service.
    let other = SocketAddr::from(([127, 0, 1, 8], vip.port()));
    let other = router.add_service(&api, other, pod.addr()).await.unwrap();
    send1(&mut http1(vip).await, get("x", "/")).await;
    send1(&mut http1(other).await, get("x", "/")).await;
    send1(&mut http1(other).await, get("x", "/")).await;
    assert_eq!((router.meshed(&web), router.meshed(&api)), (1, 2));
    let taken = router.add_service(&web, pod.addr(), pod.addr()).await;
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}
