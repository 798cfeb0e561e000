//! The binary, from its command line to its exit code, with fakes of cluster DNS and of origins.
#![allow(clippy::unwrap_used, clippy::panic)]

mod command_line;
mod draining;
mod gateway;
mod settings;
mod websocket;

use std::time::Duration;

use gateway::{Gateway, exchange, exchange_raw};
use mesh_ingress_testkit::{Behaviour, DnsServer, Gate, Origin, RawOrigin, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Cluster DNS that knows `web.default`, and the gateway's options to serve it.
async fn cluster(origin: std::net::SocketAddr) -> (DnsServer, Vec<String>) {
    let dns = DnsServer::start().await.unwrap();
    let web = format!("web.default:{}", origin.port()).parse().unwrap();
    dns.add_service(&web, &"cluster.local".parse().unwrap(), origin.ip());
    let options = [
        "--dns",
        &dns.addr().to_string(),
        "--upstream-cidr",
        "127.0.0.0/8",
        "--route",
        &format!("shop.example.com/={web}"),
    ];
    (dns, options.map(str::to_owned).to_vec())
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn the_same_connection_upstream_serves_many_clients() {
    let origin = Origin::start().await.unwrap();
    let (_dns, mut options) = cluster(origin.addr()).await;
    // Connections are shared by the workers.
    options.extend(["--workers", "4"].map(str::to_owned));
    let gateway = Gateway::start(&options).await;
    for _ in 0..20 {
        let reply = exchange(gateway.addr, GET).await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    }
    assert_eq!(origin.connections(), 1);
    let seen = origin.requests().remove(4);
    assert_eq!(seen.host(), Some("web.default.svc.cluster.local"));
    assert_eq!(seen.header_values("x-forwarded-host"), ["shop.example.com"]);
    assert_eq!(seen.header_values("x-forwarded-for"), ["127.0.0.1"]);
    let port = gateway.addr.port().to_string();
    assert_eq!(seen.header_values("x-forwarded-port"), [&*port]);
}

#[tokio::test]
async fn http10_clients_are_served_and_closed() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let reply = exchange(
        gateway.addr,
        "GET / HTTP/1.0\r\nHost: shop.example.com\r\n\r\n",
    )
    .await;
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n"), "{reply}");
    assert_eq!(origin.requests()[0].version, http::Version::HTTP_11);
}

#[tokio::test]
async fn h2c_with_prior_knowledge_is_spoken_too() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let reply = gateway.h2c("http://shop.example.com/x").await;
    assert_eq!(reply.status(), http::StatusCode::OK);
    assert_eq!(
        origin.requests()[0].header("x-forwarded-host"),
        Some("shop.example.com")
    );
}

#[tokio::test]
async fn upgrades_pass_after_a_101_half_closes_included_rfc9110_7_8() {
    let origin = Origin::builder()
        .behaviour(Behaviour::UpgradeEcho)
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    // The first bytes of the new protocol come along with the request: they are not HTTP.
    let upgrade = "GET /chat HTTP/1.1\r\nHost: shop.example.com\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"early") {
        assert_ne!(
            client.read_buf(&mut got).await.unwrap(),
            0,
            "{:?}",
            String::from_utf8_lossy(&got)
        );
    }
    let head = String::from_utf8_lossy(&got).to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");

    client.write_all(b"more").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"more");
}

#[tokio::test]
async fn a_refused_upgrade_is_ordinary_http() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
                   GET /second HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n";
    let reply = exchange(gateway.addr, request).await;
    assert_eq!(reply.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{reply}");
}

