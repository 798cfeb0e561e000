//! From HTTP/1.1 to HTTP/1.1 (RFC 9110 §7.8, RFC 6455).

use mesh_ingress_core::{ErrorKind, Protocol};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Gate, RawOrigin, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::front::{Front, ends, expect, failed, head, soon};
use crate::support::{get, read, send};
use crate::{ACCEPT, KEY, handshake, switching};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn origin(scripts: impl IntoIterator<Item = Vec<Step>>) -> RawOrigin {
    RawOrigin::start(scripts).await.unwrap()
}

#[tokio::test]
async fn rfc6455_4_websocket_opens_and_bytes_pass_both_ways() {
    let script = vec![
        Step::ReadHead,
        Step::send(switching("early bird")),
        Step::ReadBody(4),
        Step::send("and more"),
    ];
    let origin = origin([script]).await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.send(handshake()).await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 101 "), "{reply}");
    for line in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-protocol: chat",
        &format!("sec-websocket-accept: {ACCEPT}").to_lowercase(),
    ] {
        assert_eq!(
            reply.matches(&format!("\r\n{line}\r\n")).count(),
            1,
            "{reply}"
        );
    }
    // The bytes that the origin sent right behind its head.
    expect(&mut client, b"early bird").await;
    client.write_all(b"worm").await.unwrap();
    expect(&mut client, b"and more").await;
    let received = String::from_utf8(origin.received(0)).unwrap();
    assert!(received.contains(&format!("sec-websocket-key: {KEY}\r\n")));
    assert!(
        received.contains("\r\nupgrade: websocket\r\n"),
        "{received}"
    );
    assert!(received.ends_with("\r\n\r\nworm"), "{received}");
}

#[tokio::test]
async fn rfc9110_7_8_bytes_of_the_client_wait_for_the_101() {
    let gate = Gate::new();
    let script = vec![
        Step::ReadHead,
        Step::Hold(gate.clone()),
        Step::send(switching("")),
        Step::ReadToEnd,
    ];
    let origin = origin([script, vec![Step::ReadHead, Step::send(OK)]]).await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.send(handshake() + "early").await;
    soon(origin.wait_for_received(0, |bytes| bytes.ends_with(b"\r\n\r\n"))).await;
    // When another request was answered, this thread has no more work to do.
    read(send(&forwarder, get(origin.addr())).await).await;
    assert!(origin.received(0).ends_with(b"\r\n\r\n"));
    gate.open();
    assert!(head(&mut client).await.starts_with("http/1.1 101 "));
    client.write_all(b" late").await.unwrap();
    soon(origin.wait_for_received(0, |bytes| bytes.ends_with(b"\r\n\r\nearly late"))).await;
}

#[tokio::test]
async fn rfc9110_7_8_refused_upgrade_is_ordinary_http() {
    let script = vec![
        Step::ReadHead,
        Step::send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"),
        Step::ReadHead,
        Step::send(OK),
    ];
    let origin = origin([script]).await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front
        .send([handshake().as_bytes(), b"\x81\x85frame"].concat())
        .await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 403 "), "{reply}");
    expect(&mut client, b"no").await;
    // The connection is reused as after any other exchange.
    let (body, _) = read(send(&forwarder, get(origin.addr())).await).await;
    assert_eq!(body, "ok");
    assert_eq!(origin.connections(), 1);
    let received = String::from_utf8_lossy(&origin.received(0)).into_owned();
    assert_eq!(received.matches("\r\n\r\n").count(), 2, "{received}");
    assert!(!received.contains("frame"), "{received}");
    assert_eq!(forwarder.tunnels(), 0);
}

#[tokio::test]
async fn client_may_continue_with_http_after_a_refusal() {
    let script = vec![Step::ReadHead, Step::send(OK)];
    let origin = origin([[&script[..], &script].concat()]).await;
    let front = Front::start(&Forwarder::default(), origin.addr(), Protocol::Http1).await;
    let second = "GET /second HTTP/1.1\r\nhost: shop.example.com\r\nconnection: close\r\n\r\n";
    let mut client = front.send(handshake() + second).await;
    let mut replies = String::new();
    soon(client.read_to_string(&mut replies)).await.unwrap();
    assert_eq!(
        replies.matches("HTTP/1.1 200 OK\r\n").count(),
        2,
        "{replies}"
    );
    let received = String::from_utf8(origin.received(0)).unwrap();
    assert!(received.contains("GET /second HTTP/1.1\r\n"), "{received}");
}

