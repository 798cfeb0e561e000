//! The HTTP/1.1 client: the order of its reads and writes, and bytes that belong to no response.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use mesh_ingress_core::{Body, BoxError, ErrorKind};
use mesh_ingress_forward::Forwarder;
use mesh_ingress_testkit::{Gate, RawOrigin, Step};
use support::{get, post, read, send};

const NOTHING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSAL: &str = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";

/// An origin on a thread of its own, independent of the runtime.
fn thread_origin(serve: impl FnOnce(&TcpListener) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || serve(&listener));
    addr
}

fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1);
        head.push(byte[0]);
    }
    head
}

/// A body that always has another small frame, and a count of the bytes taken.
fn endless(size: usize, most: u64) -> (Body, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let piece = Bytes::from(vec![b'x'; size]);
    let pieces = std::iter::from_fn(move || {
        let before = counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
        (before < most).then(|| Ok::<_, BoxError>(Frame::data(piece.clone())))
    });
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    (Body::new(body), taken)
}

#[tokio::test]
async fn early_response_is_read_during_a_fast_upload() {
    for size in [64, 1024] {
        let addr = thread_origin(|listener| {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            stream.write_all(REFUSAL.as_bytes()).unwrap();
            // Reads everything, so that writes are never pending.
            let mut drained = vec![0; 1 << 20];
            while stream.read(&mut drained).is_ok_and(|read| read > 0) {}
        });
        let most = 200_000_000;
        let (body, taken) = endless(size, most);
        let response = send(&Forwarder::default(), post(addr, body)).await.unwrap();
        assert_eq!(response.status(), 413);
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken < most / 2, "{taken} bytes in pieces of {size}");
    }
}

#[tokio::test]
async fn truncated_body_never_looks_complete() {
    let half = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let script = vec![Step::ReadHead, Step::send(half), Step::Close];
    let origin = RawOrigin::start([script]).await.unwrap();
    let response = send(&Forwarder::default(), get(origin.addr())).await;
    let mut body = response.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let failed = poll_fn(|cx| {
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), None);
        Pin::new(&mut body).poll_frame(cx)
    });
    assert!(failed.await.unwrap().is_err());
    assert!(!body.is_end_stream());
}

/// A failed write of the rest of the request takes the socket's error, and the next read then looks
/// like an orderly end.
#[tokio::test]
async fn rfc9112_8_reset_is_an_error_for_reads_and_writes() {
    let (go, wait) = mpsc::channel::<()>();
    let addr = thread_origin(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        let half = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
        stream.write_all(half.as_bytes()).unwrap();
        let _ = wait.recv();
        // With unread bytes: the kernel resets the connection.
    });
    let (body, _) = endless(64 * 1024, u64::MAX);
    let response = send(&Forwarder::default(), post(addr, body)).await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "hello");
    go.send(()).unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert!(!body.is_end_stream());
}

#[tokio::test]
async fn response_without_http_is_detected_by_its_first_bytes() {
    for greeting in [
        "\u{15}\u{3}\u{1}",
        "+OK ",
        "220 mail",
        "\r\nHTTP/1.1 200 OK",
    ] {
        let never = Gate::new();
        let script = vec![Step::ReadHead, Step::send(greeting), Step::Hold(never)];
        let origin = RawOrigin::start([script]).await.unwrap();
        let forwarder = Forwarder::builder().response_header_timeout(None).build();
        let error = send(&forwarder, get(origin.addr())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HttpProtocolError, "{greeting:?}");
    }
}

/// The kernel knows that the connection was reset, and the runtime does not know it yet.
#[tokio::test]
async fn post_without_a_byte_sent_is_sent_on_another_connection() {
    let (go, wait) = mpsc::channel::<()>();
    let (done, reset) = mpsc::channel::<()>();
    let addr = thread_origin(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(NOTHING.as_bytes()).unwrap();
        wait.recv().unwrap();
        let no_time = Some(Duration::ZERO);
        socket2::SockRef::from(&stream).set_linger(no_time).unwrap();
        drop(stream);
        done.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        stream.write_all(NOTHING.as_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let forwarder = Forwarder::default();
    read(send(&forwarder, get(addr)).await).await;
    go.send(()).unwrap();
    // Without the runtime noticing.
    reset.recv().unwrap();
    let response = send(&forwarder, post(addr, Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn header_limits_are_those_of_the_settings() {
    let fields = |count: usize| {
        let fields = "a: b\r\n".repeat(count);
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")
    };
    for (count, max, kind) in [
        (119, 120, None),
        (120, 120, Some(ErrorKind::HttpResponseHeaderSectionSize)),
        (9_000, usize::MAX, None),
        (
            11_000,
            usize::MAX,
            Some(ErrorKind::HttpResponseHeaderSectionSize),
        ),
    ] {
        let script = vec![Step::ReadHead, Step::send(fields(count))];
        let origin = RawOrigin::start([script]).await.unwrap();
        let forwarder = Forwarder::builder()
            .max_headers(max)
            .max_header_size(1 << 20)
            .build();
        let got = send(&forwarder, get(origin.addr())).await;
        assert_eq!(got.err().map(|error| error.kind()), kind, "{count}");
    }
}

#[tokio::test]
async fn malformed_bodies_have_their_error_types() {
    let large = format!("0\r\na: {}\r\n\r\n", "b".repeat(70_000));
    for (rest, kind) in [
        ("5\r\nhel", ErrorKind::ConnectionTerminated),
        ("5\nhello\r\n", ErrorKind::HttpResponseTransferCoding),
        ("0\r\na : b\r\n\r\n", ErrorKind::HttpProtocolError),
        (&large, ErrorKind::HttpResponseTrailerSectionSize),
    ] {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
        let script = vec![
            Step::ReadHead,
            Step::send(format!("{head}{rest}")),
            Step::Close,
        ];
        let origin = RawOrigin::start([script]).await.unwrap();
        let response = send(&Forwarder::default(), get(origin.addr()))
            .await
            .unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        let error = error.downcast_ref::<mesh_ingress_core::Error>().unwrap();
        assert_eq!(error.kind(), kind, "{rest:.20}");
    }
}