#[tokio::test]
async fn smuggling_attempts_are_refused_and_the_connection_closed() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let second = "GET /second HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    for (case, begin) in [
        ("RFC 9112 3.2: no Host", "GET / HTTP/1.1\r\n\r\n"),
        (
            "RFC 9112 3.2: two Hosts",
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nHost: shop.example.com\r\n\r\n",
        ),
        (
            "RFC 9112 6.1: TE list",
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "RFC 9112 6.1: chunked twice",
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "RFC 9112 6.1: two TE lines",
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "RFC 9112 6.1: TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: shop.example.com\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "RFC 9112 6.3: two lengths",
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "RFC 9110 8.6: +0",
            "POST / HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: +0\r\n\r\n",
        ),
        (
            "RFC 9112 5.1: space before colon",
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX : y\r\n\r\n",
        ),
        (
            "RFC 9112 5.2: obs-fold",
            "GET / HTTP/1.1\r\nHost: shop.example.com\r\nX: y\r\n z\r\n\r\n",
        ),
        (
            "RFC 9110 9.3.6: CONNECT",
            "CONNECT shop.example.com:443 HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
        ),
        (
            "dot segments",
            "GET /a/../b HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
        ),
        (
            "encoded dot segments",
            "GET /a/%2e%2e/b HTTP/1.1\r\nHost: shop.example.com\r\n\r\n",
        ),
    ] {
        let reply = exchange(gateway.addr, &format!("{begin}{second}")).await;
        let status = reply.get(9..12).unwrap_or_default();
        assert!(["400", "405", "501"].contains(&status), "{case}: {reply}");
        assert_eq!(reply.matches("HTTP/1.").count(), 1, "{case}: {reply}");
    }
    assert_eq!(origin.requests().len(), 0, "{:?}", origin.requests());
}

#[tokio::test]
async fn a_truncated_response_looks_truncated() {
    let half = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        Step::Close,
    ];
    let origin = RawOrigin::start([half]).await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let reply = exchange_raw(gateway.addr, GET.as_bytes()).await;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    assert!(reply.contains("half"), "{reply}");
    assert!(!reply.ends_with("0\r\n\r\n"), "{reply}");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_upstream() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .behaviour(Behaviour::Gated(gate))
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    origin.wait_for_requests(1).await;
    drop(client);
    origin.wait_for_open_connections(0).await;
}

#[tokio::test]
async fn a_reset_is_noticed_although_more_bytes_wait_to_be_read() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .at("/head", Behaviour::Gated(gate.clone()))
        .at("/body", Behaviour::GatedBody(gate))
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    for (requests, path) in [(1, "/head"), (2, "/body")] {
        let mut client = TcpStream::connect(gateway.addr).await.unwrap();
        // An empty line after the body is allowed (RFC 9112 §2.2).
        let get = format!("GET {path} HTTP/1.1\r\nHost: shop.example.com\r\n\r\n\r\n");
        client.write_all(get.as_bytes()).await.unwrap();
        origin.wait_for_requests(requests).await;
        if path == "/body" {
            assert_ne!(client.read(&mut [0; 1024]).await.unwrap(), 0, "the head");
        }
        client.set_zero_linger().unwrap();
        drop(client);
        origin.wait_for_open_connections(0).await;
    }
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_upload_goes_on_rfc9112_9_6() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let gateway = Gateway::start(&options).await;
    for _ in 0..50 {
        let mut client = TcpStream::connect(gateway.addr).await.unwrap();
        let post = "POST / HTTP/1.1\r\nHost: nobody.example.com\r\nContent-Length: 5000000\r\n\r\n";
        client.write_all(post.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = client.split();
        let mut reply = Vec::new();
        let upload = async {
            // It may be cut off at any time: only the response counts.
            let _ = writer.write_all(&vec![b'x'; 5_000_000]).await;
        };
        let (read, ()) = tokio::join!(reader.read_to_end(&mut reply), upload);
        let head = String::from_utf8_lossy(&reply);
        assert!(head.starts_with("HTTP/1.1 404 "), "{read:?}: {head}");
    }
}

#[tokio::test]
async fn without_dns_it_answers_503_and_recovers() {
    let origin = Origin::start().await.unwrap();
    let (dns, options) = cluster(origin.addr()).await;
    let at = dns.addr();
    drop(dns);
    let gateway = Gateway::start(&options).await;
    let reply = exchange(gateway.addr, GET).await;
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    assert!(
        reply.contains("proxy-status: mesh-ingress; error=dns_error\r\n"),
        "{reply}"
    );

    let dns = DnsServer::start_on(at).await.unwrap();
    let web = format!("web.default:{}", origin.addr().port())
        .parse()
        .unwrap();
    dns.add_service(&web, &"cluster.local".parse().unwrap(), origin.addr().ip());
    let recovered = async {
        while !exchange(gateway.addr, GET)
            .await
            .starts_with("HTTP/1.1 200 ")
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), recovered)
        .await
        .unwrap();
}
