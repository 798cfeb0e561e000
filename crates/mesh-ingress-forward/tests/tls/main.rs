//! TLS to upstreams: identity, protocol, configuration and the end of connections.
#![allow(clippy::unwrap_used, clippy::panic)]

mod configuration;
mod end;
mod identity;
mod protocol;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/tls_origin.rs"]
mod tls_origin;

use std::net::SocketAddr;

use http::Request;
use mesh_ingress_core::{Body, Error, Protocol, Tls, Upstream};
use mesh_ingress_forward::{Forwarder, TlsClient};
use tls_origin::{Ca, NAME};

fn trusting(ca: &Ca) -> TlsClient {
    TlsClient::builder().roots_pem(ca.pem()).build().unwrap()
}

fn forwarder(client: TlsClient) -> Forwarder {
    Forwarder::builder().tls_profile("default", client).build()
}

/// A forwarder that opens a connection for each request.
fn reopening(client: TlsClient) -> Forwarder {
    Forwarder::builder()
        .tls_profile("default", client)
        .max_idle(0)
        .build()
}

fn get(upstream: Upstream) -> Request<Body> {
    let mut request = Request::get(format!("http://{NAME}/"))
        .body(Body::empty())
        .unwrap();
    request.extensions_mut().insert(upstream);
    request
}

/// A `GET` to the Service of these origins.
fn https(addr: SocketAddr) -> Request<Body> {
    get(Upstream::new(addr).tls(Tls::for_vhost(&NAME.parse().unwrap())))
}

fn https_over(addr: SocketAddr, protocol: Protocol) -> Request<Body> {
    let tls = Tls::for_vhost(&NAME.parse().unwrap());
    get(Upstream::new(addr).tls(tls).protocol(protocol))
}

async fn fail(forwarder: &Forwarder, request: Request<Body>) -> (Error, String) {
    let error = support::send(forwarder, request).await.unwrap_err();
    let report = error.report().to_string();
    (error, report)
}
