//! WebSockets through the binary, with clients and an origin that speak the protocol itself, and how
//! tunnels end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_testkit::{Closed, Gate, RawOrigin, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::cluster;
use super::gateway::Gateway;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: shop.example.com\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let what = tokio::time::timeout(Duration::from_secs(20), what).await;
    what.unwrap_or_else(|_| panic!("it does not happen"))
}

/// A WebSocket echo server.
async fn echo() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if !message.is_close() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    (addr, serving)
}

/// Sends a small and a large message, and closes.
async fn chat<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    for text in ["hello".to_owned(), "x".repeat(1_000_000)] {
        let (mut says, mut hears) = (&mut socket).split();
        let message = Message::text(text);
        let heard = async { hears.next().await.unwrap().unwrap() };
        let (said, heard) = soon(async { tokio::join!(says.send(message.clone()), heard) }).await;
        said.unwrap();
        assert!(heard == message);
    }
    socket.close(None).await.unwrap();
    // The answer to it, and the end.
    let goodbye = soon(socket.next()).await.unwrap().unwrap();
    assert!(goodbye.is_close(), "{goodbye}");
    assert!(soon(socket.next()).await.is_none());
}

#[tokio::test]
async fn rfc6455_an_http1_client_chats() {
    let (origin, _serving) = echo().await;
    let (_dns, options) = cluster(origin).await;
    let gateway = Gateway::start(&options).await;
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let chatting = tokio_tungstenite::client_async("ws://shop.example.com/chat", stream);
    let (socket, response) = soon(chatting).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    chat(socket).await;
}

/// A client that has received the gateway's settings.
async fn http2(gateway: &Gateway) -> SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(TcpStream::connect(gateway.addr).await.unwrap());
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, mut connection) = builder.handshake(io).await.unwrap();
    let request = Request::get("http://nobody.example.com/").body(Empty::new());
    let mut answered = Box::pin(sender.send_request(request.unwrap()));
    let response = soon(async {
        tokio::select! {
            answered = &mut answered => answered.unwrap(),
            _ = &mut connection => panic!("it is closed"),
        }
    });
    assert_eq!(response.await.status(), StatusCode::NOT_FOUND);
    drop(answered);
    assert!(connection.is_extended_connect_protocol_enabled());
    tokio::spawn(connection);
    sender
}

fn extended_connect(uri: &str, protocol: &'static str) -> Request<Empty<Bytes>> {
    Request::connect(uri)
        .header("sec-websocket-version", "13")
        .extension(hyper::ext::Protocol::from_static(protocol))
        .body(Empty::new())
        .unwrap()
}

async fn opened(response: Response<Incoming>) -> TokioIo<hyper::upgrade::Upgraded> {
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap())
}

#[tokio::test]
async fn rfc8441_an_http2_client_chats() {
    let (origin, _serving) = echo().await;
    let (_dns, options) = cluster(origin).await;
    let gateway = Gateway::start(&options).await;
    let mut client = http2(&gateway).await;
    let request = extended_connect("http://shop.example.com/chat", "websocket");
    let tunnel = opened(soon(client.send_request(request)).await.unwrap()).await;
    chat(WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await).await;
}

#[tokio::test]
async fn rfc8441_other_tunnels_are_refused_and_the_connection_goes_on() {
    let (origin, _serving) = echo().await;
    let (_dns, options) = cluster(origin).await;
    let gateway = Gateway::start(&options).await;
    let mut client = http2(&gateway).await;
    let chat = "http://shop.example.com/chat";
    for (uri, protocol, status) in [
        (chat, "connect-udp", StatusCode::NOT_IMPLEMENTED),
        (
            "http://nobody.example.com/",
            "websocket",
            StatusCode::NOT_FOUND,
        ),
    ] {
        let request = extended_connect(uri, protocol);
        let response = soon(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), status);
    }
    let plain = Request::connect("shop.example.com:80")
        .body(Empty::new())
        .unwrap();
    let response = soon(client.send_request(plain)).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let request = extended_connect(chat, "websocket");
    opened(soon(client.send_request(request)).await.unwrap()).await;
}

/// A tunnel of an HTTP/1.1 client, to an origin that goes on with these steps.
async fn open(steps: Vec<Step>, more: &[&str]) -> (RawOrigin, Gateway, TcpStream) {
    let begin = vec![Step::ReadHead, Step::send(SWITCHING)];
    let origin = RawOrigin::start([[begin, steps].concat()]).await.unwrap();
    let (_dns, mut options) = cluster(origin.addr()).await;
    options.extend(more.iter().map(|&option| option.to_owned()));
    let gateway = Gateway::start(&options).await;
    let mut client = TcpStream::connect(gateway.addr).await.unwrap();
    client.write_all(ASK.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (origin, gateway, client)
}

async fn is_reset(client: &mut TcpStream) {
    let error = soon(client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let (_origin, _gateway, mut client) = open(vec![Step::Reset], &[]).await;
    is_reset(&mut client).await;

    let (origin, _gateway, client) = open(vec![Step::ReadToEnd], &[]).await;
    client.set_zero_linger().unwrap();
    drop(client);
    let closed = soon(origin.wait_for_closed(0)).await;
    assert_eq!(closed, Closed::Broken(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn bytes_of_the_client_arrive_after_the_origin_has_ended() {
    const MUCH: usize = 20_000_000;
    let gate = Gate::new();
    let steps = vec![
        Step::ReadUntil("x".into()),
        Step::CloseWrite,
        Step::Hold(gate.clone()),
    ];
    let (origin, _gateway, mut client) = open(steps, &[]).await;
    let (mut reader, mut writer) = client.split();
    // More than all buffers hold, so that the tunnel is in use when the drain begins.
    let sending = async {
        writer.write_all(&vec![b'x'; MUCH]).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let hearing = async {
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0);
        gate.open();
    };
    soon(async { tokio::join!(sending, hearing) }).await;
    assert_eq!(soon(origin.wait_for_closed(0)).await, Closed::ByClient);
    let received = origin.received(0);
    let sent = received.iter().rev().take_while(|&&byte| byte == b'x');
    assert_eq!(sent.count(), MUCH);
}

#[tokio::test]
async fn sigterm_waits_for_tunnels_to_end() {
    let steps = vec![
        Step::ReadUntil("bye".into()),
        Step::send("goodbye"),
        Step::CloseWrite,
    ];
    let (origin, mut gateway, mut client) = open(steps, &[]).await;
    let mut idle = TcpStream::connect(gateway.addr).await.unwrap();
    gateway.terminate();
    gateway.wait_for_line("no new connections").await;
    // Idle connections are closed.
    assert_eq!(soon(idle.read(&mut [0])).await.unwrap(), 0);
    client.write_all(b"bye").await.unwrap();
    let mut heard = String::new();
    client.shutdown().await.unwrap();
    soon(client.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "goodbye");
    assert_eq!(soon(gateway.exit_code()).await, Some(0));
    assert_eq!(soon(origin.wait_for_closed(0)).await, Closed::ByClient);
}

#[tokio::test]
async fn sigterm_closes_tunnels_that_outlive_the_timeout() {
    let more = ["--shutdown-timeout", "100ms"];
    let (origin, mut gateway, mut client) = open(vec![Step::ReadToEnd], &more).await;
    gateway.terminate();
    assert_eq!(soon(gateway.exit_code()).await, Some(0));
    is_reset(&mut client).await;
    let closed = soon(origin.wait_for_closed(0)).await;
    assert_eq!(closed, Closed::Broken(io::ErrorKind::ConnectionReset));
}
