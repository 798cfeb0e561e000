//! TLS towards backends: the expected certificate, and profiles checked before the first request.
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

/// A TLS server with a certificate for `name`; its responses tell the name in SNI.
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
            // A client that does not trust the certificate closes the connection.
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

/// A gateway to one backend, whose certificate is trusted for `name`.
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
async fn rfc6066_3_vhost_is_the_server_name() {
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
async fn preserved_host_is_not_the_expected_server_name() {
    let name = "pay.default.svc.cluster.local";
    let mesh = gateway(name, |pay| pay.vhost(VhostPolicy::Preserve)).await;
    assert_eq!(called(mesh).await, name);
}

#[tokio::test]
async fn explicit_server_name_wins_over_the_vhost() {
    let name = "legacy.example.com";
    let tls = Tls::default().with_server_name(name);
    assert_eq!(called(gateway(name, |pay| pay.tls(tls)).await).await, name);
}

#[tokio::test]
async fn rfc9110_4_3_4_certificate_for_another_name_is_refused() {
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
async fn missing_profile_is_refused_when_the_routes_are_set() {
    let cluster = Cluster::start().await;
    let (_, client) = secured("web").await;
    let secret = Tls::default().with_profile("secret");
    let route = Route::any_host()
        .tls(secret)
        .to("pay.default:443".parse().unwrap());
    let mesh = trusting(&cluster, client).build().unwrap();
    let error = mesh.set_routes([route]).unwrap_err();
    assert!(matches!(error, BuildError::TlsProfile { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("pay.default:443") && message.contains("\"secret\""),
        "{message}"
    );
}
