//! Trusted roots, and client certificates.

use mesh_ingress_core::{ErrorKind, Protocol, Tls, Upstream};
use mesh_ingress_forward::{Forwarder, TlsClient, TlsVersion};
use rustls::HandshakeKind;

use crate::support::{read, send};
use crate::tls_origin::{Ca, Identity, NAME, ONLY_TLS12, Origin, Server};
use crate::{fail, forwarder, get, https, https_over, protocol, reopening, trusting};

/// The error of a `GET` to an origin with this certificate, by a client that trusts this CA.
async fn refused(identity: Identity, trusted: &Ca) -> String {
    let mut origin = Origin::http1(Server::new(identity)).await;
    let forwarder = forwarder(trusting(trusted));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (error, _) = fail(&forwarder, https_over(origin.addr(), protocol)).await;
        assert_eq!(error.kind(), ErrorKind::TlsCertificateError);
        assert!(error.may_retry(), "nothing was sent");
        origin.handshake().await.unwrap_err();
    }
    let (error, report) = fail(&forwarder, https(origin.addr())).await;
    assert_eq!(error.kind(), ErrorKind::TlsCertificateError);
    assert!(report.contains(&origin.addr().to_string()), "{report}");
    report
}

#[tokio::test]
async fn rfc9110_4_3_4_certificate_of_an_unknown_ca_is_refused() {
    let report = refused(Ca::named("another CA").issue(NAME), &Ca::new()).await;
    assert!(
        report.contains("roots of the TLS profile \"default\""),
        "{report}"
    );
    assert!(report.contains("UnknownIssuer"), "{report}");
}

#[tokio::test]
async fn rfc9110_4_3_4_certificate_of_a_ca_with_another_key_is_refused() {
    let report = refused(Ca::new().issue(NAME), &Ca::new()).await;
    assert!(report.contains("has the CA been renewed"), "{report}");
}

#[tokio::test]
async fn rfc9110_4_3_4_certificate_for_another_name_is_refused() {
    let ca = Ca::new();
    let report = refused(ca.issue("other.default.svc.cluster.local"), &ca).await;
    assert!(report.contains("for another name"), "{report}");
    assert!(report.contains(NAME), "{report}");
}

#[tokio::test]
async fn rfc9110_4_3_4_expired_certificate_is_refused() {
    let ca = Ca::new();
    let expired = ca.issue_with(NAME, |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let report = refused(expired, &ca).await;
    assert!(report.contains("expired"), "{report}");
}

#[tokio::test]
async fn rfc9110_4_3_4_certificate_that_is_not_valid_yet_is_refused() {
    let ca = Ca::new();
    let early = ca.issue_with(NAME, |params| {
        params.not_before = rcgen::date_time_ymd(4000, 1, 1);
        params.not_after = rcgen::date_time_ymd(4001, 1, 1);
    });
    let report = refused(early, &ca).await;
    assert!(report.contains("not valid yet"), "{report}");
}

#[tokio::test]
async fn server_name_can_be_an_address() {
    let ca = Ca::new();
    let mut origin = Origin::http1(Server::new(ca.issue("10.96.0.7"))).await;
    let tls = Tls::default().with_server_name("10.96.0.7");
    let request = get(Upstream::new(origin.addr()).tls(tls));
    read(send(&forwarder(trusting(&ca)), request).await).await;
    assert_eq!(origin.handshake().await.unwrap().name, None, "RFC 6066 §3");
}

#[tokio::test]
async fn server_names_do_not_share_connections() {
    let ca = Ca::new();
    let wild = ca.issue("*.default.svc.cluster.local");
    let mut origin = Origin::http1(Server::new(wild)).await;
    let forwarder = forwarder(trusting(&ca));
    for _ in 0..2 {
        for name in ["a.default.svc.cluster.local", "b.default.svc.cluster.local"] {
            let tls = Tls::default().with_server_name(name);
            let request = get(Upstream::new(origin.addr()).tls(tls));
            read(send(&forwarder, request).await).await;
        }
    }
    let names = [origin.handshake().await, origin.handshake().await];
    let mut names = names.map(|seen| seen.unwrap().name.unwrap());
    names.sort_unstable();
    assert!(
        names[0].starts_with("a.") && names[1].starts_with("b."),
        "{names:?}"
    );
    assert_eq!(origin.more_handshakes(), 0);
}

/// Two profiles to the same address: the one without a certificate must not reuse a connection
/// of the one with it.
#[tokio::test]
async fn profiles_do_not_share_connections() {
    let ca = Ca::new();
    let mut origin = Origin::http1(mutual(&ca)).await;
    let me = ca.issue("gateway");
    let forwarder = Forwarder::builder()
        .tls_profile("gateway", client_with_certificate(&ca, &me))
        .tls_profile("without-certificate", trusting(&ca))
        .build();
    let request = |profile: &str| {
        let tls = Tls::default().with_profile(profile).with_server_name(NAME);
        get(Upstream::new(origin.addr()).tls(tls))
    };
    read(send(&forwarder, request("gateway")).await).await;
    send(&forwarder, request("without-certificate"))
        .await
        .unwrap_err();
    assert!(origin.handshake().await.unwrap().client.is_some());
    origin.handshake().await.unwrap_err();
}

fn mutual(ca: &Ca) -> Server {
    Server {
        clients: Some(ca.der().clone()),
        ..Server::of(ca)
    }
}

fn client_with_certificate(ca: &Ca, me: &Identity) -> TlsClient {
    TlsClient::builder()
        .roots_pem(ca.pem())
        .client_certificate_pem(me.chain.as_str(), me.key.as_str())
        .build()
        .unwrap()
}

#[tokio::test]
async fn client_certificate_is_presented() {
    let ca = Ca::new();
    let mut origin = Origin::http1(mutual(&ca)).await;
    let client = client_with_certificate(&ca, &ca.issue("gateway"));
    read(send(&forwarder(client), https(origin.addr())).await).await;
    assert!(origin.handshake().await.unwrap().client.is_some());
}

#[tokio::test]
async fn missing_client_certificate_is_named_in_the_error_tls12() {
    let ca = Ca::new();
    let origin = Origin::http1(Server {
        versions: ONLY_TLS12,
        ..mutual(&ca)
    })
    .await;
    let (error, report) = fail(&forwarder(trusting(&ca)), https(origin.addr())).await;
    assert_eq!(error.kind(), ErrorKind::TlsAlertReceived);
    assert!(error.may_retry(), "nothing was sent");
    assert!(report.contains("wants a client certificate"), "{report}");
}

#[tokio::test]
async fn client_certificate_of_an_unknown_ca_is_named_in_the_error_tls12() {
    let ca = Ca::new();
    let origin = Origin::http1(Server {
        versions: ONLY_TLS12,
        ..mutual(&ca)
    })
    .await;
    let client = client_with_certificate(&ca, &Ca::new().issue("gateway"));
    let (error, report) = fail(&forwarder(client), https(origin.addr())).await;
    assert_eq!(error.kind(), ErrorKind::TlsAlertReceived);
    assert!(
        report.contains("does not take the client certificate"),
        "{report}"
    );
}

/// In TLS 1.3 a server rejects a client's certificate after the client has completed the handshake.
#[tokio::test]
async fn rfc8446_4_4_2_4_late_rejection_has_its_own_error_type() {
    let ca = Ca::new();
    let origin = Origin::http1(mutual(&ca)).await;
    for (client, hint) in [
        (trusting(&ca), "wants a client certificate"),
        (
            client_with_certificate(&ca, &Ca::named("another CA").issue("gateway")),
            "does not take the client certificate",
        ),
    ] {
        let forwarder = forwarder(client);
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let (error, report) = fail(&forwarder, https_over(origin.addr(), protocol)).await;
            assert_eq!(error.kind(), ErrorKind::TlsAlertReceived, "{report}");
            assert!(report.contains(hint), "{report}");
        }
    }
}

