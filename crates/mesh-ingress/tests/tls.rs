//! TLS towards backends: whose certificate is expected, and what is found out before a request comes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use mesh_ingress::{
    Backend, BuildError, Forwarder, MeshIngress, MeshIngressBuilder, Protocol, Route, ServiceRef,
    Tls, TlsClient, VhostPolicy,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use support::{Cluster, body_of, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Speaks TLS under one name, and answers with the name it was called by in SNI.
async fn secured(name: &str) -> (SocketAddr, TlsClient) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust it breaks off.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let sni = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
                let length = sni.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{sni}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    let client = TlsClient::builder().roots_pem(cert.pem()).build();
    (addr, client.unwrap())
}

fn trusting(cluster: &Cluster, client: TlsClient) -> MeshIngressBuilder {
    let forwarder = Forwarder::builder().tls_profile("default", client);
    cluster.mesh().forwarder(forwarder.build())
}

/// A gateway to one backend at `addr`, which is trusted under `name`.
async fn gateway(name: &str, backend: impl FnOnce(Backend) -> Backend) -> (Cluster, MeshIngress) {
    let cluster = Cluster::start().await;
    let (addr, client) = secured(name).await;
    let service: ServiceRef = format!("pay.default:{}", addr.port()).parse().unwrap();
    cluster.service(&service, addr.ip());
    let pay = Backend::new(service);
    let pay = backend(pay.tls(Tls::default()));
    let route = Route::any_host().to_backend(pay);
    let mesh = trusting(&cluster, client).route(route).build().unwrap();
    (cluster, mesh)
}

async fn called((_cluster, mesh): (Cluster, MeshIngress)) -> String {
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    body_of(response).await
}

#[tokio::test]
async fn rfc6066_3_the_vhost_is_the_server_name() {
    let name = "pay.default.svc.cluster.local";
    assert_eq!(called(gateway(name, |pay| pay).await).await, name);

    let name = "pay.example.com";
    let vhost = VhostPolicy::Override(name.parse().unwrap());
    assert_eq!(
        called(gateway(name, |pay| pay.vhost(vhost)).await).await,
        name
    );
}

#[tokio::test]
async fn a_kept_host_is_not_whom_to_trust() {
    let name = "pay.default.svc.cluster.local";
    let mesh = gateway(name, |pay| pay.vhost(VhostPolicy::Preserve)).await;
    assert_eq!(called(mesh).await, name);
}

#[tokio::test]
async fn a_server_name_of_its_own_wins() {
    let name = "legacy.example.com";
    let tls = Tls::default().with_server_name(name);
    assert_eq!(called(gateway(name, |pay| pay.tls(tls)).await).await, name);
}

#[tokio::test]
async fn rfc9110_4_3_4_a_certificate_of_somebody_else_is_refused() {
    let (_cluster, mesh) = gateway("web.default.svc.cluster.local", |pay| {
        pay.protocol(Protocol::Alpn)
    })
    .await;
    let response = mesh.handle(get("shop.example.com", "/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(
        response.headers()["proxy-status"],
        "mesh-ingress; error=tls_certificate_error"
    );
}

#[tokio::test]
async fn a_profile_that_is_missing_is_found_out_before_a_request_comes() {
    let cluster = Cluster::start().await;
    let (_, client) = secured("web").await;
    let secret = Tls::default().with_profile("secret");
    let route = Route::any_host()
        .tls(secret)
        .to("pay.default:443".parse().unwrap());
    let mesh = trusting(&cluster, client).build().unwrap();
    let error = mesh.set_routes([route]).unwrap_err();
    assert!(matches!(error, BuildError::TlsProfile { .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("pay.default:443") && said.contains("\"secret\""),
        "{said}"
    );
}
