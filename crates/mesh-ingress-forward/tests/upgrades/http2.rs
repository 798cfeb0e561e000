//! With HTTP/2 on one side or both (RFC 8441).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::ext::Protocol as Tunnelled;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::{ErrorKind, Protocol};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Behaviour, Origin, RawOrigin, Step};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::front::{Front, ends, expect, extended_connect, failed, head, is, opened, soon};
use crate::{ACCEPT, handshake, switching};

/// An origin that speaks only HTTP/2, and echoes the bytes of tunnels.
pub(crate) struct Http2Origin {
    pub(crate) addr: SocketAddr,
    heads: Arc<Mutex<Vec<http::request::Parts>>>,
    _serving: JoinSet<()>,
}

impl Http2Origin {
    async fn start(extended_connect: bool, status: StatusCode) -> Self {
        Self::with(extended_connect, status, true).await
    }

    /// An origin that accepts tunnels and sends nothing, not even an end.
    pub(crate) async fn silent() -> Self {
        Self::with(true, StatusCode::OK, false).await
    }

    async fn with(extended_connect: bool, status: StatusCode, echo: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<_>>>::default();
        let mut serving = JoinSet::new();
        let seen = Arc::clone(&heads);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                let service =
                    service_fn(move |request| answer(request, status, echo, Arc::clone(&seen)));
                let mut builder = http2::Builder::new(TokioExecutor::new());
                if extended_connect {
                    builder.enable_connect_protocol();
                }
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    let _ = connection.await;
                });
            }
        });
        Self {
            addr,
            heads,
            _serving: serving,
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    status: StatusCode,
    echo: bool,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    seen.lock().unwrap().push(request.into_parts().0);
    if status.is_success() {
        tokio::spawn(async move {
            let tunnel = TokioIo::new(upgrade.await.unwrap());
            let (mut from, mut to) = tokio::io::split(tunnel);
            if echo {
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            } else {
                std::future::pending::<()>().await;
            }
        });
    }
    let response = Response::builder().status(status);
    let response = response.header("sec-websocket-protocol", "chat");
    Ok(response.body(Empty::new()).unwrap())
}

#[tokio::test]
async fn rfc8441_5_http2_client_reaches_an_http1_origin() {
    // Answers the key that it receives.
    let origin = Origin::builder().behaviour(Behaviour::UpgradeEcho);
    let origin = origin.start().await.unwrap();
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.http2().await;
    let mut keys = Vec::new();
    for tunnels in 1..=2 {
        let response = soon(client.send_request(extended_connect("websocket")))
            .await
            .unwrap();
        for name in ["connection", "upgrade", "sec-websocket-accept"] {
            assert!(!response.headers().contains_key(name), "{response:?}");
        }
        let mut tunnel = opened(response).await;
        assert_eq!((forwarder.tunnels(), forwarder.connections()), (1, 1));
        tunnel.write_all(b"hello").await.unwrap();
        tunnel.flush().await.unwrap();
        expect(&mut tunnel, b"hello").await;
        tunnel.shutdown().await.unwrap();
        ends(&mut tunnel).await;
        drop(tunnel);
        soon(forwarder.tunnels_closed()).await;
        let seen = origin.requests().pop().unwrap();
        assert_eq!(origin.requests().len(), tunnels);
        assert_eq!(
            (seen.method, seen.uri),
            (Method::GET, "/chat?room=1".parse().unwrap())
        );
        assert_eq!(seen.headers["host"], "shop.example.com");
        assert_eq!(seen.headers["connection"], "upgrade");
        assert_eq!(seen.headers["upgrade"], "websocket");
        assert_eq!(seen.headers["sec-websocket-version"], "13");
        assert_eq!(seen.headers["sec-websocket-protocol"], "chat");
        keys.push(seen.headers["sec-websocket-key"].clone());
    }
    assert_ne!(keys[0], keys[1], "a nonce");
}

#[tokio::test]
async fn rfc6455_4_1_101_without_the_right_accept_is_502_for_http2_clients() {
    // The accept of another key.
    let script = vec![Step::ReadHead, Step::send(switching("evil"))];
    let origin = RawOrigin::start([script]).await.unwrap();
    let front = Front::start(&Forwarder::default(), origin.addr(), Protocol::Http1).await;
    let mut client = front.http2().await;
    let response = soon(client.send_request(extended_connect("websocket")))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(is(ErrorKind::HttpUpgradeFailed, &response), "{response:?}");
    soon(origin.wait_for_closed(0)).await;
}

/// The response that an HTTP/2 client gets for an HTTP/1.1 origin's answer to its WebSocket.
async fn answered(answer: &'static str) -> Response<Incoming> {
    let script = vec![Step::ReadHead, Step::send(answer)];
    let origin = RawOrigin::start([script]).await.unwrap();
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr(), Protocol::Http1).await;
    let mut client = front.http2().await;
    let asking = client.send_request(extended_connect("websocket"));
    let response = soon(asking).await.unwrap();
    assert_eq!(forwarder.tunnels(), 0);
    response
}

