use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::StatusCode;
use http_body::Body as _;
use mesh_ingress::{ClusterDns, Downstream, MeshIngress, Route};
use mesh_ingress_http1::Decoder;
use mesh_ingress_http1::request::Head;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::body::RequestBody;
use super::patience::Overdue;
use super::wire::Upload;
use super::*;
use crate::phase::{Phase, Stop};

/// Both ends of a connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// A connection on which this has been sent, and the head of the request in it.
async fn asked(octets: &str) -> (TcpStream, Shared, Head) {
    let (mut client, stream) = connected().await;
    client.write_all(octets.as_bytes()).await.unwrap();
    let mut wire = Shared::new(Wire::new(stream.into(), ReadBuf::new(BUFFER)));
    let mut headers = http::HeaderMap::new();
    let head = poll_fn(|cx| wire.lock().poll_head(&mut headers, cx)).await;
    (client, wire, head.unwrap())
}

/// A gateway that answers each request by itself, and a connection to it.
async fn connection() -> (TcpStream, Shared, MeshConnection, Stop) {
    let dns = ClusterDns::builder().nameserver(([127, 0, 0, 1], 1).into());
    let mesh = MeshIngress::builder()
        .resolver(dns.build().unwrap())
        .route(Route::any_host().respond(StatusCode::NO_CONTENT));
    let mesh = mesh.build().unwrap();
    let (client, stream) = connected().await;
    let peer = stream.peer_addr().unwrap();
    let (phase, seen) = watch::channel(Phase::Serving);
    // Serving for as long as the test runs.
    std::mem::forget(phase);
    let wire = Shared::new(Wire::new(stream.into(), ReadBuf::new(BUFFER)));
    let mesh = mesh.for_connection(&Downstream::new(peer));
    (client, wire, mesh, Stop::new(seen))
}