#[tokio::test]
async fn min_version_is_enforced() {
    let ca = Ca::new();
    let origin = Origin::http1(Server {
        versions: ONLY_TLS12,
        ..Server::of(&ca)
    })
    .await;
    read(send(&forwarder(trusting(&ca)), https(origin.addr())).await).await;
    let strict = TlsClient::builder()
        .roots_pem(ca.pem())
        .min_version(TlsVersion::Tls13)
        .build()
        .unwrap();
    let (error, report) = fail(&forwarder(strict), https(origin.addr())).await;
    assert_eq!(error.kind(), ErrorKind::TlsAlertReceived);
    assert!(report.contains("no TLS version"), "{report}");
}

#[tokio::test]
async fn rfc8446_2_2_sessions_are_resumed() {
    let ca = Ca::new();
    let mut origin = Origin::http1(Server::of(&ca)).await;
    let forwarder = reopening(trusting(&ca));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        read(send(&forwarder, https(origin.addr())).await).await;
        let resumed = origin.handshake().await.unwrap().resumed;
        assert_eq!(resumed, kind == HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn renewed_certificate_is_presented_after_a_reload() {
    let ca = Ca::new();
    let mut origin = Origin::http1(mutual(&ca)).await;
    let client = client_with_certificate(&ca, &ca.issue("gateway"));
    let forwarder = reopening(client.clone());
    read(send(&forwarder, https(origin.addr())).await).await;
    let before = origin.handshake().await.unwrap();

    let renewed = ca.issue("gateway");
    let new = TlsClient::builder()
        .roots_pem(ca.pem())
        .client_certificate_pem(renewed.chain, renewed.key);
    assert_eq!(client.reload(new).unwrap(), 1);
    read(send(&forwarder, https(origin.addr())).await).await;
    let after = origin.handshake().await.unwrap();
    // A resumed session would keep the old certificate.
    assert!(!after.resumed);
    assert_ne!(after.client.unwrap(), before.client.unwrap());
}

#[tokio::test]
async fn no_request_begins_on_a_connection_with_old_settings() {
    let ca = Ca::new();
    let mut http1 = Origin::http1(Server::of(&ca)).await;
    let mut http2 = Origin::start(Server::of(&ca), protocol::http2).await;
    for (origin, protocol) in [(&mut http1, Protocol::Http1), (&mut http2, Protocol::Http2)] {
        let client = trusting(&ca);
        let forwarder = forwarder(client.clone());
        for generation in 0..3 {
            assert_eq!(client.generation(), generation);
            for _ in 0..2 {
                let request = https_over(origin.addr(), protocol);
                read(send(&forwarder, request).await).await;
            }
            origin.handshake().await.unwrap();
            assert_eq!(origin.more_handshakes(), 0, "kept until the reload");
            client
                .reload(TlsClient::builder().roots_pem(ca.pem()))
                .unwrap();
        }
    }
}

#[tokio::test]
async fn new_ca_is_trusted_after_a_reload() {
    let (old, new) = (Ca::new(), Ca::new());
    let origin = Origin::http1(Server::of(&new)).await;
    let client = trusting(&old);
    let forwarder = forwarder(client.clone());
    let (error, _) = fail(&forwarder, https(origin.addr())).await;
    assert_eq!(error.kind(), ErrorKind::TlsCertificateError);
    let both = TlsClient::builder()
        .roots_pem(old.pem())
        .roots_pem(new.pem());
    client.reload(both).unwrap();
    read(send(&forwarder, https(origin.addr())).await).await;
}
