//! The application behind the origins: what nginx, haproxy and Envoy hand requests on to.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use mesh_ingress::Body;
use mesh_ingress_testkit::{Behaviour, Origin, ReceivedRequest};
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Where it tells what it received.
pub(crate) const TELL: &str = "/tell";
/// Where it sends a body back.
pub(crate) const ECHO: &str = "/echo";
/// Where it sends [`MIB`] bytes, `abc…xyzabc…`.
pub(crate) const LARGE: &str = "/mib";
/// Where it answers as a gRPC server does: the message, then [`GRPC_TRAILERS`].
pub(crate) const GRPC: &str = "/orders.Orders/Place";
/// Where it sends WebSocket messages back.
pub(crate) const WEBSOCKET: &str = "/ws";

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GRPC_TRAILERS: [(&str, &str); 2] =
    [("grpc-status", "0"), ("grpc-message", "all right")];

/// A running application of HTTP/1.1 and HTTP/2, which ends when dropped.
pub(crate) struct App {
    origin: Arc<Origin>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    pub(crate) const NAME: &'static str = "app";
    pub(crate) const ADDR: &'static str = "127.0.0.1:9000";

    /// Starts it on the calling thread's host.
    pub(crate) fn start() -> Self {
        let mut trailers = HeaderMap::new();
        for (name, value) in GRPC_TRAILERS {
            trailers.insert(name, HeaderValue::from_static(value));
        }
        let app = Origin::builder()
            .name(Self::NAME)
            .at(ECHO, Behaviour::handler(echo))
            .at(LARGE, Behaviour::StreamBytes(MIB))
            .at(GRPC, Behaviour::Trailers(trailers))
            .at(WEBSOCKET, Behaviour::handler(|r| async { websocket(r) }));

        let (stop, stopped) = oneshot::channel();
        let (tell, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let addr: SocketAddr = Self::ADDR.parse().expect("an address");
                let origin = app.bind(addr).await.expect("the application's address");
                tell.send(Arc::new(origin)).expect("the test");
                // Ends when the other end is dropped, too.
                drop(stopped.await);
            });
        });
        Self {
            origin: started.recv().expect("the application starts"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The requests since the last time, in the order their heads came.
    pub(crate) fn take_requests(&self) -> Vec<ReceivedRequest> {
        let requests = self.origin.requests();
        self.origin.clear_requests();
        requests
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The body back once it is complete: Envoy closes HTTP/1.1 connections on which an answer begins
/// before the request ends.
async fn echo(request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let mut response = match body.collect().await {
        Ok(body) => Response::new(Body::from(body.to_bytes())),
        Err(_) => {
            let mut refusal = Response::new(Body::empty());
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            return refusal;
        }
    };
    if let Some(media_type) = parts.headers.remove(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    response
}

/// The server's handshake of RFC 6455 §4.2.2, then an echo of every message.
fn websocket(mut request: Request<Body>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let field = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let asked = field("upgrade").is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"));
    if !asked || field("sec-websocket-version") != Some(b"13") {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Over HTTP/2 there is no key (RFC 8441 §5), and Envoy makes up none for its HTTP/1.1 side.
    if let Some(key) = field("sec-websocket-key") {
        let accept = HeaderValue::from_str(&derive_accept_key(key));
        headers.insert("sec-websocket-accept", accept.expect("Base64"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            // A Close is answered by the library (RFC 6455 §5.5.1), and so is a Ping.
            let data = message.is_text() || message.is_binary();
            if data && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    response
}
