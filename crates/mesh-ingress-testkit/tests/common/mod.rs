//! Small clients for the tests: one connection, HTTP/1.1 or HTTP/2.
#![allow(dead_code, unreachable_pub)] // each test file uses its part
#![allow(clippy::unwrap_used)] // helpers of tests are tests, too

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub async fn http1(addr: SocketAddr) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub async fn http2(addr: SocketAddr) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A response, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub async fn send1(sender: &mut http1::SendRequest<Body>, request: Request<Body>) -> Answer {
    sender.ready().await.unwrap();
    Answer::of(sender.send_request(request).await.unwrap()).await
}

pub async fn send2(sender: &http2::SendRequest<Body>, request: Request<Body>) -> Answer {
    let mut sender = sender.clone();
    sender.ready().await.unwrap();
    Answer::of(sender.send_request(request).await.unwrap()).await
}

/// A GET in origin-form, for HTTP/1.
pub fn get(host: &str, path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", host)
        .body(Body::empty())
        .unwrap()
}

/// A GET for HTTP/2.
pub fn get2(authority: &str, path: &str) -> Request<Body> {
    Request::get(format!("http://{authority}{path}"))
        .body(Body::empty())
        .unwrap()
}

/// Writes bytes and reads what comes until the server closes.
pub async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

/// A body of unknown length (HTTP/1 has trailers only after such) with trailers.
pub fn with_trailers(data: &'static [u8], trailers: HeaderMap) -> Body {
    let body = Full::new(Bytes::from_static(data));
    Body::new(Unsized(Box::new(
        body.with_trailers(ready(Some(Ok(trailers)))),
    )))
}

type Frames = dyn http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin;

struct Unsized(Box<Frames>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}
