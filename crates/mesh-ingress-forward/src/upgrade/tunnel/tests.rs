use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::copy::{Copy, Ended, TunnelEnd};
use crate::settings::TunnelTimeouts;

const IDLE: Duration = Duration::from_secs(100);
const HALF_CLOSED: Duration = Duration::from_secs(10);
const TIMEOUTS: TunnelTimeouts = TunnelTimeouts {
    idle: Some(IDLE),
    half_closed: Some(HALF_CLOSED),
};
const NO_TIMEOUTS: TunnelTimeouts = TunnelTimeouts {
    idle: None,
    half_closed: None,
};

impl TunnelEnd for DuplexStream {}

impl TunnelEnd for TcpStream {
    fn reset_on_drop(&mut self) {
        self.set_zero_linger().unwrap();
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

type Joined = JoinHandle<io::Result<Ended>>;

fn join<C, U>(client: C, upstream: U, early: &[u8], timeouts: TunnelTimeouts) -> Joined
where
    C: TunnelEnd + Send + 'static,
    U: TunnelEnd + Send + 'static,
{
    let mut copy = Copy::new(client, upstream, early, timeouts);
    tokio::spawn(async move { poll_fn(|cx| copy.poll(cx)).await })
}

/// The far ends of a tunnel between in-memory pipes of `size` bytes.
fn tunnel(size: usize, timeouts: TunnelTimeouts) -> (DuplexStream, DuplexStream, Joined) {
    let (client, near_client) = duplex(size);
    let (upstream, near_upstream) = duplex(size);
    let joined = join(near_client, near_upstream, b"", timeouts);
    (client, upstream, joined)
}

async fn expect(end: &mut (impl AsyncReadExt + Unpin), text: &str) {
    let mut got = vec![0; text.len()];
    end.read_exact(&mut got).await.unwrap();
    assert_eq!(got, text.as_bytes());
}

async fn socket() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (dialed, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (dialed.unwrap(), accepted.unwrap().0)
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

async fn is_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_go_both_ways_and_early_bytes_go_first() {
    let (mut client, near_client) = duplex(64);
    let (mut upstream, near_upstream) = duplex(64);
    let joined = join(near_client, near_upstream, b"early", TIMEOUTS);
    upstream.write_all(b" bird").await.unwrap();
    expect(&mut client, "early bird").await;
    client.write_all(b"worm").await.unwrap();
    expect(&mut upstream, "worm").await;
    drop((client, upstream));
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
}

#[tokio::test]
async fn end_of_one_direction_leaves_the_other_open() {
    for client_ends_first in [true, false] {
        let (client, upstream, joined) = tunnel(64, TIMEOUTS);
        let (mut first, mut second) = if client_ends_first {
            (client, upstream)
        } else {
            (upstream, client)
        };
        first.write_all(b"last words").await.unwrap();
        first.shutdown().await.unwrap();
        let mut received = String::new();
        second.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "last words");
        second.write_all(b"still here").await.unwrap();
        expect(&mut first, "still here").await;
        second.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
    }
}

#[tokio::test]
async fn large_transfers_go_both_ways_through_small_pipes() {
    let (client, upstream, joined) = tunnel(1000, TIMEOUTS);
    let bulk: Vec<u8> = (0..1_000_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let talk = |end: DuplexStream| {
        let bulk = bulk.clone();
        async move {
            let (mut reader, mut writer) = tokio::io::split(end);
            let writing = async {
                writer.write_all(&bulk).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let ((), read) = tokio::join!(writing, reader.read_to_end(&mut got));
            read.unwrap();
            assert!(got == bulk, "{} bytes", got.len());
        }
    };
    tokio::join!(talk(client), talk(upstream));
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
}

#[tokio::test(start_paused = true)]
async fn idle_tunnel_is_closed_after_its_timeout() {
    let (mut client, mut upstream, joined) = tunnel(64, TIMEOUTS);
    let start = Instant::now();
    // Traffic in either direction counts.
    tokio::time::sleep(IDLE / 2).await;
    client.write_all(b"a").await.unwrap();
    tokio::time::sleep(IDLE / 2).await;
    upstream.write_all(b"b").await.unwrap();
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
    assert_eq!(start.elapsed().as_secs(), (IDLE * 2).as_secs());
    expect(&mut upstream, "a").await;
    assert_eq!(
        upstream.read(&mut [0]).await.unwrap(),
        0,
        "the end is forwarded"
    );
}

#[tokio::test(start_paused = true)]
async fn client_that_does_not_read_is_idle() {
    let (_client, mut upstream, joined) = tunnel(64, TIMEOUTS);
    let writing = tokio::spawn(async move { upstream.write_all(&[0; 100_000]).await });
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
    writing.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn half_closed_timeout_restarts_with_each_byte() {
    let (mut client, mut upstream, joined) = tunnel(64, TIMEOUTS);
    client.shutdown().await.unwrap();
    assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
    let start = Instant::now();
    for _ in 0..20 {
        tokio::time::sleep(HALF_CLOSED / 2).await;
        upstream.write_all(b"x").await.unwrap();
        expect(&mut client, "x").await;
    }
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
    assert_eq!(start.elapsed().as_secs(), (HALF_CLOSED * 11).as_secs());
}

#[tokio::test(start_paused = true)]
async fn tunnel_without_timeouts_stays_open() {
    let (mut client, mut upstream, joined) = tunnel(64, NO_TIMEOUTS);
    upstream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert!(!joined.is_finished());
    client.write_all(b"x").await.unwrap();
    expect(&mut upstream, "x").await;
}

#[tokio::test(start_paused = true)]
async fn timeout_beyond_all_time_is_none() {
    let forever = TunnelTimeouts {
        idle: Some(Duration::MAX),
        half_closed: Some(Duration::MAX),
    };
    let (mut client, mut upstream, _joined) = tunnel(64, forever);
    client.write_all(b"x").await.unwrap();
    expect(&mut upstream, "x").await;
}

#[tokio::test]
async fn reset_of_one_end_resets_the_other() {
    for client_resets in [true, false] {
        let (client, near_client) = socket().await;
        let (upstream, near_upstream) = socket().await;
        let joined = join(near_client, near_upstream, b"", NO_TIMEOUTS);
        let (resetting, mut other) = if client_resets {
            (client, upstream)
        } else {
            (upstream, client)
        };
        reset(resetting);
        let error = joined.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        is_reset(&mut other).await;
    }
}

#[tokio::test]
async fn reset_is_noticed_on_an_end_that_is_not_read_from() {
    // The client ended, and the upstream sends nothing to it.
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let joined = join(near_client, near_upstream, b"", NO_TIMEOUTS);
    client.shutdown().await.unwrap();
    assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
    reset(client);
    joined.await.unwrap().unwrap_err();
    // The upstream had read the end of the client's bytes, and cannot send any more.
    let error = upstream.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

    // The client sent more than the upstream reads.
    let (client, near_client) = socket().await;
    let (upstream, near_upstream) = socket().await;
    let mut copy = Copy::new(near_client, near_upstream, b"", NO_TIMEOUTS);
    while copy.buffered() == 0 {
        let _ = client.try_write(&[0; 64 * 1024]);
        let once = poll_fn(|cx| Poll::Ready(copy.poll(cx).is_pending()));
        assert!(once.await);
        tokio::task::yield_now().await;
    }
    reset(client);
    poll_fn(|cx| copy.poll(cx)).await.unwrap_err();
    drop(upstream);
}

#[tokio::test]
async fn last_bytes_of_an_upstream_reach_a_client_that_is_still_sending() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    // The tunnel finds both: the upstream's reason, and a reset for the bytes sent after it.
    upstream.write_all(b"go away").await.unwrap();
    drop(upstream);
    near_upstream.readable().await.unwrap();
    client.write_all(b"more and more").await.unwrap();
    near_client.readable().await.unwrap();
    let _ = near_upstream.try_write(b"x");
    let joined = join(near_client, near_upstream, b"", NO_TIMEOUTS);
    expect(&mut client, "go away").await;
    is_reset(&mut client).await;
    joined.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn idle_tunnel_is_reset() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let at_once = TunnelTimeouts {
        idle: Some(Duration::from_millis(1)),
        half_closed: None,
    };
    let joined = join(near_client, near_upstream, b"", at_once);
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
    is_reset(&mut client).await;
    is_reset(&mut upstream).await;
}

#[tokio::test]
async fn ends_that_have_ended_are_not_reset() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let joined = join(near_client, near_upstream, b"", NO_TIMEOUTS);
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    upstream.write_all(b"same here").await.unwrap();
    upstream.shutdown().await.unwrap();
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
    let mut received = String::new();
    client.read_to_string(&mut received).await.unwrap();
    upstream.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "same herelast words");
}

#[tokio::test(start_paused = true)]
async fn idle_tunnel_is_woken_by_its_timer_only() {
    let (mut client, near_client) = duplex(64);
    let (mut upstream, near_upstream) = duplex(64);
    let mut copy = Copy::new(near_client, near_upstream, b"", TIMEOUTS);
    let (count, mut polls) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        poll_fn(|cx| {
            count.send_modify(|count| *count += 1);
            copy.poll(cx)
        })
        .await
    });
    client.write_all(b"x").await.unwrap();
    expect(&mut upstream, "x").await;
    tokio::task::yield_now().await;
    let before = *polls.borrow_and_update();
    tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
    // One more poll, at the first part of the timeout.
    assert!(*polls.borrow_and_update() <= before + 1);
}

