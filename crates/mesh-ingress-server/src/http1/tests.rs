use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use mesh_ingress_core::Downstream;
use mesh_ingress_http1::Decoder;
use mesh_ingress_http1::request::Head;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::body::Http1Body;
use super::header_timeout::Elapsed;
use super::transport::{BodyState, MAX_DISCARDED};
use super::*;
use crate::RequestBody;
use crate::client::Client;
use crate::drain;

/// Both ends of a connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// A connection on which these bytes have been sent, and the head of the request in them.
async fn received(bytes: &str) -> (TcpStream, SharedTransport, Head) {
    let (mut client, stream) = connected().await;
    client.write_all(bytes.as_bytes()).await.unwrap();
    let transport = Transport::new(stream.into(), ReadBuf::new(MAX_READ));
    let mut transport = SharedTransport::new(Box::new(transport));
    let mut headers = http::HeaderMap::new();
    let head = poll_fn(|cx| transport.lock().poll_head(&mut headers, cx)).await;
    (client, transport, head.unwrap())
}

/// A server that answers each request with 204, and a connection to it.
struct Served<S> {
    client: TcpStream,
    transport: SharedTransport,
    downstream: Client,
    service: S,
    drain: drain::DrainWatcher,
    _trigger: drain::DrainTrigger,
}

