//! HTTP/2 connections and their parts.

mod timeouts;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use mesh_ingress_core::Downstream;
use mesh_ingress_http2::frame::{self, FrameHeader, flag, kind, setting};
use mesh_ingress_io::MAX_READ;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ready_queue::{ReadyQueue, StreamWaker};
use super::reset_budget::ResetBudget;
use super::*;
use crate::RequestBody;
use crate::client::Client;
use crate::connection::{ConnectionContext, Timeouts};
use crate::drain::{self, DrainTrigger, DrainWatcher};

/// `GET http://shop.example.com/`
const GET: &[u8] = b"\x82\x86\x84\x01\x10shop.example.com";

struct Peer {
    stream: TcpStream,
    served: JoinHandle<Result<(), BoxError>>,
    drain: DrainTrigger,
}

async fn not_found(_: Request<RequestBody>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new(String::from("nobody is here"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}

/// A client of a server that answers with 404, and has received these bytes behind the preface.
async fn client(bytes: &[u8]) -> Peer {
    client_with_timeout(bytes, None).await
}

/// The same with an idle time-out.
async fn client_with_timeout(bytes: &[u8], idle_timeout: Option<Duration>) -> Peer {
    let (mut stream, accepted, begun, client) = connected().await;
    stream.write_all(bytes).await.unwrap();
    let (drain, watcher) = drain::channel();
    let served = async move {
        let session = session(client, idle_timeout, watcher.clone());
        let notice = pin!(watcher.notice());
        serve(accepted, begun, session, notice).await
    };
    Peer {
        stream,
        served: tokio::spawn(served),
        drain,
    }
}

/// Both ends of a connection, and what the server's begins with.
async fn connected() -> (TcpStream, Conn, ReadBuf, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(connecting, listener.accept());
    let (accepted, peer) = accepted.unwrap();
    let client = Client::new(Downstream::new(peer));
    let mut begun = ReadBuf::new(MAX_READ);
    begun.bytes_mut().extend_from_slice(frame::PREFACE);
    (stream.unwrap(), accepted.into(), begun, client)
}

fn session(
    client: Client,
    http2_idle: Option<Duration>,
    drain: DrainWatcher,
) -> Box<Session<impl HttpService>> {
    let context = Arc::new(ConnectionContext {
        timeouts: Timeouts {
            http2_idle,
            ..Timeouts::default()
        },
        drain,
        _open: None,
    });
    Box::new(Session {
        client,
        service: tower::service_fn(not_found),
        context,
    })
}

/// A connection that is polled by the test.
fn connection(conn: Conn, begun: ReadBuf, client: Client) -> Connection<impl HttpService> {
    let (_, watcher) = drain::channel();
    Connection::new(conn, begun, session(client, None, watcher))
}

async fn next(stream: &mut TcpStream) -> Option<(FrameHeader, Vec<u8>)> {
    let mut head = [0; frame::HEADER_LEN];
    stream.read_exact(&mut head).await.ok()?;
    let head = FrameHeader::read(&head).unwrap();
    let mut payload = vec![0; head.length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head, payload))
}

impl Peer {
    async fn next(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        next(&mut self.stream).await
    }

    /// Answers a `PING`.
    async fn pong(&mut self, bytes: &[u8]) {
        let mut pong = Vec::new();
        frame::ping(&mut pong, bytes.try_into().unwrap(), true);
        self.stream.write_all(&pong).await.unwrap();
    }

    async fn next_of(&mut self, kind: u8) -> (FrameHeader, Vec<u8>) {
        loop {
            let (head, payload) = self.next().await.expect("a frame");
            if head.kind == kind {
                return (head, payload);
            }
        }
    }
}

fn settings(window: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, window)]);
    out
}

fn headers(stream: u32, flags: u8, section: &[u8]) -> Vec<u8> {
    let head = FrameHeader {
        length: section.len(),
        kind: kind::HEADERS,
        flags,
        stream,
    };
    [&head.to_bytes()[..], section].concat()
}

fn get(stream: u32) -> Vec<u8> {
    headers(stream, flag::END_STREAM | flag::END_HEADERS, GET)
}

