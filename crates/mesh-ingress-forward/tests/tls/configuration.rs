//! Unusable settings are refused when they are built, or before anything is dialed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use mesh_ingress_core::{ErrorKind, Tls, Upstream};
use mesh_ingress_forward::{Forwarder, TlsClient, TlsConfigError};

use crate::tls_origin::Ca;
use crate::{fail, forwarder, get, trusting};

/// A listener, to check that nothing is dialed.
fn unused_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn refused(forwarder: &Forwarder, tls: Tls) -> String {
    let (listener, addr) = unused_listener();
    let request = get(Upstream::new(addr).tls(tls));
    let (error, report) = fail(forwarder, request).await;
    assert_eq!(error.kind(), ErrorKind::ProxyConfigurationError);
    let came = listener.accept().unwrap_err();
    assert_eq!(
        came.kind(),
        std::io::ErrorKind::WouldBlock,
        "something was dialed"
    );
    report
}

#[tokio::test]
async fn unknown_profile() {
    let named = Tls::default().with_server_name("web").with_profile("pay");
    let report = refused(&forwarder(trusting(&Ca::new())), named.clone()).await;
    assert!(
        report.contains("\"pay\"") && report.contains("tls_profile"),
        "{report}"
    );
    refused(&Forwarder::default(), named).await;
}

#[tokio::test]
async fn without_a_server_name() {
    let report = refused(&forwarder(trusting(&Ca::new())), Tls::default()).await;
    assert!(report.contains("Tls::for_vhost"), "{report}");
}

#[tokio::test]
async fn invalid_server_name() {
    for name in ["", "a b", "a..b", "web:443", "[::1]"] {
        let tls = Tls::default().with_server_name(name);
        let report = refused(&forwarder(trusting(&Ca::new())), tls).await;
        assert!(
            report.contains("neither a DNS name nor an IP address"),
            "{report}"
        );
    }
}

#[test]
fn settings_are_checked_when_they_are_built() {
    let ca = Ca::new();
    let (me, other) = (ca.issue("me"), ca.issue("other"));
    let trusting = || TlsClient::builder().roots_pem(ca.pem());
    let failed = |builder: mesh_ingress_forward::TlsClientBuilder| builder.build().unwrap_err();

    assert!(matches!(
        failed(TlsClient::builder()),
        TlsConfigError::NoRoots
    ));
    for pem in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        let error = failed(trusting().roots_pem(pem));
        assert!(
            matches!(
                error,
                TlsConfigError::Pem {
                    what: "certificate",
                    ..
                }
            ),
            "{error:?}"
        );
    }
    // A key instead of a certificate.
    let error = failed(TlsClient::builder().roots_pem(me.key.as_str()));
    assert!(matches!(error, TlsConfigError::Pem { .. }), "{error:?}");
    let error = failed(trusting().root_der(*b"no DER"));
    assert!(
        matches!(error, TlsConfigError::Root { number: 2, .. }),
        "{error:?}"
    );
    let error = failed(trusting().client_certificate_pem(me.chain.as_str(), ""));
    assert!(
        matches!(
            error,
            TlsConfigError::Pem {
                what: "private key",
                ..
            }
        ),
        "{error:?}"
    );
    let mismatch = trusting().client_certificate_pem(me.chain, other.key);
    let error = failed(mismatch);
    assert!(
        matches!(error, TlsConfigError::ClientCertificate { .. }),
        "{error:?}"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn debug_omits_the_key() {
    let ca = Ca::new();
    let me = ca.issue("me");
    let builder = TlsClient::builder()
        .roots_pem(ca.pem())
        .client_certificate_pem(me.chain.as_str(), me.key.as_str());
    let text = format!("{builder:?} {:?}", builder.clone().build().unwrap());
    assert!(!text.contains("PRIVATE"));
    let bytes = format!("{:?}", me.key.as_bytes());
    assert!(!text.contains(bytes.trim_matches(['[', ']'])));
    assert!(text.contains("client_certificate: true"), "{text}");
}

/// A program may use another provider elsewhere, or none.
#[test]
fn process_wide_default_provider_is_not_set() {
    trusting(&Ca::new());
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
