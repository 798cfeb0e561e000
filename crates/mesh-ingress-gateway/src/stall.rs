//! Clients that do not take what they are sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::Flushed;
use tokio::time::{Instant, Sleep};

/// How long a client may take nothing of a response: nginx's `send_timeout`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a socket that takes no more is tried again. The runtime is told of room only when a
/// third of the socket's buffer is free, which may take a slow reader minutes.
const AGAIN: Duration = Duration::from_secs(5);

/// Cuts a client off that has stopped reading; hyper would wait for ever.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    stalled: Option<Stalled>,
    took: bool,
}

#[derive(Debug)]
struct Stalled {
    /// Since when the client has taken nothing, less the time in which there was nothing to take.
    since: Instant,
    again: Pin<Box<Sleep>>,
    room: Room,
}

/// What is known of the socket's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// The runtime takes it to be full; up to a third of it may be free.
    Unknown,
    /// It is full: what it takes next, the client has made room for.
    None,
    /// All that there was has gone into it at this moment, and there may be more room.
    Some(Instant),
}

impl Stall {
    /// Turns a write that waits for too long into an error. From time to time `again` is to send
    /// what it can without asking the runtime.
    pub(crate) fn check(
        &mut self,
        wrote: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
        mut again: impl FnMut() -> io::Result<Flushed>,
    ) -> Poll<io::Result<()>> {
        if wrote.is_ready() {
            return wrote;
        }
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            since: Instant::now(),
            again: Box::pin(tokio::time::sleep(AGAIN)),
            room: Room::Unknown,
        });
        loop {
            match stalled.room {
                // There is more to be sent now.
                Room::Some(then) => stalled.since += then.elapsed(),
                Room::Unknown | Room::None => ready!(stalled.again.as_mut().poll(cx)),
            }
            let now = Instant::now();
            let sent = again()?;
            if stalled.room == Room::None && sent.bytes > 0 {
                stalled.since = now;
                self.took = true;
            }
            if sent.all {
                stalled.room = Room::Some(now);
                return Poll::Ready(Ok(()));
            }
            stalled.room = Room::None;
            if now.duration_since(stalled.since) >= WRITE_TIMEOUT {
                let text = "the client takes nothing of its response";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            stalled.again.as_mut().reset(now + AGAIN);
        }
    }

    /// The runtime has found that the client takes something.
    pub(crate) fn moved(&mut self) {
        if self.stalled.is_some() {
            self.stalled = None;
        }
    }

    /// Whether the client was found to take something without the runtime since this was last asked.
    pub(crate) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.took)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use mesh_ingress_io::{Conn, WriteBuf};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    async fn connected() -> (Conn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (stream, _) = accepted.unwrap();
        stream.writable().await.unwrap();
        (Conn::from(stream), client.unwrap())
    }

    /// Writes until the runtime takes the socket to be full: there may be room all the same.
    fn fill(stream: &Conn) {
        let stream = stream.tcp().unwrap();
        while stream
            .try_write(&[0; 64 * 1024])
            .is_ok_and(|sent| sent == 64 * 1024)
        {}
    }

    fn flush(stream: &Conn, bytes: &[u8]) -> io::Result<Flushed> {
        let mut buf = WriteBuf::default();
        buf.buffer().extend_from_slice(bytes);
        buf.try_flush(stream)
    }

    /// A response without an end, so much of it at a time.
    async fn stalls(stall: &mut Stall, stream: &Conn, piece: usize) -> io::Error {
        let piece = vec![0; piece];
        let again = || flush(stream, &piece);
        loop {
            let stalled = poll_fn(|cx| stall.check(Poll::Pending, cx, again));
            if let Err(error) = stalled.await {
                return error;
            }
        }
    }

    /// Less than what lets the runtime know of it.
    #[tokio::test(start_paused = true)]
    async fn who_reads_little_is_not_cut_off() {
        let (stream, client) = connected().await;
        fill(&stream);
        let (mut stall, mut chunk) = (Stall::default(), vec![0; 200 * 1024]);
        for _ in 0..30 {
            let waits = stalls(&mut stall, &stream, 64 * 1024);
            assert!(timeout(Duration::from_secs(20), waits).await.is_err());
            client.readable().await.unwrap();
            assert!(client.try_read(&mut chunk).unwrap() > 0);
        }
        assert!(stall.has_moved());
    }

    /// What goes into the buffer of the socket has not gone to the client.
    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_cut_off_after_a_minute() {
        for piece in [100, 2_049, 64 * 1024] {
            let (stream, _client) = connected().await;
            fill(&stream);
            let (begin, mut stall) = (Instant::now(), Stall::default());
            let error = stalls(&mut stall, &stream, piece).await;
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let waited = begin.elapsed().as_secs();
            assert!((60..=65).contains(&waited), "{waited}");
            assert!(!stall.has_moved());
        }
    }

    /// Time in which there is nothing to take does not count.
    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_to_read_is_not_late() {
        let (stream, _client) = connected().await;
        let mut stall = Stall::default();
        let all = || flush(&stream, b"x");
        for _ in 0..10 {
            poll_fn(|cx| stall.check(Poll::Pending, cx, all))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_secs(50)).await;
        }
        fill(&stream);
        let begin = Instant::now();
        stalls(&mut stall, &stream, 1_000).await;
        assert!(
            (55..=65).contains(&begin.elapsed().as_secs()),
            "{:?}",
            begin.elapsed()
        );
    }
}