/// Checks the error for an origin's answer to a request, and that its connection is not reused.
async fn refused(request: &str, answer: &str, kind: ErrorKind) {
    let wrong = vec![Step::ReadHead, Step::send(answer.to_owned() + "evil")];
    let origin = origin([wrong, vec![Step::ReadHead, Step::send(OK)]]).await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.send(request).await;
    let reply = head(&mut client).await;
    assert_eq!(failed(&reply), ("502", kind.as_str()), "{answer}: {reply}");
    soon(origin.wait_for_closed(0)).await;
    let (body, _) = read(send(&forwarder, get(origin.addr())).await).await;
    assert_eq!(body, "ok");
    assert_eq!(origin.connections(), 2);
    assert_eq!((forwarder.tunnels(), forwarder.connections()), (0, 1));
}

#[tokio::test]
async fn rfc9110_15_2_2_unsolicited_101_is_502() {
    for request in [
        "GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n",
        // Without `Connection`: not for this hop.
        "GET / HTTP/1.1\r\nhost: shop.example.com\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: shop.example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        refused(request, &switching(""), ErrorKind::HttpProtocolError).await;
    }
}

#[tokio::test]
async fn rfc9110_7_8_101_to_another_protocol_is_502() {
    for (from, to) in [
        ("upgrade: WebSocket\r\n", "upgrade: foo\r\n"),
        ("upgrade: WebSocket\r\n", "upgrade: websocket, foo\r\n"),
        ("upgrade: WebSocket\r\n", ""),
        ("connection: Upgrade\r\n", ""),
        ("connection: Upgrade\r\n", "connection: close\r\n"),
    ] {
        let answer = switching("").replace(from, to);
        refused(&handshake(), &answer, ErrorKind::HttpUpgradeFailed).await;
    }
}

#[tokio::test]
async fn rfc6455_4_1_101_without_the_right_accept_is_502() {
    let right = format!("sec-websocket-accept: {ACCEPT}\r\n");
    for wrong in [
        String::new(),
        format!("sec-websocket-accept: {KEY}\r\n"),
        right.to_lowercase(),
        right.clone() + &right,
    ] {
        let answer = switching("").replace(&right, &wrong);
        refused(&handshake(), &answer, ErrorKind::HttpUpgradeFailed).await;
    }
}

#[tokio::test]
async fn other_protocols_than_websocket_are_forwarded() {
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: Foo/2\r\n\r\n";
    let script = vec![Step::ReadHead, Step::send(answer), Step::ReadToEnd];
    let origin = origin([script]).await;
    // Also to an HTTP/2 upstream: HTTP/2 cannot express it.
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let front = Front::start(&Forwarder::default(), origin.addr(), protocol).await;
        let request = "POST /x HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo/1, foo/2\r\n\
                       content-length: 4\r\n\r\nbody";
        let mut client = front.send(request).await;
        let reply = head(&mut client).await;
        assert!(reply.starts_with("http/1.1 101 "), "{reply}");
        assert!(reply.contains("\r\nupgrade: foo/2\r\n"), "{reply}");
        client.write_all(b"foo").await.unwrap();
        let last = origin.connections() - 1;
        soon(origin.wait_for_received(last, |bytes| bytes.ends_with(b"foo"))).await;
        let received = String::from_utf8(origin.received(last)).unwrap();
        assert!(
            received.contains("\r\nupgrade: foo/1, foo/2\r\n"),
            "{received}"
        );
        assert!(received.ends_with("\r\n\r\nbodyfoo"), "{received}");
    }
}

#[tokio::test]
async fn rfc9113_3_1_h2c_is_not_forwarded() {
    let origin = origin([vec![Step::ReadHead, Step::send(OK)]]).await;
    let front = Front::start(&Forwarder::default(), origin.addr(), Protocol::Http1).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                   http2-settings: AAMAAABk\r\n\r\n";
    let mut client = front.send(request).await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 200 "), "{reply}");
    let received = String::from_utf8(origin.received(0)).unwrap();
    assert_eq!(received, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
}

#[tokio::test]
async fn origin_that_switches_and_closes_ends_the_tunnel() {
    let script = vec![
        Step::ReadHead,
        Step::send(switching("bye")),
        Step::CloseWrite,
    ];
    let origin = origin([script]).await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.send(handshake()).await;
    assert!(head(&mut client).await.starts_with("http/1.1 101 "));
    expect(&mut client, b"bye").await;
    ends(&mut client).await;
    drop(client);
    soon(forwarder.tunnels_closed()).await;
    assert_eq!(forwarder.connections(), 0);
}
