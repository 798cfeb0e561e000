use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::copy::{Copy, End, Ended, Limits};

const IDLE: Duration = Duration::from_secs(100);
const HALF_CLOSED: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits {
    idle: Some(IDLE),
    half_closed: Some(HALF_CLOSED),
};
const ENDLESS: Limits = Limits {
    idle: None,
    half_closed: None,
};

impl End for DuplexStream {}

impl End for TcpStream {
    fn cut_off(&mut self) {
        self.set_zero_linger().unwrap();
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

type Joined = JoinHandle<io::Result<Ended>>;

fn join<C, U>(client: C, upstream: U, early: &[u8], limits: Limits) -> Joined
where
    C: End + Send + 'static,
    U: End + Send + 'static,
{
    let mut copy = Copy::new(client, upstream, early, limits);
    tokio::spawn(async move { poll_fn(|cx| copy.poll(cx)).await })
}

/// The far ends of a tunnel between in-memory pipes of `size` octets.
fn tunnel(size: usize, limits: Limits) -> (DuplexStream, DuplexStream, Joined) {
    let (client, near_client) = duplex(size);
    let (upstream, near_upstream) = duplex(size);
    let joined = join(near_client, near_upstream, b"", limits);
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
async fn octets_go_both_ways_and_early_ones_go_first() {
    let (mut client, near_client) = duplex(64);
    let (mut upstream, near_upstream) = duplex(64);
    let joined = join(near_client, near_upstream, b"early", LIMITS);
    upstream.write_all(b" bird").await.unwrap();
    expect(&mut client, "early bird").await;
    client.write_all(b"worm").await.unwrap();
    expect(&mut upstream, "worm").await;
    drop((client, upstream));
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
}

#[tokio::test]
async fn an_end_goes_one_way_while_the_other_goes_on() {
    for client_ends_first in [true, false] {
        let (client, upstream, joined) = tunnel(64, LIMITS);
        let (mut first, mut second) = if client_ends_first {
            (client, upstream)
        } else {
            (upstream, client)
        };
        first.write_all(b"last words").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
        second.write_all(b"still here").await.unwrap();
        expect(&mut first, "still here").await;
        second.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
    }
}

#[tokio::test]
async fn much_goes_both_ways_at_once_through_narrow_pipes() {
    let (client, upstream, joined) = tunnel(1000, LIMITS);
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
            assert!(got == bulk, "{} octets", got.len());
        }
    };
    tokio::join!(talk(client), talk(upstream));
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_nothing_goes_through_is_closed_on_time() {
    let (mut client, mut upstream, joined) = tunnel(64, LIMITS);
    let start = Instant::now();
    // Either way counts.
    tokio::time::sleep(IDLE / 2).await;
    client.write_all(b"a").await.unwrap();
    tokio::time::sleep(IDLE / 2).await;
    upstream.write_all(b"b").await.unwrap();
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
    assert_eq!(start.elapsed().as_secs(), (IDLE * 2).as_secs());
    expect(&mut upstream, "a").await;
    assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0, "told of the end");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_idle_too() {
    let (_client, mut upstream, joined) = tunnel(64, LIMITS);
    let writing = tokio::spawn(async move { upstream.write_all(&[0; 100_000]).await });
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Idle);
    writing.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_tunnel_has_less_time_and_more_with_each_octet() {
    let (mut client, mut upstream, joined) = tunnel(64, LIMITS);
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
async fn without_limits_nothing_is_closed() {
    let (mut client, mut upstream, joined) = tunnel(64, ENDLESS);
    upstream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert!(!joined.is_finished());
    client.write_all(b"x").await.unwrap();
    expect(&mut upstream, "x").await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_beyond_all_time_is_none() {
    let forever = Limits {
        idle: Some(Duration::MAX),
        half_closed: Some(Duration::MAX),
    };
    let (mut client, mut upstream, _joined) = tunnel(64, forever);
    client.write_all(b"x").await.unwrap();
    expect(&mut upstream, "x").await;
}

#[tokio::test]
async fn a_reset_of_one_end_resets_the_other() {
    for client_resets in [true, false] {
        let (client, near_client) = socket().await;
        let (upstream, near_upstream) = socket().await;
        let joined = join(near_client, near_upstream, b"", ENDLESS);
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
async fn a_reset_is_noticed_of_an_end_that_is_not_read_from() {
    // It ended, and the other has nothing to say to it.
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let joined = join(near_client, near_upstream, b"", ENDLESS);
    client.shutdown().await.unwrap();
    assert_eq!(upstream.read(&mut [0]).await.unwrap(), 0);
    reset(client);
    joined.await.unwrap().unwrap_err();
    // It had been told the end of what the client says, and still cannot say anything.
    let error = upstream.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

    // It said more than the other reads.
    let (client, near_client) = socket().await;
    let (upstream, near_upstream) = socket().await;
    let mut copy = Copy::new(near_client, near_upstream, b"", ENDLESS);
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
async fn what_an_upstream_said_before_it_closed_reaches_a_client_that_is_still_sending() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    // Both are there when the tunnel looks: the reason, and a reset for what was sent after it.
    upstream.write_all(b"go away").await.unwrap();
    drop(upstream);
    near_upstream.readable().await.unwrap();
    client.write_all(b"more and more").await.unwrap();
    near_client.readable().await.unwrap();
    let _ = near_upstream.try_write(b"x");
    let joined = join(near_client, near_upstream, b"", ENDLESS);
    expect(&mut client, "go away").await;
    is_reset(&mut client).await;
    joined.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn an_idle_tunnel_is_cut_off() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let at_once = Limits {
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
    let joined = join(near_client, near_upstream, b"", ENDLESS);
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    upstream.write_all(b"same here").await.unwrap();
    upstream.shutdown().await.unwrap();
    assert_eq!(joined.await.unwrap().unwrap(), Ended::Complete);
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    upstream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "same herelast words");
}

#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_is_not_woken_but_by_its_alarm() {
    let (mut client, near_client) = duplex(64);
    let (mut upstream, near_upstream) = duplex(64);
    let mut copy = Copy::new(near_client, near_upstream, b"", LIMITS);
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
    // And that once more, to see whether what moved had moved since.
    assert!(*polls.borrow_and_update() <= before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_busy_tunnel_is_not_idle_and_then_an_eighth_late_at_most() {
    for pause in [IDLE / 3, IDLE / 9, IDLE / 20, IDLE - Duration::from_secs(1)] {
        let (mut client, mut upstream, joined) = tunnel(64, LIMITS);
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

/// An end is not asked again that would say when there is something; what comes on both at once must
/// not be missed for that.
#[tokio::test]
async fn what_comes_on_both_ends_at_once_goes_through() {
    let (mut client, near_client) = socket().await;
    let (mut upstream, near_upstream) = socket().await;
    let _joined = join(near_client, near_upstream, b"", LIMITS);
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
async fn an_idle_tunnel_holds_no_buffer() {
    // Room for 10 000 WebSockets that say nothing most of the time.
    assert!(size_of::<Copy<TcpStream, TcpStream>>() <= 384);
    let (mut client, near_client) = duplex(16);
    let (mut upstream, near_upstream) = duplex(16);
    let mut copy = Copy::new(near_client, near_upstream, &[0; 100], LIMITS);
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
