//! How connections end, and ports without TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use mesh_ingress_core::{Body, ErrorKind, Protocol, Upstream};
use mesh_ingress_forward::Forwarder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{read, send};
use crate::tls_origin::{Ca, Origin, Server, ServerStream, head};
use crate::{fail, forwarder, get, https, https_over, reopening, trusting};

/// Answers with a body that ends with the connection.
async fn answer(stream: &mut ServerStream, head_and_body: &[u8]) {
    head(stream).await.unwrap();
    stream.write_all(head_and_body).await.unwrap();
    stream.flush().await.unwrap();
}

/// Ends the connection below TLS, as an attacker could.
async fn cut(stream: &mut ServerStream) {
    stream.get_mut().0.shutdown().await.unwrap();
    let _ = tokio::io::copy(stream.get_mut().0, &mut tokio::io::sink()).await;
}

#[tokio::test]
async fn rfc9112_9_8_close_delimited_body_needs_close_notify() {
    let ca = Ca::new();
    let clean = Origin::start(Server::of(&ca), async |mut stream| {
        answer(&mut stream, b"HTTP/1.1 200 OK\r\n\r\npay 100").await;
        stream.shutdown().await.unwrap();
    })
    .await;
    let forwarder = forwarder(trusting(&ca));
    let (body, _) = read(send(&forwarder, https(clean.addr())).await).await;
    assert_eq!(body, "pay 100");

    let truncated = Origin::start(Server::of(&ca), async |mut stream| {
        answer(&mut stream, b"HTTP/1.1 200 OK\r\n\r\npay 100").await;
        cut(&mut stream).await;
    })
    .await;
    let response = send(&forwarder, https(truncated.addr())).await.unwrap();
    let error = response.into_body().collect().await.unwrap_err();
    let error = error.downcast::<mesh_ingress_core::Error>().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    let report = error.report().to_string();
    assert!(report.contains("close_notify"), "{report}");
}

/// A message with a length is complete, however the connection ends after it.
#[tokio::test]
async fn rfc9112_9_8_complete_response_needs_no_close_notify() {
    let ca = Ca::new();
    let bodies: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let origin = Origin::start(Server::of(&ca), async move |mut stream| {
            answer(&mut stream, body).await;
            cut(&mut stream).await;
        });
        let mut origin = origin.await;
        let forwarder = forwarder(trusting(&ca));
        // The second request finds the connection closed, and gets another.
        for _ in 0..2 {
            let (body, _) = read(send(&forwarder, https(origin.addr())).await).await;
            assert_eq!(body, "ok");
            origin.handshake().await.unwrap();
        }
    }
}

#[tokio::test]
async fn rfc9112_9_8_connections_are_closed_with_close_notify() {
    let ca = Ca::new();
    let (sender, mut ends) = mpsc::unbounded_channel();
    let origin = Origin::start(Server::of(&ca), move |mut stream| {
        let sender = sender.clone();
        async move {
            answer(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            sender.send(stream.read(&mut [0]).await).unwrap();
        }
    })
    .await;
    read(send(&reopening(trusting(&ca)), https(origin.addr())).await).await;
    assert_eq!(ends.recv().await.unwrap().unwrap(), 0, "the end, not a cut");
}

/// A port that does not speak TLS.
async fn no_tls<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    addr
}

#[tokio::test]
async fn cleartext_port_is_named_in_the_error() {
    let addr = no_tls(async |mut stream| {
        stream.read_u8().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let forwarder = forwarder(trusting(&Ca::new()));
        let (error, report) = fail(&forwarder, https_over(addr, protocol)).await;
        assert_eq!(error.kind(), ErrorKind::TlsProtocolError);
        assert!(error.may_retry(), "nothing was sent");
        assert!(
            report.contains("does this port speak cleartext"),
            "{report}"
        );
    }
}

#[tokio::test]
async fn port_that_closes_is_named_in_the_error() {
    let addr = no_tls(async |mut stream| {
        stream.read_u8().await.unwrap();
    })
    .await;
    let (error, report) = fail(&forwarder(trusting(&Ca::new())), https(addr)).await;
    assert_eq!(error.kind(), ErrorKind::ConnectionTerminated);
    assert!(error.may_retry(), "nothing was sent");
    assert!(report.contains("does this port speak TLS"), "{report}");
}

/// Reads without answering, and notifies when `after` bytes have come.
async fn silent(after: usize) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (sender, begun) = mpsc::unbounded_channel();
    let addr = no_tls(move |mut stream| {
        let sender = sender.clone();
        async move {
            stream.read_exact(&mut vec![0; after]).await.unwrap();
            sender.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    });
    (addr.await, begun)
}

async fn timed_out(request: Request<Body>, mut begun: mpsc::UnboundedReceiver<()>) -> String {
    let forwarder = Forwarder::builder()
        .tls_profile("default", trusting(&Ca::new()))
        .connect_timeout(Duration::from_secs(3600))
        .build();
    let failed = tokio::spawn(async move { fail(&forwarder, request).await });
    begun.recv().await.unwrap();
    // From here on the paused clock jumps to the next timer.
    tokio::time::pause();
    let (error, report) = failed.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionTimeout);
    assert!(error.may_retry(), "nothing was sent");
    report
}

#[tokio::test]
async fn hanging_handshake_times_out() {
    let (addr, begun) = silent(1).await;
    let report = timed_out(https(addr), begun).await;
    assert!(
        report.contains("did not finish the TLS handshake"),
        "{report}"
    );
}

/// The connect timeout includes the HTTP/2 preface.
#[tokio::test]
async fn hanging_preface_times_out() {
    let (addr, begun) = silent(b"PRI * HTTP/2.0".len()).await;
    let upstream = Upstream::new(addr).protocol(Protocol::Http2);
    let report = timed_out(get(upstream), begun).await;
    assert!(report.contains("did not begin to speak HTTP/2"), "{report}");
}
