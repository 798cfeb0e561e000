//! The handshake, and the state it leaves.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io;

use mesh_ingress_core::{Error, ErrorKind, Protocol, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Handshake, TlsClient, TlsVersion};
use crate::connect::Stream;

#[path = "../../../tests/support/tls_origin.rs"]
mod tls_origin;

use self::tls_origin::{Ca, NAME, Origin, Server};

fn trusting(ca: &Ca) -> TlsClient {
    TlsClient::builder().roots_pem(ca.pem()).build().unwrap()
}

async fn connect(client: &TlsClient, origin: &Origin, protocol: Protocol) -> Result<Stream, Error> {
    let tls = Tls::default().with_server_name(NAME);
    let handshake = Handshake::with_client(client, origin.addr(), &tls, protocol)?;
    let tcp = TcpStream::connect(origin.addr()).await.unwrap();
    handshake.run(tcp).await
}

#[tokio::test]
async fn rfc7301_upstream_chooses_the_protocol() {
    let offers: [(&[&[u8]], _); 3] = [
        (&[b"http/1.1", b"h2"], Protocol::Http1),
        (&[b"h2", b"http/1.1"], Protocol::Http2),
        // Without ALPN, HTTP/2 must not be guessed (RFC 9113 §3.2).
        (&[], Protocol::Http1),
    ];
    for (alpn, chosen) in offers {
        let ca = Ca::new();
        let origin = Origin::http1(Server {
            alpn,
            ..Server::of(&ca)
        });
        let mut origin = origin.await;
        let client = trusting(&ca);
        let stream = connect(&client, &origin, Protocol::Alpn).await.unwrap();
        assert_eq!(stream.negotiated(), Some(chosen));
        assert_eq!(
            origin.handshake().await.unwrap().name.as_deref(),
            Some(NAME)
        );
        let stream = connect(&client, &origin, Protocol::Http1).await.unwrap();
        assert_eq!(stream.negotiated(), Some(Protocol::Http1));
    }
}

#[tokio::test]
async fn reload_retires_open_connections() {
    let ca = Ca::new();
    let origin = Origin::http1(Server::of(&ca)).await;
    let client = trusting(&ca);
    let old = connect(&client, &origin, Protocol::Http1).await.unwrap();
    let state = old.tls_state();
    assert!(state.is_current());

    // A failed reload changes nothing.
    client.reload(TlsClient::builder()).unwrap_err();
    assert_eq!(client.generation(), 0);
    assert!(state.is_current());

    let clone = client.clone();
    let new = TlsClient::builder().root_der(ca.der().to_vec());
    assert_eq!(clone.reload(new).unwrap(), 1);
    assert_eq!(client.generation(), 1);
    assert!(!state.is_current());
    let new = connect(&client, &origin, Protocol::Http1).await.unwrap();
    assert!(new.tls_state().is_current());
    drop(old);
}

#[tokio::test]
async fn cleartext_connection_is_always_current() {
    let ca = Ca::new();
    let origin = Origin::http1(Server::of(&ca)).await;
    let stream = Stream::Plain(TcpStream::connect(origin.addr()).await.unwrap());
    assert_eq!(stream.negotiated(), None);
    assert!(stream.tls_state().is_current());
}

/// In TLS 1.3 a server rejects a client's certificate after the client has completed the handshake.
#[tokio::test]
async fn rfc8446_late_rejection_is_explained() {
    let ca = Ca::new();
    let mut origin = Origin::http1(Server {
        clients: Some(ca.der().clone()),
        ..Server::of(&ca)
    })
    .await;
    let client = TlsClient::builder()
        .roots_pem(ca.pem())
        .min_version(TlsVersion::Tls13)
        .build()
        .unwrap();
    let mut stream = connect(&client, &origin, Protocol::Http1).await.unwrap();
    let state = stream.tls_state();
    let vague = || Error::new(ErrorKind::ConnectionTerminated, "it broke");
    assert_eq!(
        state.explain(vague()).kind(),
        ErrorKind::ConnectionTerminated
    );

    stream.read_u8().await.unwrap_err();
    origin.handshake().await.unwrap_err();
    let error = state.explain(vague());
    assert_eq!(error.kind(), ErrorKind::TlsAlertReceived);
    assert!(!error.may_retry());
    assert!(state.explain(vague().retryable()).may_retry());
    let report = error.report().to_string();
    assert!(report.contains("wants a client certificate"), "{report}");
    assert!(report.contains("CertificateRequired"), "{report}");
}

/// How the connection ends for the origin: a clean end, or an error.
async fn end_seen(end: impl AsyncFnOnce(Stream)) -> io::Result<usize> {
    let ca = Ca::new();
    let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(Server::of(&ca), move |mut stream| {
        let sender = sender.clone();
        async move {
            stream.read_exact(&mut [0; 5]).await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
            sender.send(stream.read(&mut [0]).await).unwrap();
        }
    })
    .await;
    let client = trusting(&ca);
    let mut stream = connect(&client, &origin, Protocol::Http1).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    // A reset would overtake bytes that were not read yet.
    stream.read_exact(&mut [0]).await.unwrap();
    end(stream).await;
    ends.recv().await.unwrap()
}

#[tokio::test]
async fn rfc9112_9_8_drop_sends_close_notify() {
    assert_eq!(end_seen(async |stream| drop(stream)).await.unwrap(), 0);
}

#[tokio::test]
async fn rfc8446_6_1_shutdown_is_a_half_close() {
    let end = async |mut stream: Stream| {
        stream.shutdown().await.unwrap();
        // The other direction is still open.
        assert_eq!(
            stream.read(&mut [0]).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    };
    assert_eq!(end_seen(end).await.unwrap(), 0);
}

#[tokio::test]
async fn tunnel_that_is_reset_does_not_look_complete() {
    let end = async |mut stream: Stream| stream.reset_on_drop();
    let error = end_seen(end).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
