//! The binary, from its command line to its exit code, with fakes of cluster DNS and of origins.
#![allow(clippy::unwrap_used, clippy::panic)]

mod gateway;
mod settings;
mod websocket;

use std::process::Stdio;
use std::time::Duration;

use gateway::{Gateway, binary, exchange, exchange_raw};
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
    // Whichever of them a client comes to.
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
async fn what_a_smuggler_sends_is_refused_and_the_connection_closed() {
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
        // The last line end belongs to nothing, and may be there (RFC 9112 §2.2).
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
            // Cut off some time, which is no matter: what counts is the answer.
            let _ = writer.write_all(&vec![b'x'; 5_000_000]).await;
        };
        let (read, ()) = tokio::join!(reader.read_to_end(&mut reply), upload);
        let head = String::from_utf8_lossy(&reply);
        assert!(head.starts_with("HTTP/1.1 404 "), "{read:?}: {head}");
    }
}

#[tokio::test]
async fn while_it_drains_clients_are_told_to_go_and_none_is_cut_off() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .at("/slow", Behaviour::Gated(gate.clone()))
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let mut gateway = Gateway::start(&options).await;
    let slow = GET.replace("/x", "/slow");
    let addr = gateway.addr;
    let slow = tokio::spawn(async move { exchange(addr, &slow).await });
    // An idle connection that has been used before.
    let mut kept = TcpStream::connect(gateway.addr).await.unwrap();
    let get = "GET /x HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";
    kept.write_all(get.as_bytes()).await.unwrap();
    let mut reply = vec![0; 4096];
    let read = kept.read(&mut reply).await.unwrap();
    assert!(
        !String::from_utf8_lossy(&reply[..read])
            .to_lowercase()
            .contains("connection: close")
    );
    origin.wait_for_requests(2).await;

    // Its next request is on its way when the gateway is told to stop.
    gateway.terminate();
    kept.write_all(get.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    kept.read_to_end(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply).to_lowercase();
    assert!(reply.starts_with("http/1.1 200 "), "{reply}");
    gate.open();
    assert!(slow.await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn sigterm_lets_requests_finish_and_exits_0() {
    let gate = Gate::new();
    let origin = Origin::builder()
        .behaviour(Behaviour::Gated(gate.clone()))
        .start()
        .await
        .unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let mut gateway = Gateway::start(&options).await;
    let under_way = tokio::spawn(exchange_raw(gateway.addr, GET.as_bytes()));
    origin.wait_for_requests(1).await;
    gateway.terminate();
    gateway.wait_for_line("no new connections").await;
    gate.open();
    let reply = under_way.await.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn sigterm_cuts_what_outlives_the_timeout() {
    let origin = Origin::builder()
        .behaviour(Behaviour::UpgradeEcho)
        .start()
        .await
        .unwrap();
    let (_dns, mut options) = cluster(origin.addr()).await;
    options.extend(["--shutdown-timeout", "100ms"].map(str::to_owned));
    let mut gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    assert_ne!(client.read(&mut [0; 1024]).await.unwrap(), 0);
    gateway.terminate();
    assert_eq!(gateway.exit_code().await, Some(0));
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// A client of HTTP/1.0 has nothing but the end of the connection to tell it that this was all.
#[tokio::test]
async fn rfc9112_8_what_is_cut_off_without_a_length_is_reset() {
    let script = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        Step::Hold(Gate::new()),
    ];
    let raw = RawOrigin::start([script]).await.unwrap();
    let (_dns, mut options) = cluster(raw.addr()).await;
    options.extend(["--shutdown-timeout", "100ms"].map(str::to_owned));
    let mut gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    let get = "GET / HTTP/1.0\r\nHost: shop.example.com\r\n\r\n";
    client.write_all(get.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"hello") {
        assert_ne!(client.read_buf(&mut reply).await.unwrap(), 0);
    }
    gateway.terminate();
    assert_eq!(gateway.exit_code().await, Some(0));
    let end = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn while_it_drains_a_head_that_has_begun_to_come_is_waited_for() {
    let origin = Origin::builder().start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let mut gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    client.write_all(b"GET /x HTTP/1.1\r\nHo").await.unwrap();
    // By the time that is answered the gateway has read the above.
    assert!(
        exchange(gateway.addr, GET)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    let mut idle = TcpStream::connect(gateway.addr).await.unwrap();
    gateway.terminate();
    // Idle connections are closed when the drain begins in earnest.
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    client
        .write_all(b"st: shop.example.com\r\n\r\n")
        .await
        .unwrap();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).await.unwrap();
    let reply = String::from_utf8_lossy(&reply).to_lowercase();
    assert!(reply.starts_with("http/1.1 200 "), "{reply}");
    assert!(reply.contains("connection: close"), "{reply}");
    assert_eq!(gateway.exit_code().await, Some(0));
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

#[tokio::test]
async fn bad_options_are_one_clear_error_and_a_code() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let route = "shop.example.com/=web.default:80";
    for (options, said) in [
        (vec!["--route", "shop.example.com"], "expected"),
        (vec!["--route", "shop.example.com/=web:80"], "namespace"),
        (
            vec!["--route", "shop.example.com/=Web.default:80"],
            "lower-case",
        ),
        (vec!["--route", "shop.example.com/=web.default:0"], "65535"),
        (
            vec!["--route", route, "--upstream-cidr", "10.0.0.0/33"],
            "10.0.0.0/33",
        ),
        (vec!["--route", route, "--dns", "nowhere"], "nowhere"),
        (vec!["--route", route, "--cluster-domain", "a..b"], "a..b"),
        (vec!["--route", route, "--workers", "0"], "0"),
        (vec!["--route", route, "--route", route], "shop.example.com"),
        (
            vec!["--route", route, "--listen", &taken, "--dns", "127.0.0.1:1"],
            "already in use",
        ),
        (
            vec![
                "--route",
                route,
                "--listen",
                &taken,
                "--workers",
                "4",
                "--dns",
                "127.0.0.1:1",
            ],
            "another process",
        ),
        (vec!["--dns", "127.0.0.1:1"], "--route"),
        (
            vec!["--ingress", "/does/not/exist.yaml"],
            "/does/not/exist.yaml",
        ),
    ] {
        let mut command = binary();
        command.arg("serve").args(&options).stdin(Stdio::null());
        let output = tokio::time::timeout(Duration::from_secs(20), command.output());
        let output = output
            .await
            .unwrap_or_else(|_| panic!("{options:?} is taken"))
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{options:?}");
        assert!(
            text.contains("error: ") && text.contains(said),
            "{options:?}: {text}"
        );
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn explain_tells_and_sends_nothing_and_doctor_probes() {
    let origin = Origin::start().await.unwrap();
    let (_dns, options) = cluster(origin.addr()).await;
    let run = async |command: &str, more: &[&str]| {
        let mut process = binary();
        process.arg(command).args(&options).args(more);
        let output = process.output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let url = "http://shop.example.com/cart?id=7";
    let (code, text) = run("explain", &["-H", "x-envoy-force-trace: 1", url]).await;
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "vhost     web.default.svc.cluster.local",
        &format!("address   {}", origin.addr()),
        "target    /cart?id=7",
        "- x-envoy-force-trace: 1",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let (code, text) = run("explain", &["http://other.example.com/"]).await;
    assert_eq!(code, Some(1));
    assert!(text.starts_with("refused: "), "{text}");
    assert_eq!(origin.connections(), 0);

    let (code, text) = run("doctor", &[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("HEAD / answers 200 OK"), "{text}");
    assert_eq!(origin.requests()[0].method, http::Method::HEAD);
}
