//! WebSockets through a gateway embedded in an axum server, from HTTP/1.1 and HTTP/2 clients.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress::route::Redirect;
use mesh_ingress::{MeshIngress, Protocol, Route, ServiceRef};
use mesh_ingress_testkit::{Behaviour, Origin};
use support::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn soon<T>(future: impl Future<Output = T>) -> T {
    let output = tokio::time::timeout(Duration::from_secs(20), future).await;
    output.unwrap_or_else(|_| panic!("not within 20 seconds"))
}

/// An origin behind an axum server.
struct World {
    addr: SocketAddr,
    origin: Origin,
    mesh: MeshIngress,
    _cluster: Cluster,
    _serving: JoinSet<()>,
}

impl World {
    async fn start(protocol: Protocol) -> Self {
        let cluster = Cluster::start().await;
        let origin = Origin::builder().behaviour(Behaviour::UpgradeEcho);
        let origin = origin.start().await.unwrap();
        let web = format!("web.default:{}", origin.addr().port());
        let web: ServiceRef = web.parse().unwrap();
        cluster.service(&web, origin.addr().ip());
        let chat = Route::host("shop.example.com").path_prefix("/chat");
        let other = |path| Route::host("shop.example.com").path_prefix(path);
        let mesh = cluster
            .mesh()
            // Routes match a WebSocket over HTTP/2 as the `GET` it would be in HTTP/1.1.
            .route(chat.method(Method::GET).protocol(protocol).to(web))
            .route(other("/ok").respond(StatusCode::OK))
            .route(
                other("/away").redirect(Redirect::to_uri(StatusCode::FOUND, "https://b.example/")),
            )
            .route(other("/gone").to("gone.default:80".parse().unwrap()))
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback_service(mesh.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            addr,
            origin,
            mesh,
            _cluster: cluster,
            _serving: serving,
        }
    }

    /// A client that has the server's SETTINGS.
    async fn http2(&self) -> SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(TcpStream::connect(self.addr).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://shop.example.com/ok").body(Empty::new());
        let response = soon(sender.send_request(request.unwrap())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        sender
    }
}

fn extended_connect(path: &str) -> Request<Empty<Bytes>> {
    Request::connect(format!("http://shop.example.com{path}"))
        .header("sec-websocket-version", "13")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .body(Empty::new())
        .unwrap()
}

async fn ask(
    client: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Response<Incoming> {
    soon(client.send_request(request)).await.unwrap()
}

#[tokio::test]
async fn rfc6455_4_http1_clients_get_websockets() {
    for protocol in [Protocol::Http1, Protocol::SameAsClient, Protocol::Http2] {
        let world = World::start(protocol).await;
        let mut client = TcpStream::connect(world.addr).await.unwrap();
        client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        client.write_all(b"early").await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\nearly") {
            heard.push(soon(client.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(heard).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("\r\nsec-websocket-accept: s3ppl"), "{head}");
        assert_eq!(world.mesh.forwarder().tunnels(), 1);
        client.shutdown().await.unwrap();
        assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
        soon(world.mesh.forwarder().tunnels_closed()).await;
    }
}

#[tokio::test]
async fn rfc8441_http2_clients_get_websockets() {
    // The origin knows no extended CONNECT: it gets an HTTP/1.1 upgrade in any case.
    for protocol in [Protocol::Http1, Protocol::SameAsClient, Protocol::Http2] {
        let world = World::start(protocol).await;
        let mut client = world.http2().await;
        let response = ask(&mut client, extended_connect("/chat")).await;
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        let mut tunnel = TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap());
        tunnel.write_all(b"hello").await.unwrap();
        tunnel.flush().await.unwrap();
        let mut heard = [0; 5];
        soon(tunnel.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"hello");
        let seen = world.origin.requests().pop().unwrap();
        assert_eq!(
            (seen.method.clone(), seen.version),
            (Method::GET, Version::HTTP_11)
        );
        assert_eq!(seen.host(), Some("web.default.svc.cluster.local"));
        assert_eq!(seen.header("upgrade"), Some("websocket"));
        assert_eq!(seen.header("x-forwarded-host"), Some("shop.example.com"));
        tunnel.shutdown().await.unwrap();
        assert_eq!(soon(tunnel.read(&mut [0])).await.unwrap(), 0);
        drop(tunnel);
        soon(world.mesh.forwarder().tunnels_closed()).await;
    }
}

#[tokio::test]
async fn rfc9110_9_3_6_local_replies_never_open_a_tunnel() {
    let world = World::start(Protocol::Http1).await;
    let mut client = world.http2().await;
    let response = ask(&mut client, extended_connect("/ok")).await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let response = ask(&mut client, extended_connect("/away")).await;
    assert!(response.status().is_redirection(), "{response:?}");
    let response = ask(&mut client, extended_connect("/nowhere")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    // A gRPC error is a 200 for HTTP.
    let mut grpc = extended_connect("/gone");
    let kind = http::HeaderValue::from_static("application/grpc");
    grpc.headers_mut().insert("content-type", kind);
    let response = ask(&mut client, grpc).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(world.origin.requests().is_empty());
}

#[tokio::test]
async fn rfc9110_9_3_6_plain_connect_is_405() {
    let world = World::start(Protocol::Http1).await;
    let mut client = world.http2().await;
    let plain = Request::connect("shop.example.com:80").body(Empty::new());
    let response = ask(&mut client, plain.unwrap()).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(
        !response.headers()["allow"]
            .to_str()
            .unwrap()
            .contains("CONNECT")
    );
    let mut client = TcpStream::connect(world.addr).await.unwrap();
    let plain = "CONNECT shop.example.com:80 HTTP/1.1\r\nHost: shop.example.com:80\r\n\r\n";
    client.write_all(plain.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    soon(client.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 405");
    assert!(world.origin.requests().is_empty());
}

#[tokio::test]
async fn route_for_get_takes_websockets_and_no_other_method() {
    let world = World::start(Protocol::Http1).await;
    let mut client = world.http2().await;
    let post = Request::post("http://shop.example.com/chat").body(Empty::new());
    let response = ask(&mut client, post.unwrap()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let response = ask(&mut client, extended_connect("/chat")).await;
    assert_eq!(response.status(), StatusCode::OK);
}
