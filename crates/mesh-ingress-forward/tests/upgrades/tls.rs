//! WebSockets to upstreams over TLS.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::{Protocol, Tls, Upstream};
use mesh_ingress_forward::{Forwarder, TlsClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::front::{Front, ends, expect, head, soon};
use crate::tls_origin::{Ca, NAME, Origin, Server};
use crate::{handshake, switching, tls_origin};

/// The bytes that an origin reads in a tunnel.
type Received = mpsc::UnboundedReceiver<io::Result<String>>;

/// An origin that accepts WebSockets in HTTP/1.1, and speaks HTTP/2 without extended `CONNECT`.
async fn open(protocol: Protocol) -> (Origin, Received, Front, Forwarder, TcpStream) {
    let ca = Ca::new();
    let (sender, received) = mpsc::unbounded_channel();
    let origin = Origin::start(Server::of(&ca), move |mut stream| {
        let sender = sender.clone();
        async move {
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                let empty = |_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) };
                let builder = http2::Builder::new(TokioExecutor::new());
                let io = TokioIo::new(stream);
                let _ = builder.serve_connection(io, service_fn(empty)).await;
                return;
            }
            tls_origin::head(&mut stream).await.unwrap();
            let early = switching("early");
            stream.write_all(early.as_bytes()).await.unwrap();
            let mut text = String::new();
            let read = stream.read_to_string(&mut text).await;
            let _ = sender.send(read.map(|_| text));
            let _ = stream.write_all(b"bye").await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let client = TlsClient::builder().roots_pem(ca.pem()).build().unwrap();
    let forwarder = Forwarder::builder().tls_profile("default", client).build();
    let tls = Tls::for_vhost(&NAME.parse().unwrap());
    let upstream = Upstream::new(origin.addr()).tls(tls).protocol(protocol);
    let front = Front::to(&forwarder, upstream).await;
    let mut client = front.send(handshake()).await;
    let reply = head(&mut client).await;
    assert!(reply.starts_with("http/1.1 101 "), "{reply}");
    expect(&mut client, b"early").await;
    (origin, received, front, forwarder, client)
}

#[tokio::test]
async fn rfc8446_6_1_half_close_passes_through_tls() {
    let (_origin, mut received, _front, forwarder, mut client) = open(Protocol::Http1).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap().unwrap(), "hello");
    expect(&mut client, b"bye").await;
    ends(&mut client).await;
    soon(forwarder.tunnels_closed()).await;
    assert_eq!(forwarder.connections(), 0);
}

#[tokio::test]
async fn rfc8446_6_1_reset_is_no_end_in_tls() {
    let (_origin, mut received, _front, forwarder, client) = open(Protocol::Http1).await;
    client.set_zero_linger().unwrap();
    drop(client);
    soon(received.recv()).await.unwrap().unwrap_err();
    soon(forwarder.tunnels_closed()).await;
}

#[tokio::test]
async fn rfc7301_origin_that_chose_http2_without_websockets_is_asked_over_http1() {
    let (mut origin, mut received, _front, _forwarder, mut client) = open(Protocol::Alpn).await;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(soon(received.recv()).await.unwrap().unwrap(), "hello");
    let chosen = origin.handshake().await.unwrap().alpn;
    assert_eq!(chosen.as_deref(), Some("h2"));
    let chosen = origin.handshake().await.unwrap().alpn;
    assert_eq!(chosen.as_deref(), Some("http/1.1"));
}