async fn answer(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Time is the test's own here: it moves on when nothing else does.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_put_aside_and_taken_up_again() {
    let (mut client, mut wire, mesh, stop) = connection().await;
    for request in ["/first", "/second", "/third"] {
        let get = format!("GET {request} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n");
        client.write_all(get.as_bytes()).await.unwrap();
        let active = Connection::new(&mut wire, &mesh, &stop, None);
        let (rested, head) = tokio::join!(active, answer(&mut client));
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert!(matches!(rested, Rested::Idle), "{request}: {rested:?}");
        wire.lock().rest();
    }
    // It is as if nothing had been in between: the client is told when it goes away.
    drop(wire);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_is_not_put_aside() {
    let (mut client, mut wire, mesh, stop) = connection().await;
    client.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let active = Connection::new(&mut wire, &mesh, &stop, None);
    let rest = async {
        // Time flies for whoever would put it aside.
        tokio::time::advance(Duration::from_secs(60)).await;
        let rest = b"st: shop.example.com\r\n\r\n";
        client.write_all(rest).await.unwrap();
        answer(&mut client).await
    };
    let (rested, head) = tokio::join!(active, rest);
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert!(matches!(rested, Rested::Idle));
}

/// RFC 9112 §9.6: what follows the last request is never served, however long it keeps coming.
#[tokio::test(start_paused = true)]
async fn rfc9112_9_6_what_is_closed_is_not_taken_up_again() {
    let (mut client, mut wire, mesh, stop) = connection().await;
    let mut octets = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".to_vec();
    // As much as is read at once, to its last octet: what is read ends between two requests, and
    // what follows is still with the kernel when the connection is closed.
    let filler = "GET /filler HTTP/1.1\r\nhost: h\r\nx: \r\n\r\n";
    let padding = "p".repeat(8192 - octets.len() - filler.len());
    octets.extend(filler.replace("x: ", &format!("x: {padding}")).bytes());
    assert_eq!(octets.len(), 8192);
    let evil = "GET /evil HTTP/1.1\r\nhost: h\r\n\r\n";
    octets.extend(evil.repeat(100).bytes());
    client.write_all(&octets).await.unwrap();

    let active = Connection::new(&mut wire, &mesh, &stop, None);
    let talk = async {
        let head = answer(&mut client).await;
        assert!(head.contains("connection: close"), "{head}");
        // It goes on for as long as it is read from.
        for _ in 0..50 {
            if client.write_all(evil.as_bytes()).await.is_err() {
                break;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    };
    let (rested, ()) = tokio::join!(active, talk);
    assert!(matches!(rested, Rested::Ended), "{rested:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_not_idle_however_quick_the_answer() {
    let mut patience = Patience::new(Some(Duration::from_millis(100)));
    let poll = |patience: &mut Patience| {
        let waker = Waker::noop();
        patience.poll(false, &mut Context::from_waker(waker))
    };
    assert!(poll(&mut patience).is_pending());
    for _ in 0..5 {
        tokio::time::advance(Duration::from_millis(60)).await;
        patience.reset();
        assert!(poll(&mut patience).is_pending());
    }
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(poll(&mut patience), Poll::Ready(Overdue::TooLate));
}

/// What is seldom looked at must not make that half a second more than half a second.
#[tokio::test(start_paused = true)]
async fn who_does_nothing_is_idle_within_a_second() {
    let mut patience = Patience::new(Some(Duration::from_secs(10)));
    let poll = |patience: &mut Patience, amid_request| {
        let waker = Waker::noop();
        patience.poll(amid_request, &mut Context::from_waker(waker))
    };
    // It has asked, in pieces, too.
    for amid_request in [false, true, false] {
        assert!(poll(&mut patience, amid_request).is_pending());
        tokio::time::advance(Duration::from_millis(90)).await;
        patience.reset();
    }
    let begin = tokio::time::Instant::now();
    while poll(&mut patience, false).is_pending() {
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(begin.elapsed() <= Duration::from_secs(1));
    }
    assert!(begin.elapsed() >= Duration::from_millis(500));
    // And late with the rest of a request after ten seconds.
    patience.reset();
    let begin = tokio::time::Instant::now();
    while poll(&mut patience, true).is_pending() {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!((10..=11).contains(&begin.elapsed().as_secs()));
}

/// The driver does not ask again what the socket would tell it; what comes at any moment between must
/// not be missed for that.
#[tokio::test]
async fn what_comes_while_a_request_is_answered_is_read_after_it() {
    let (mut client, mut wire, _) = asked("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut headers = http::HeaderMap::new();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    for number in 1..=3 {
        wire.lock().drive(&mut cx);
        assert!(wire.lock().poll_gone(&mut cx).is_pending());
        // Twice, and it is still the one waiting.
        assert!(wire.lock().poll_head(&mut headers, &mut cx).is_pending());
        let get = format!("GET /{number} HTTP/1.1\r\nhost: h\r\n\r\n");
        client.write_all(get.as_bytes()).await.unwrap();
        while wakes.0.load(Ordering::Relaxed) < number {
            tokio::task::yield_now().await;
        }
        // Woken for something else at the same time, it is driven once.
        wire.lock().drive(&mut cx);
        let head = wire.lock().poll_head(&mut headers, &mut cx);
        assert!(matches!(head, Poll::Ready(Ok(_))), "{number}: {head:?}");
    }
    // Another driver is not taken for the one that asked.
    wire.lock().drive(&mut cx);
    assert!(wire.lock().poll_head(&mut headers, &mut cx).is_pending());
    let other = poll_fn(|cx| {
        wire.lock().drive(cx);
        wire.lock().poll_head(&mut headers, cx)
    });
    let talk = client.write_all(b"GET /other HTTP/1.1\r\nhost: h\r\n\r\n");
    let (head, sent) = tokio::join!(other, talk);
    assert!(head.is_ok());
    sent.unwrap();
}

/// What needs no upstream is answered without a pause; others of the thread must have theirs.
#[tokio::test]
async fn who_asks_without_end_does_not_keep_a_thread() {
    const REQUESTS: usize = 200;
    let (mut client, mut wire, mesh, stop) = connection().await;
    let get = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    client
        .write_all(get.repeat(REQUESTS).as_bytes())
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let mut active = Box::pin(Connection::new(&mut wire, &mesh, &stop, None));
    let mut polls = 0;
    let rested = poll_fn(|cx| {
        polls += 1;
        active.as_mut().poll(cx)
    });
    assert!(matches!(rested.await, Rested::Ended));
    drop(active);
    assert!(polls >= REQUESTS / 16, "{polls}");
    drop(wire);
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 204").count(), REQUESTS);
}

/// Uses up what a task may do at once: the runtime listens to nothing any more then.
async fn spend() {
    poll_fn(|cx| {
        while tokio::task::coop::has_budget_remaining() {
            let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_has_had_its_share_is_late_and_told_of_the_end_all_the_same() {
    let mut patience = Patience::new(Some(Duration::from_millis(300)));
    let begin = tokio::time::Instant::now();
    spend().await;
    poll_fn(|cx| patience.poll(true, cx)).await;
    assert_eq!(begin.elapsed().as_millis(), 300);

    let (phase, seen) = watch::channel(Phase::Serving);
    let stop = Stop::new(seen);
    let mut notice = std::pin::pin!(stop.notice());
    spend().await;
    assert!(notice.as_mut().given().now_or_never().is_none());
    tokio::task::yield_now().await;
    let end = async {
        tokio::task::yield_now().await;
        phase.send_replace(Phase::Ended);
    };
    tokio::join!(notice.given(), end);
}

/// The client's socket has one waker, and that is the driver's: whoever else reads must not be
/// forgotten, nor take the driver's place.
#[tokio::test]
async fn a_body_is_read_by_another_task_than_the_connections() {
    let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let (mut client, mut wire, head) = asked(head).await;
    wire.lock().upload = Upload::Held;
    assert_eq!(head.body, Decoder::chunked());

    let mut body = RequestBody::new(&mut wire, Decoder::chunked());
    let reader = tokio::spawn(async move {
        let mut read = Vec::new();
        let next = |body: &mut RequestBody, cx: &mut Context<'_>| Pin::new(body).poll_frame(cx);
        while let Some(frame) = poll_fn(|cx| next(&mut body, cx)).await {
            let data = frame.unwrap().into_data().unwrap_or_default();
            read.push(String::from_utf8(data.to_vec()).unwrap());
        }
        read
    });
    // What the driver does while a request is answered.
    let driver = poll_fn(|cx| {
        let mut wire = wire.lock();
        wire.drive(cx);
        let upload = wire.upload;
        let gone = wire.poll_gone(cx);
        wire.pause();
        assert!(gone.is_pending());
        match upload {
            Upload::Complete => Poll::Ready(()),
            _ => Poll::Pending,
        }
    });
    let talk = async {
        for chunk in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
            client.write_all(chunk.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (read, (), ()) = tokio::join!(reader, driver, talk);
    assert_eq!(read.unwrap().concat(), "onetwo");
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Something else may wake whoever reads a body; to look once more must not be a reason to look again.
#[tokio::test]
async fn who_waits_for_a_body_is_not_woken_by_its_own_waiting() {
    let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n";
    let (_client, mut wire, head) = asked(head).await;
    let mut body = std::pin::pin!(RequestBody::new(&mut wire, head.body));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for _ in 0..3 {
        let polled = body.as_mut().poll_frame(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
}

/// What is left of a body that nobody wants is read, unless it is long or breaks off.
#[tokio::test]
async fn what_is_left_of_a_body_is_drained() {
    let long = BUFFER + 1;
    for (length, rest, more, drained) in [
        (5, "hello", "", true),
        (5, "hell", "o", true),
        (5, "", "hello", true),
        (5, "hell", "", false),
        (long, "hello", "", false),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        let octets = format!("{head}{rest}");
        let (mut client, mut wire, head) = asked(&octets).await;
        let body = RequestBody::new(&mut wire, head.body);
        assert_eq!(body.size_hint().exact(), Some(length as u64));
        drop(body);
        let left = wire.lock().upload;
        assert_eq!(left, Upload::Left(Decoder::Length(length as u64)));
        let drain = poll_fn(|cx| {
            let Upload::Left(left) = wire.lock().upload else {
                return Poll::Ready(true);
            };
            wire.lock().poll_drain(left, cx)
        });
        let mut drain = std::pin::pin!(drain);
        let at_once = drain.as_mut().now_or_never();
        if rest.len() < length && length < long {
            assert_eq!(at_once, None, "{rest:?}");
            client.write_all(more.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(drain.await, drained, "{rest:?}");
        } else {
            assert_eq!(at_once, Some(drained), "{rest:?}");
        }
        assert_eq!(wire.lock().upload == Upload::Complete, drained);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    let octets = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhell";
    let (mut client, mut wire, head) = asked(octets).await;
    client.shutdown().await.unwrap();
    let mut body = std::pin::pin!(RequestBody::new(&mut wire, head.body));
    // It is read by the task that drives the connection.
    let drive = |cx: &mut Context<'_>| {
        wire.lock().drive(cx);
        Poll::Ready(())
    };
    poll_fn(drive).await;
    let first = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
    let first = first.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, Bytes::from_static(b"hell"));
    let second = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
    assert!(second.unwrap().is_err());
    assert!(!body.is_end_stream(), "it is not complete");
}

/// Whoever has a body must not wait for a connection that is not served any more, keep its socket
/// open, or take what is dropped there for a part of it.
#[tokio::test]
async fn a_body_does_not_outlive_its_connection() {
    for closing in [true, false] {
        let octets = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhe";
        let (mut client, mut wire, head) = asked(octets).await;
        let mut body = Box::pin(RequestBody::new(&mut wire, head.body));
        wire.lock().upload = Upload::Held;
        let drive = |cx: &mut Context<'_>| {
            wire.lock().drive(cx);
            Poll::Ready(())
        };
        poll_fn(drive).await;
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let reader = tokio::spawn(async move {
            let first = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "he");
            begun.send(()).unwrap();
            let second = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            let again = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
            (second, again, body)
        });
        has_begun.await.unwrap();
        if closing {
            let mut linger = crate::linger::Linger::default();
            let close = |cx: &mut Context<'_>| wire.lock().poll_close(&mut linger, cx);
            let talk = async {
                client.write_all(b"llo").await.unwrap();
                client.shutdown().await.unwrap();
            };
            tokio::join!(poll_fn(close), talk);
        }
        drop(wire);
        // The socket is closed, though there is a body still.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        let (second, again, body) = reader.await.unwrap();
        assert!(second.unwrap().is_err(), "closing: {closing}");
        assert!(again.unwrap().is_err(), "it stays incomplete");
        assert!(!body.is_end_stream());
    }
}
