//! A server in front of a forwarder, and its clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol as Tunnelled;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::{Body, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, ResponseBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Waits for a future that must become ready.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let what = tokio::time::timeout(Duration::from_secs(20), what).await;
    what.unwrap_or_else(|_| panic!("it does not happen"))
}

/// Serves HTTP/1.1 and, on another port, HTTP/2 with extended `CONNECT`. An error of the forwarder
/// is a response with the error in its extensions and its kind in a field.
pub(crate) struct Front {
    pub(crate) http1: SocketAddr,
    pub(crate) http2: SocketAddr,
    _serving: JoinSet<()>,
}

impl Front {
    pub(crate) async fn start(
        forwarder: &Forwarder,
        origin: SocketAddr,
        protocol: Protocol,
    ) -> Self {
        Self::to(forwarder, Upstream::new(origin).protocol(protocol)).await
    }

    pub(crate) async fn to(forwarder: &Forwarder, upstream: Upstream) -> Self {
        let mut serving = JoinSet::new();
        let mut ports = Vec::new();
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports.push(listener.local_addr().unwrap());
            let (forwarder, upstream) = (forwarder.clone(), upstream.clone());
            serving.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (forwarder, upstream) = (forwarder.clone(), upstream.clone());
                    connections.spawn(serve(stream, version, forwarder, upstream));
                }
            });
        }
        Self {
            http1: ports[0],
            http2: ports[1],
            _serving: serving,
        }
    }

    /// Sends text over a new HTTP/1.1 connection.
    pub(crate) async fn send(&self, text: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.http1).await.unwrap();
        stream.write_all(text.as_ref()).await.unwrap();
        stream
    }

    /// An HTTP/2 connection that has received the server's SETTINGS.
    pub(crate) async fn http2(&self) -> SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(TcpStream::connect(self.http2).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        let hello = Request::head("http://front/hello").body(Empty::new());
        soon(sender.send_request(hello.unwrap())).await.unwrap();
        sender
    }
}

async fn serve(stream: TcpStream, version: Version, forwarder: Forwarder, upstream: Upstream) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let forwarder = forwarder.clone();
        request.extensions_mut().insert(upstream.clone());
        async move {
            if request.uri().path() == "/hello" {
                return Ok(Response::new(ResponseBody::empty()));
            }
            let response = match forwarder.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(error) => {
                    let status = error.status().unwrap_or(StatusCode::BAD_GATEWAY);
                    Response::builder()
                        .status(status)
                        .header("x-error", error.kind().to_string())
                        .body(ResponseBody::empty())
                        .unwrap()
                }
            };
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder
            .enable_connect_protocol()
            .serve_connection(io, service)
            .await;
    } else {
        let connection = http1::Builder::new().serve_connection(io, service);
        let _ = connection.with_upgrades().await;
    }
}

/// Asks for a tunnel (RFC 8441 §4).
pub(crate) fn extended_connect(protocol: &'static str) -> Request<Empty<Bytes>> {
    Request::connect("http://shop.example.com/chat?room=1")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .extension(Tunnelled::from_static(protocol))
        .body(Empty::new())
        .unwrap()
}

/// The HTTP/2 client's end of a tunnel.
pub(crate) async fn opened(response: Response<Incoming>) -> TokioIo<hyper::upgrade::Upgraded> {
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap())
}

/// Reads a head, in lower case, and no byte behind it.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// Reads exactly the expected bytes.
pub(crate) async fn expect(stream: &mut (impl AsyncReadExt + Unpin), bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, bytes);
}

/// Checks that the stream ends.
pub(crate) async fn ends(stream: &mut (impl AsyncReadExt + Unpin)) {
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
}

/// The status of a head, and the kind of its error.
pub(crate) fn failed(head: &str) -> (&str, &str) {
    let status = head.get(9..12).unwrap_or_default();
    let kind = head.lines().find_map(|line| line.strip_prefix("x-error: "));
    (status, kind.unwrap_or_default())
}

pub(crate) fn is(kind: ErrorKind, response: &Response<Incoming>) -> bool {
    response
        .headers()
        .get("x-error")
        .is_some_and(|value| *value == kind.to_string())
}