async fn no_content(_: Request<RequestBody>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn served() -> Served<impl HttpService> {
    let (client, stream) = connected().await;
    let peer = stream.peer_addr().unwrap();
    let (trigger, drain) = drain::channel();
    let transport = Transport::new(stream.into(), ReadBuf::new(MAX_READ));
    Served {
        client,
        transport: SharedTransport::new(Box::new(transport)),
        downstream: Client::new(Downstream::new(peer)),
        service: tower::service_fn(no_content),
        drain,
        _trigger: trigger,
    }
}

/// The connection of a [`Served`], and its client.
macro_rules! connection {
    ($served:ident) => {{
        let Served {
            client,
            transport,
            downstream,
            service,
            drain,
            ..
        } = &mut $served;
        let connection = Connection::new(transport, downstream, service, drain, None);
        (Box::pin(connection), client)
    }};
}

async fn answer(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_serves_its_next_request() {
    let mut served = served().await;
    for request in ["/first", "/second", "/third"] {
        let get = format!("GET {request} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n");
        let (connection, client) = connection!(served);
        client.write_all(get.as_bytes()).await.unwrap();
        let (end, head) = tokio::join!(connection, answer(client));
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert!(matches!(end, ConnectionEnd::Idle), "{request}: {end:?}");
        served.transport.lock().shrink();
    }
    let Served {
        mut client,
        transport,
        ..
    } = served;
    drop(transport);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_half_a_request_is_not_idle() {
    let mut served = served().await;
    let (connection, client) = connection!(served);
    client.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let rest = async {
        tokio::time::advance(Duration::from_secs(60)).await;
        let rest = b"st: shop.example.com\r\n\r\n";
        client.write_all(rest).await.unwrap();
        answer(client).await
    };
    let (end, head) = tokio::join!(connection, rest);
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert!(matches!(end, ConnectionEnd::Idle));
}

/// RFC 9112 §9.6: what follows the last request is never served, however long it keeps coming.
#[tokio::test(start_paused = true)]
async fn rfc9112_9_6_requests_behind_a_close_are_not_served() {
    let mut served = served().await;
    let (connection, client) = connection!(served);
    let mut bytes = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".to_vec();
    // One read to its last byte: it ends between two requests, and what follows is still in the kernel
    // when the connection is closed.
    let filler = "GET /filler HTTP/1.1\r\nhost: h\r\nx: \r\n\r\n";
    let padding = "p".repeat(8192 - bytes.len() - filler.len());
    bytes.extend(filler.replace("x: ", &format!("x: {padding}")).bytes());
    assert_eq!(bytes.len(), 8192);
    let evil = "GET /evil HTTP/1.1\r\nhost: h\r\n\r\n";
    bytes.extend(evil.repeat(100).bytes());
    client.write_all(&bytes).await.unwrap();

    let talk = async {
        let head = answer(client).await;
        assert!(head.contains("connection: close"), "{head}");
        // It sends for as long as the server reads.
        for _ in 0..50 {
            if client.write_all(evil.as_bytes()).await.is_err() {
                break;
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    };
    let (end, ()) = tokio::join!(connection, talk);
    assert!(matches!(end, ConnectionEnd::Closed), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_client_does_not_time_out() {
    let mut timeout = HeaderReadTimeout::new(Some(Duration::from_millis(100)));
    let poll = |timeout: &mut HeaderReadTimeout| {
        let waker = Waker::noop();
        timeout.poll(false, &mut Context::from_waker(waker))
    };
    assert!(poll(&mut timeout).is_pending());
    for _ in 0..5 {
        tokio::time::advance(Duration::from_millis(60)).await;
        timeout.reset();
        assert!(poll(&mut timeout).is_pending());
    }
    tokio::time::advance(Duration::from_millis(101)).await;
    assert_eq!(poll(&mut timeout), Poll::Ready(Elapsed::Timeout));
}

/// The lazy timer must not be late by more than half a second.
#[tokio::test(start_paused = true)]
async fn an_idle_client_is_found_within_a_second() {
    let mut timeout = HeaderReadTimeout::new(Some(Duration::from_secs(10)));
    let poll = |timeout: &mut HeaderReadTimeout, amid_request| {
        let waker = Waker::noop();
        timeout.poll(amid_request, &mut Context::from_waker(waker))
    };
    // Requests, one of them in pieces.
    for amid_request in [false, true, false] {
        assert!(poll(&mut timeout, amid_request).is_pending());
        tokio::time::advance(Duration::from_millis(90)).await;
        timeout.reset();
    }
    let begin = tokio::time::Instant::now();
    while poll(&mut timeout, false).is_pending() {
        tokio::time::advance(Duration::from_millis(10)).await;
        assert!(begin.elapsed() <= Duration::from_secs(1));
    }
    assert!(begin.elapsed() >= Duration::from_millis(500));
    // The rest of a request has ten seconds.
    timeout.reset();
    let begin = tokio::time::Instant::now();
    while poll(&mut timeout, true).is_pending() {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!((10..=11).contains(&begin.elapsed().as_secs()));
}

/// The driver does not read a socket that it knows to be empty. A request that comes at any moment must
/// not be missed for that.
#[tokio::test]
async fn requests_that_come_during_a_response_are_read_after_it() {
    let (mut client, mut transport, _) = received("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut headers = http::HeaderMap::new();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    for number in 1..=3 {
        transport.lock().begin_poll(&mut cx);
        assert!(transport.lock().poll_client_gone(&mut cx).is_pending());
        // A second read is still registered.
        assert!(
            transport
                .lock()
                .poll_head(&mut headers, &mut cx)
                .is_pending()
        );
        let get = format!("GET /{number} HTTP/1.1\r\nhost: h\r\n\r\n");
        client.write_all(get.as_bytes()).await.unwrap();
        while wakes.0.load(Ordering::Relaxed) < number {
            tokio::task::yield_now().await;
        }
        // Woken for something else at the same time, it is polled once.
        transport.lock().begin_poll(&mut cx);
        let head = transport.lock().poll_head(&mut headers, &mut cx);
        assert!(matches!(head, Poll::Ready(Ok(_))), "{number}: {head:?}");
    }
    // Another driver is not taken for the registered one.
    transport.lock().begin_poll(&mut cx);
    assert!(
        transport
            .lock()
            .poll_head(&mut headers, &mut cx)
            .is_pending()
    );
    let other = poll_fn(|cx| {
        transport.lock().begin_poll(cx);
        transport.lock().poll_head(&mut headers, cx)
    });
    let talk = client.write_all(b"GET /other HTTP/1.1\r\nhost: h\r\n\r\n");
    let (head, sent) = tokio::join!(other, talk);
    assert!(head.is_ok());
    sent.unwrap();
}

/// Other tasks of the thread must have their turn.
#[tokio::test]
async fn a_pipelining_client_does_not_keep_a_thread() {
    const REQUESTS: usize = 200;
    let mut served = served().await;
    let (mut connection, client) = connection!(served);
    let get = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";
    client
        .write_all(get.repeat(REQUESTS).as_bytes())
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let mut polls = 0;
    let end = poll_fn(|cx| {
        polls += 1;
        connection.as_mut().poll(cx)
    });
    assert!(matches!(end.await, ConnectionEnd::Closed));
    drop(connection);
    assert!(polls >= REQUESTS / 16, "{polls}");
    let Served {
        mut client,
        transport,
        ..
    } = served;
    drop(transport);
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 204").count(), REQUESTS);
}

/// Uses up the task's cooperative budget.
async fn use_up_budget() {
    poll_fn(|cx| {
        while tokio::task::coop::has_budget_remaining() {
            let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_budget_a_timeout_fires_and_a_drain_is_seen() {
    let mut timeout = HeaderReadTimeout::new(Some(Duration::from_millis(300)));
    let begin = tokio::time::Instant::now();
    use_up_budget().await;
    poll_fn(|cx| timeout.poll(true, cx)).await;
    assert_eq!(begin.elapsed().as_millis(), 300);

    let (trigger, watcher) = drain::channel();
    let mut notice = std::pin::pin!(watcher.notice());
    use_up_budget().await;
    assert!(notice.as_mut().given().now_or_never().is_none());
    tokio::task::yield_now().await;
    let end = async {
        tokio::task::yield_now().await;
        trigger.close();
    };
    tokio::join!(notice.given(), end);
}

/// The client's socket has one waker, the driver's. Another reader must neither be forgotten nor take the
/// driver's place.
#[tokio::test]
async fn a_body_is_read_by_another_task_than_the_driver() {
    let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    let (mut client, mut transport, head) = received(head).await;
    transport.lock().body = BodyState::Held;
    assert_eq!(head.body, Decoder::chunked());

    let mut body = Http1Body::new(&mut transport, Decoder::chunked());
    let reader = tokio::spawn(async move {
        let mut read = Vec::new();
        let next = |body: &mut Http1Body, cx: &mut Context<'_>| body.poll_frame(cx);
        while let Some(frame) = poll_fn(|cx| next(&mut body, cx)).await {
            let data = frame.unwrap().into_data().unwrap_or_default();
            read.push(String::from_utf8(data.to_vec()).unwrap());
        }
        read
    });
    // The driver, as it is during a response.
    let driver = poll_fn(|cx| {
        let mut transport = transport.lock();
        transport.begin_poll(cx);
        let body = transport.body;
        let gone = transport.poll_client_gone(cx);
        transport.pause();
        assert!(gone.is_pending());
        match body {
            BodyState::Complete => Poll::Ready(()),
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

/// Polling again must not wake the reader.
#[tokio::test]
async fn a_waiting_reader_does_not_wake_itself() {
    let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n";
    let (_client, mut transport, head) = received(head).await;
    let mut body = Http1Body::new(&mut transport, head.body);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for _ in 0..3 {
        let polled = body.poll_frame(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
}

/// Unless it is long or breaks off.
#[tokio::test]
async fn the_rest_of_an_abandoned_body_is_discarded() {
    let long = MAX_DISCARDED + 1;
    for (length, rest, more, discarded) in [
        (5, "hello", "", true),
        (5, "hell", "o", true),
        (5, "", "hello", true),
        (5, "hell", "", false),
        (long, "hello", "", false),
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        let bytes = format!("{head}{rest}");
        let (mut client, mut transport, head) = received(&bytes).await;
        let body = Http1Body::new(&mut transport, head.body);
        assert_eq!(body.size_hint().exact(), Some(length as u64));
        drop(body);
        let left = transport.lock().body;
        assert_eq!(left, BodyState::Abandoned(Decoder::Length(length as u64)));
        let discard = poll_fn(|cx| {
            let BodyState::Abandoned(left) = transport.lock().body else {
                return Poll::Ready(true);
            };
            transport.lock().poll_discard(left, cx)
        });
        let mut discard = std::pin::pin!(discard);
        let at_once = discard.as_mut().now_or_never();
        if rest.len() < length && length < long {
            assert_eq!(at_once, None, "{rest:?}");
            client.write_all(more.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(discard.await, discarded, "{rest:?}");
        } else {
            assert_eq!(at_once, Some(discarded), "{rest:?}");
        }
        assert_eq!(transport.lock().body == BodyState::Complete, discarded);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    let bytes = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhell";
    let (mut client, mut transport, head) = received(bytes).await;
    client.shutdown().await.unwrap();
    let mut body = Http1Body::new(&mut transport, head.body);
    // The driver reads it.
    let drive = |cx: &mut Context<'_>| {
        transport.lock().begin_poll(cx);
        Poll::Ready(())
    };
    poll_fn(drive).await;
    let first = poll_fn(|cx| body.poll_frame(cx)).await;
    let first = first.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, Bytes::from_static(b"hell"));
    let second = poll_fn(|cx| body.poll_frame(cx)).await;
    assert!(second.unwrap().is_err());
    assert!(!body.is_end_stream(), "it is not complete");
}

/// A body must not wait for a connection that is not served any more, keep its socket open, or take bytes
/// that are discarded there for its own.
#[tokio::test]
async fn a_body_does_not_outlive_its_connection() {
    for closing in [true, false] {
        let bytes = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhe";
        let (mut client, mut transport, head) = received(bytes).await;
        let mut body = Http1Body::new(&mut transport, head.body);
        transport.lock().body = BodyState::Held;
        let drive = |cx: &mut Context<'_>| {
            transport.lock().begin_poll(cx);
            Poll::Ready(())
        };
        poll_fn(drive).await;
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let reader = tokio::spawn(async move {
            let first = poll_fn(|cx| body.poll_frame(cx)).await;
            assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "he");
            begun.send(()).unwrap();
            let second = poll_fn(|cx| body.poll_frame(cx)).await;
            let again = poll_fn(|cx| body.poll_frame(cx)).await;
            (second, again, body)
        });
        has_begun.await.unwrap();
        if closing {
            let mut linger = crate::linger::Linger::default();
            let close = |cx: &mut Context<'_>| transport.lock().poll_close(&mut linger, cx);
            let talk = async {
                client.write_all(b"llo").await.unwrap();
                client.shutdown().await.unwrap();
            };
            tokio::join!(poll_fn(close), talk);
        }
        drop(transport);
        // The socket is closed, though there still is a body.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        let (second, again, body) = reader.await.unwrap();
        assert!(second.unwrap().is_err(), "closing: {closing}");
        assert!(again.unwrap().is_err(), "it stays incomplete");
        assert!(!body.is_end_stream());
    }
}