#[tokio::test]
async fn rfc9110_9_3_6_success_that_is_no_tunnel_is_502() {
    let response = answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(is(ErrorKind::HttpUpgradeFailed, &response), "{response:?}");
}

#[tokio::test]
async fn rfc8441_5_refusal_of_an_http1_origin_is_forwarded() {
    let response = answered("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let body = http_body_util::BodyExt::collect(response.into_body());
    assert_eq!(soon(body).await.unwrap().to_bytes(), "no");
}

#[tokio::test]
async fn rfc8441_3_http2_origin_gets_extended_connect_if_it_offers_it() {
    let origin = Http2Origin::start(true, StatusCode::OK).await;
    let forwarder = Forwarder::default();
    let front = Front::start(&forwarder, origin.addr, Protocol::Http2).await;
    let mut client = front.http2().await;
    let response = soon(client.send_request(extended_connect("websocket")))
        .await
        .unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    let mut tunnel = opened(response).await;
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.flush().await.unwrap();
    expect(&mut tunnel, b"hello").await;
    tunnel.shutdown().await.unwrap();
    ends(&mut tunnel).await;

    // The same for an HTTP/1.1 client, on a stream of the same connection.
    let mut client = front.send(handshake() + "early").await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 101 "), "{reply}");
    let accept = format!("\r\nsec-websocket-accept: {ACCEPT}\r\n").to_lowercase();
    assert!(reply.contains(&accept), "{reply}");
    assert!(
        reply.contains("\r\nsec-websocket-protocol: chat\r\n"),
        "{reply}"
    );
    expect(&mut client, b"early").await;
    client.shutdown().await.unwrap();
    ends(&mut client).await;

    assert_eq!(forwarder.connections(), 1);
    for seen in &*origin.heads.lock().unwrap() {
        assert_eq!(seen.method, Method::CONNECT);
        assert_eq!(
            seen.extensions.get::<Tunnelled>().unwrap().as_str(),
            "websocket"
        );
        assert_eq!(seen.uri, "http://shop.example.com/chat?room=1");
        for name in ["sec-websocket-key", "upgrade", "connection", "host"] {
            assert!(!seen.headers.contains_key(name), "{seen:?}");
        }
        assert_eq!(seen.headers["sec-websocket-version"], "13");
    }
    assert_eq!(origin.heads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn rfc8441_5_refusal_of_an_http2_origin_is_forwarded() {
    let origin = Http2Origin::start(true, StatusCode::FORBIDDEN).await;
    let front = Front::start(&Forwarder::default(), origin.addr, Protocol::Http2).await;
    let mut client = front.http2().await;
    let response = soon(client.send_request(extended_connect("websocket")))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let mut client = front.send(handshake()).await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 403 "), "{reply}");
}

#[tokio::test]
async fn rfc8441_3_origin_without_extended_connect_is_asked_over_http1() {
    // Speaks both protocols, as most servers with h2c do.
    let origin = Origin::builder().behaviour(Behaviour::UpgradeEcho);
    let origin = origin.start().await.unwrap();
    let front = Front::start(&Forwarder::default(), origin.addr(), Protocol::Http2).await;
    let mut client = front.http2().await;
    let response = soon(client.send_request(extended_connect("websocket")))
        .await
        .unwrap();
    let mut tunnel = opened(response).await;
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.flush().await.unwrap();
    expect(&mut tunnel, b"hello").await;

    let mut client = front.send(handshake() + "early").await;
    assert!(head(&mut client).await.starts_with("http/1.1 101 "));
    expect(&mut client, b"early").await;
    let versions: Vec<_> = origin.requests().iter().map(|seen| seen.version).collect();
    assert_eq!(versions, [http::Version::HTTP_11; 2]);
}

#[tokio::test]
async fn origin_with_only_http2_and_no_extended_connect_has_no_websockets() {
    let origin = Http2Origin::start(false, StatusCode::OK).await;
    let front = Front::start(&Forwarder::default(), origin.addr, Protocol::Http2).await;
    let mut client = front.http2().await;
    let response = soon(client.send_request(extended_connect("websocket")))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let mut client = front.send(handshake()).await;
    assert_eq!(failed(&head(&mut client).await).0, "502");
    assert!(origin.heads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn plain_connect_is_405_and_unknown_protocol_501() {
    let origin = RawOrigin::start([vec![]]).await.unwrap();
    let front = Front::start(&Forwarder::default(), origin.addr(), Protocol::Http1).await;
    let mut client = front.http2().await;
    let response = soon(client.send_request(extended_connect("connect-udp")))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let plain = Request::connect("shop.example.com:443")
        .body(Empty::new())
        .unwrap();
    let response = soon(client.send_request(plain)).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let plain = "CONNECT shop.example.com:443 HTTP/1.1\r\nhost: shop.example.com:443\r\n\r\n";
    let mut client = front.send(plain).await;
    assert_eq!(failed(&head(&mut client).await).0, "405");
    assert_eq!(origin.connections(), 0);
}
