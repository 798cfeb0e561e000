//! Requests for the tests.
#![allow(dead_code)]

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use mesh_ingress_core::{Body, Error, Protocol, Upstream};
use mesh_ingress_forward::{Forwarder, ResponseBody};
use tower::ServiceExt;

pub(crate) type Reply = Result<Response<ResponseBody>, Error>;

/// Marks where a request goes.
pub(crate) fn to<B>(addr: SocketAddr, protocol: Protocol, mut request: Request<B>) -> Request<B> {
    let upstream = Upstream::new(addr).protocol(protocol);
    request.extensions_mut().insert(upstream);
    request
}

pub(crate) fn get(addr: SocketAddr) -> Request<Body> {
    let request = Request::get("http://web.default.svc.cluster.local/").body(Body::empty());
    to(addr, Protocol::Http1, request.unwrap())
}

pub(crate) fn post(addr: SocketAddr, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("http://web.default.svc.cluster.local/").body(body.into());
    to(addr, Protocol::Http1, request.unwrap())
}

pub(crate) async fn send(forwarder: &Forwarder, request: Request<Body>) -> Reply {
    forwarder.clone().oneshot(request).await
}

/// The body and trailers of a response that must be complete.
pub(crate) async fn read(reply: Reply) -> (Bytes, Option<HeaderMap>) {
    let collected = reply.unwrap().into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

/// The value of one line of the origin's echo.
pub(crate) fn echoed<'a>(body: &'a Bytes, name: &str) -> &'a str {
    let text = std::str::from_utf8(body).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}