/// Streams that end with their connection wake its driver, which does not wait for them any more.
#[tokio::test]
async fn a_closing_connection_is_not_kept_busy_by_its_streams() {
    let (_client, accepted, begun, client) = connected().await;
    let mut connection = connection(accepted, begun, client);
    connection.fail(Reason::NO_ERROR);
    StreamWaker::new(&connection.queue, 0).notify();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut connection = pin!(connection);
    for _ in 0..3 {
        let closed = connection.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(closed.is_pending(), "the client may still be sending");
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
}

/// Even if the client reads late.
#[tokio::test]
async fn rfc9113_5_4_1_an_error_comes_behind_earlier_frames() {
    const PINGS: usize = 25_000;
    let (mut client, accepted, begun, downstream) = connected().await;
    let socket = socket2::SockRef::from(accepted.tcp().unwrap());
    socket.set_send_buffer_size(4 * 1024).unwrap();
    let mut ping = Vec::new();
    frame::ping(&mut ping, [0; 8], false);
    let wrong = FrameHeader {
        length: 8,
        kind: kind::PING,
        flags: 0,
        stream: 3,
    };
    let bytes = [
        &settings(0)[..],
        &ping.repeat(PINGS),
        &wrong.to_bytes(),
        &[0; 8],
    ]
    .concat();
    let mut connection = pin!(connection(accepted, begun, downstream));
    {
        let mut writing = pin!(client.write_all(&bytes));
        poll_fn(|cx| {
            assert!(connection.as_mut().poll(cx).is_pending());
            match connection.phase {
                connection::Phase::Closing { .. } => writing.as_mut().poll(cx),
                _ => {
                    let _ = writing.as_mut().poll(cx);
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await
        .unwrap();
    }
    assert!(
        connection.send.buf.len() > send::MAX_BUFFERED,
        "more than the sockets take"
    );
    let reading = async {
        let mut answers = 0;
        let goaway = loop {
            let (head, payload) = next(&mut client).await.expect("a frame");
            match head.kind {
                kind::PING => answers += 1,
                kind::GOAWAY => break payload,
                _ => {}
            }
        };
        assert_eq!(answers, PINGS);
        assert_eq!(goaway[4..], 1_u32.to_be_bytes());
        assert!(next(&mut client).await.is_none());
    };
    let ((), served) = tokio::join!(reading, async {
        let served = connection.as_mut().await;
        connection.conn.shutdown().await.unwrap();
        served
    });
    served.unwrap();
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The window grows in large steps, but is never kept back for good.
#[test]
fn rfc9113_6_9_1_capacity_released_by_several_streams_is_added_up() {
    const HALF: usize = CONNECTION_WINDOW as usize / 2;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let queue = ReadyQueue::new();
    queue.begin_poll(&Context::from_waker(&waker));
    let mut ready = Vec::new();
    assert_eq!(queue.take(&mut ready, HALF - 10, HALF as i64), 0);
    queue.pause();
    queue.release_capacity(9);
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    queue.release_capacity(1);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    queue.begin_poll(&Context::from_waker(&waker));
    assert_eq!(queue.take(&mut ready, 0, HALF as i64), HALF);
    // Capacity released while the driver is polled makes it look again.
    queue.release_capacity(HALF);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    queue.pause();
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_stream_is_queued_once_until_it_is_dequeued() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let queue = ReadyQueue::new();
    queue.begin_poll(&Context::from_waker(&waker));
    queue.pause();
    let wakers = [7, 9].map(|slot| StreamWaker::new(&queue, slot));
    for _ in 0..3 {
        wakers[0].notify();
        wakers[1].notify();
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let mut ready = Vec::new();
    queue.take(&mut ready, 0, 1);
    assert_eq!(ready, [7, 9]);
    wakers[0].dequeued();
    wakers[0].notify();
    wakers[1].notify();
    ready.clear();
    queue.take(&mut ready, 0, 1);
    assert_eq!(ready, [7], "the other one is still queued");
}

#[test]
fn cve_2023_44487_a_client_that_resets_most_of_its_requests_is_cut_off() {
    let mut budget = ResetBudget::new();
    let use_up = |budget: &mut ResetBudget| (0..1_000).all(|_| budget.on_reset().is_ok());
    assert!(use_up(&mut budget));
    assert!(budget.on_reset().is_err());
    // Half of them is not most.
    let mut budget = ResetBudget::new();
    for _ in 0..10_000 {
        budget.on_response();
        assert!(budget.on_reset().is_ok());
    }
    assert!(
        !use_up(&mut budget),
        "responses do not pay for later resets"
    );
}

#[test]
fn a_broken_response_is_reset_with_the_reason_of_the_upstream() {
    #[derive(Debug, thiserror::Error)]
    #[error("broken")]
    struct Broken(#[source] h2::Error);
    let reset = Broken(h2::Reason::ENHANCE_YOUR_CALM.into());
    assert_eq!(reset_reason(&reset), Reason::ENHANCE_YOUR_CALM);
    let other = std::io::Error::other("broken");
    assert_eq!(reset_reason(&other), Reason::INTERNAL_ERROR);
}
