//! What is peculiar to HTTP/1.1 as it is spoken here: who reads and writes when, and what becomes of
//! octets that are no response.
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

/// An origin that is not disturbed by what the runtime does.
fn thread_origin(serve: impl FnOnce(&TcpListener) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || serve(&listener));
    addr
}

fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut octet).unwrap(), 1);
        head.push(octet[0]);
    }
    head
}

/// A body that always has another small piece, and what was taken of it.
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
async fn an_early_answer_is_heard_however_fast_the_body_goes_out() {
    for size in [64, 1024] {
        let addr = thread_origin(|listener| {
            let (mut stream, _) = listener.accept().unwrap();
            read_head(&mut stream);
            stream.write_all(REFUSAL.as_bytes()).unwrap();
            // Takes all that comes, so that writing never has to wait.
            let mut drained = vec![0; 1 << 20];
            while stream.read(&mut drained).is_ok_and(|read| read > 0) {}
        });
        let most = 200_000_000;
        let (body, taken) = endless(size, most);
        let response = send(&Forwarder::default(), post(addr, body)).await.unwrap();
        assert_eq!(response.status(), 413);
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken < most / 2, "{taken} octets in pieces of {size}");
    }
}

#[tokio::test]
async fn a_truncated_body_does_not_look_complete_for_a_moment() {
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

/// Whoever fails to send the rest of the request takes the error that tells of the reset; what is
/// read then looks like an orderly end.
#[tokio::test]
async fn rfc9112_8_a_reset_is_no_end_whoever_hears_of_it_first() {
    let (go, wait) = mpsc::channel::<()>();
    let addr = thread_origin(move |listener| {
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        let half = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello";
        stream.write_all(half.as_bytes()).unwrap();
        let _ = wait.recv();
        // With all that has not been read: the kernel resets it.
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
async fn who_does_not_speak_http_is_known_by_the_first_octets() {
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

/// The kernel knows that the connection has been reset, and the runtime has had no time to find out.
#[tokio::test]
async fn a_post_of_which_not_an_octet_went_out_is_sent_on_another_connection() {
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
    // Without a word to the runtime.
    reset.recv().unwrap();
    let response = send(&forwarder, post(addr, Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn what_may_come_is_what_was_set() {
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
async fn what_is_wrong_with_a_body_has_a_name() {
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