#[tokio::test(start_paused = true)]
async fn idle_timeout_of_a_busy_tunnel_is_at_most_an_eighth_late() {
    for pause in [IDLE / 3, IDLE / 9, IDLE / 20, IDLE - Duration::from_secs(1)] {
        let (mut client, mut upstream, joined) = tunnel(64, TIMEOUTS);
        for _ in 0..30 {
            tokio::time::sleep(pause).await;
            client.write_all(b"x").await.unwrap();
            expect(&mut upstream, "x").await;
        }
        let last = Instant::now();
        assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
        let late = last.elapsed().checked_sub(IDLE);
        assert!(
            late.is_some_and(|late| late <= IDLE / 8),
            "{pause:?}: {late:?}"
        );
    }
}

/// A pending end is not polled before it wakes the task. Bytes that come on both ends at once must
/// not be missed.
#[tokio::test]
async fn simultaneous_bytes_of_both_ends_go_through() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let _joined = join(near_client, near_upstream, b"", TIMEOUTS);
    for number in 0..1000 {
        let (up, down) = (format!("up {number}."), format!("down {number}."));
        let (first, second) = tokio::join!(
            client.write_all(up.as_bytes()),
            upstream.write_all(down.as_bytes())
        );
        first.unwrap();
        second.unwrap();
        tokio::join!(expect(&mut upstream, &up), expect(&mut client, &down));
    }
}

#[tokio::test]
async fn idle_tunnel_holds_no_buffer() {
    // 10,000 WebSockets are idle most of the time.
    assert!(size_of::<Copy<TcpStream, TcpStream>>() <= 384);
    let (mut client, near_client) = duplex(16);
    let (mut upstream, near_upstream) = duplex(16);
    let mut copy = Copy::new(near_client, near_upstream, &[0; 100], TIMEOUTS);
    let drive = poll_fn(|cx| match copy.poll(cx) {
        Poll::Ready(_) => panic!("still open"),
        Poll::Pending => Poll::Pending::<()>,
    });
    let talk = async {
        upstream.write_all(&[1; 10_000]).await.unwrap();
    };
    let listen = async {
        let mut got = vec![0; 10_100];
        client.read_exact(&mut got).await.unwrap();
    };
    tokio::select! {
        biased;
        () = drive => {}
        _ = async { tokio::join!(talk, listen) } => {}
    }
    let once = poll_fn(|cx| Poll::Ready(copy.poll(cx).is_pending()));
    assert!(once.await);
    assert_eq!(copy.buffered(), 0);
}
