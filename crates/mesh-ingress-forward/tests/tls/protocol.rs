//! ALPN, and the protocol inside TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ingress_core::{ErrorKind, Protocol};
use tokio::io::AsyncReadExt;

use crate::support::{read, send};
use crate::tls_origin::{Ca, NAME, Origin, Server, ServerStream};
use crate::{fail, forwarder, https, https_over, trusting};

/// Answers with the request that it received.
pub(crate) async fn http2(stream: ServerStream) {
    let answer = service_fn(async |request: Request<Incoming>| {
        let echo = format!(
            "{:?} {}",
            request.version(),
            request.uri().authority().unwrap()
        );
        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(echo))))
    });
    let served =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
    let _ = served.await;
}

#[tokio::test]
async fn http1_is_offered_and_its_connection_reused() {
    let ca = Ca::new();
    let mut origin = Origin::http1(Server::of(&ca)).await;
    let forwarder = forwarder(trusting(&ca));
    for _ in 0..3 {
        let (body, _) = read(send(&forwarder, https(origin.addr())).await).await;
        assert_eq!(body, "ok");
    }
    let seen = origin.handshake().await.unwrap();
    assert_eq!(seen.name.as_deref(), Some(NAME), "RFC 6066 §3");
    // The origin accepts h2, too; the client did not offer it.
    assert_eq!(seen.alpn.as_deref(), Some("http/1.1"));
    // Session tickets came between the requests: they are not stray bytes.
    assert_eq!(origin.more_handshakes(), 0);
}

#[tokio::test]
async fn http2_is_negotiated() {
    let ca = Ca::new();
    let mut origin = Origin::start(Server::of(&ca), http2).await;
    let forwarder = forwarder(trusting(&ca));
    for _ in 0..3 {
        let request = https_over(origin.addr(), Protocol::Http2);
        let (body, _) = read(send(&forwarder, request).await).await;
        assert_eq!(body, format!("HTTP/2.0 {NAME}"));
    }
    assert_eq!(
        origin.handshake().await.unwrap().alpn.as_deref(),
        Some("h2")
    );
    assert_eq!(origin.more_handshakes(), 0);
}

#[tokio::test]
async fn rfc7301_origin_chooses_the_protocol() {
    let ca = Ca::new();
    let forwarder = forwarder(trusting(&ca));

    let both = Origin::start(Server::of(&ca), http2).await;
    let request = https_over(both.addr(), Protocol::Alpn);
    let (body, _) = read(send(&forwarder, request).await).await;
    assert_eq!(body, format!("HTTP/2.0 {NAME}"));

    let offers: [&[&[u8]]; 2] = [&[b"http/1.1"], &[]];
    for alpn in offers {
        let old = Origin::http1(Server {
            alpn,
            ..Server::of(&ca)
        })
        .await;
        let request = https_over(old.addr(), Protocol::Alpn);
        let (body, _) = read(send(&forwarder, request).await).await;
        assert_eq!(body, "ok");
    }
}

/// Counts the bytes that come inside TLS.
async fn counting(server: Server, bytes: Arc<AtomicUsize>) -> Origin {
    Origin::start(server, move |mut stream| {
        let bytes = Arc::clone(&bytes);
        async move {
            while let Ok(read @ 1..) = stream.read(&mut [0; 64]).await {
                bytes.fetch_add(read, Ordering::SeqCst);
            }
        }
    })
    .await
}

#[tokio::test]
async fn rfc9113_3_2_http2_is_not_spoken_without_alpn() {
    let ca = Ca::new();
    let bytes = Arc::new(AtomicUsize::new(0));
    let server = Server {
        alpn: &[],
        ..Server::of(&ca)
    };
    let mut origin = counting(server, Arc::clone(&bytes)).await;
    let request = https_over(origin.addr(), Protocol::Http2);
    let (error, report) = fail(&forwarder(trusting(&ca)), request).await;
    assert_eq!(error.kind(), ErrorKind::TlsProtocolError);
    assert!(error.may_retry(), "nothing was sent");
    assert!(report.contains("did not choose HTTP/2"), "{report}");
    assert_eq!(origin.handshake().await.unwrap().alpn, None);
    assert_eq!(bytes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn rfc7301_3_2_alert_of_an_origin_without_the_protocol_is_reported() {
    let ca = Ca::new();
    let origin = Origin::http1(Server {
        alpn: &[b"http/1.1"],
        ..Server::of(&ca)
    })
    .await;
    let request = https_over(origin.addr(), Protocol::Http2);
    let (error, report) = fail(&forwarder(trusting(&ca)), request).await;
    assert_eq!(error.kind(), ErrorKind::TlsAlertReceived);
    assert!(report.contains("does not speak HTTP/2"), "{report}");
}
