//! Connections of the gateway, and their parts.

mod patience;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::StatusCode;
use mesh_ingress::{ClusterDns, Downstream, MeshIngress, Route};
use mesh_ingress_http2::frame::{self, FrameHeader, flag, kind, setting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::http1::BUFFER;
use crate::phase::{Phase, Stop};

/// `GET http://shop.example.com/`
const GET: &[u8] = b"\x82\x86\x84\x01\x10shop.example.com";

struct Client {
    stream: TcpStream,
    served: JoinHandle<Served>,
    phase: watch::Sender<Phase>,
}

/// A client of a gateway that answers by itself, and what it has sent behind the preface.
async fn client(octets: &[u8]) -> Client {
    client_within(octets, None).await
}

/// The same, which may be idle for so long.
async fn client_within(octets: &[u8], idle_timeout: Option<Duration>) -> Client {
    let (mut stream, accepted, begun, mesh) = connected().await;
    stream.write_all(octets).await.unwrap();
    let (phase, seen) = watch::channel(Phase::Serving);
    let served = async move {
        let stop = Stop::new(seen);
        serve(accepted, begun, mesh, pin!(stop.notice()), idle_timeout).await
    };
    Client {
        stream,
        served: tokio::spawn(served),
        phase,
    }
}

/// Both ends of a connection, and what the gateway's begins with.
async fn connected() -> (TcpStream, Conn, ReadBuf, MeshConnection) {
    let dns = ClusterDns::builder().nameserver(([127, 0, 0, 1], 1).into());
    let nobody = Route::host("nobody.example.com");
    let mesh = MeshIngress::builder()
        .resolver(dns.build().unwrap())
        .route(nobody.respond(StatusCode::NO_CONTENT));
    let mesh = mesh.build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(connecting, listener.accept());
    let (accepted, peer) = accepted.unwrap();
    let mesh = mesh.for_connection(&Downstream::new(peer));
    let mut begun = ReadBuf::new(BUFFER);
    begun.bytes_mut().extend_from_slice(frame::PREFACE);
    (stream.unwrap(), accepted.into(), begun, mesh)
}

async fn next(stream: &mut TcpStream) -> Option<(FrameHeader, Vec<u8>)> {
    let mut head = [0; frame::HEADER_LEN];
    stream.read_exact(&mut head).await.ok()?;
    let head = FrameHeader::read(&head).unwrap();
    let mut payload = vec![0; head.length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head, payload))
}

impl Client {
    async fn next(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        next(&mut self.stream).await
    }

    /// Answers a `PING`.
    async fn pong(&mut self, octets: &[u8]) {
        let mut pong = Vec::new();
        frame::ping(&mut pong, octets.try_into().unwrap(), true);
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

/// Streams that end with their connection have something to say, which nobody waits for.
#[tokio::test]
async fn a_connection_that_closes_is_not_kept_busy_by_its_streams() {
    let (_client, accepted, begun, mesh) = connected().await;
    let mut connection = Connection::new(accepted, begun, mesh, None);
    connection.fail(Reason::NO_ERROR);
    signals::Bell::new(&connection.signals, 0).ring();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut connection = pin!(connection);
    for _ in 0..3 {
        let closed = connection.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(closed.is_pending(), "the client may still be sending");
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
}

/// What was said before an error arrives, and the error behind it, even if the client reads late.
#[tokio::test]
async fn rfc9113_5_4_1_an_error_comes_behind_what_was_said_before() {
    const PINGS: usize = 25_000;
    let (mut client, accepted, begun, mesh) = connected().await;
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
    let octets = [
        &settings(0)[..],
        &ping.repeat(PINGS),
        &wrong.to_bytes(),
        &[0; 8],
    ]
    .concat();
    let mut connection = pin!(Connection::new(accepted, begun, mesh, None));
    {
        let mut writing = pin!(client.write_all(&octets));
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
        connection.out.outbox.len() > stream::OUT,
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
        connection.stream.shutdown().await.unwrap();
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

/// The window is given back in large pieces, but never kept back for good, whoever has read what.
#[test]
fn rfc9113_6_9_1_what_several_have_read_makes_one_window() {
    const HALF: usize = CONNECTION_WINDOW as usize / 2;
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let signals = signals::Signals::new();
    signals.drive(&Context::from_waker(&waker));
    let mut ready = Vec::new();
    assert_eq!(signals.take(&mut ready, HALF - 10, HALF as i64), 0);
    signals.pause();
    signals.release(9);
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    signals.release(1);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    signals.drive(&Context::from_waker(&waker));
    assert_eq!(signals.take(&mut ready, 0, HALF as i64), HALF);
    // What is read while the driver looks makes it look again.
    signals.release(HALF);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    signals.pause();
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
}

#[test]
fn a_bell_rings_once_until_it_is_heard() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let signals = signals::Signals::new();
    signals.drive(&Context::from_waker(&waker));
    signals.pause();
    let bells = [7, 9].map(|place| signals::Bell::new(&signals, place));
    for _ in 0..3 {
        bells[0].ring();
        bells[1].ring();
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let mut ready = Vec::new();
    signals.take(&mut ready, 0, 1);
    assert_eq!(ready, [7, 9]);
    bells[0].hear();
    bells[0].ring();
    bells[1].ring();
    ready.clear();
    signals.take(&mut ready, 0, 1);
    assert_eq!(ready, [7], "the other one has not been heard");
}

#[test]
fn cve_2023_44487_who_gives_up_most_of_what_it_asks_for_is_cut_off() {
    let mut flood = flood::Flood::new();
    let spoilt = |flood: &mut flood::Flood| (0..1_000).all(|_| flood.spoilt().is_ok());
    assert!(spoilt(&mut flood));
    assert!(flood.spoilt().is_err());
    // Half of them is not most.
    let mut flood = flood::Flood::new();
    for _ in 0..10_000 {
        flood.answered();
        assert!(flood.spoilt().is_ok());
    }
    assert!(
        !spoilt(&mut flood),
        "what was good does not pay for what is not yet bad"
    );
}

#[test]
fn a_broken_response_is_reset_as_the_upstream_has_done_it() {
    #[derive(Debug, thiserror::Error)]
    #[error("broken")]
    struct Broken(#[source] h2::Error);
    let reset = Broken(h2::Reason::ENHANCE_YOUR_CALM.into());
    assert_eq!(reason_of(&reset), Reason::ENHANCE_YOUR_CALM);
    let other = std::io::Error::other("broken");
    assert_eq!(reason_of(&other), Reason::INTERNAL_ERROR);
}
