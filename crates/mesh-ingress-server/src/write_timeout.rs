//! Bounds the time in which a client takes nothing of its response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::Flushed;
use tokio::time::{Instant, Sleep};

/// How long a client may take nothing of a response: nginx's `send_timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a full socket is tried again. The runtime learns of room only when a third of the socket's
/// buffer is free, which may take a slow reader minutes.
const RETRY: Duration = Duration::from_secs(5);

/// Closes the connection of a client that has stopped reading; hyper would wait for ever.
#[derive(Debug, Default)]
pub(crate) struct WriteTimeout {
    stalled: Option<Stalled>,
    progressed: bool,
}

#[derive(Debug)]
struct Stalled {
    /// Since when the client has taken nothing, less the time in which there was nothing to take.
    since: Instant,
    retry: Pin<Box<Sleep>>,
    room: Room,
}

/// State of the socket's buffer, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// The runtime takes it to be full. Up to a third of it may be free.
    Unknown,
    /// It is full: room for what it takes next was made by the client.
    Full,
    /// All that waited went into it at this moment, and there may be more room.
    Drained(Instant),
}

impl WriteTimeout {
    /// Turns a write that has been pending for too long into an error. From time to time it calls
    /// `try_flush`, which sends what it can without asking the runtime.
    pub(crate) fn poll(
        &mut self,
        wrote: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
        mut try_flush: impl FnMut() -> io::Result<Flushed>,
    ) -> Poll<io::Result<()>> {
        if wrote.is_ready() {
            return wrote;
        }
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            since: Instant::now(),
            retry: Box::pin(tokio::time::sleep(RETRY)),
            room: Room::Unknown,
        });
        loop {
            match stalled.room {
                // There is more to be sent now.
                Room::Drained(then) => stalled.since += then.elapsed(),
                Room::Unknown | Room::Full => ready!(stalled.retry.as_mut().poll(cx)),
            }
            let now = Instant::now();
            let flushed = try_flush()?;
            if stalled.room == Room::Full && flushed.bytes > 0 {
                stalled.since = now;
                self.progressed = true;
            }
            if flushed.all {
                stalled.room = Room::Drained(now);
                return Poll::Ready(Ok(()));
            }
            stalled.room = Room::Full;
            if now.duration_since(stalled.since) >= TIMEOUT {
                let text = "the client takes nothing of its response";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            stalled.retry.as_mut().reset(now + RETRY);
        }
    }

    /// The runtime has found room in the socket.
    pub(crate) fn reset(&mut self) {
        if self.stalled.is_some() {
            self.stalled = None;
        }
    }

    /// Whether the client was found to take something, without the runtime, since this was last asked.
    pub(crate) fn take_progressed(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
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

    /// Writes until the runtime takes the socket to be full. There may still be room.
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

    /// Sends an endless response in pieces until it times out.
    async fn until_timeout(timeout: &mut WriteTimeout, stream: &Conn, piece: usize) -> io::Error {
        let piece = vec![0; piece];
        let try_flush = || flush(stream, &piece);
        loop {
            let stalled = poll_fn(|cx| timeout.poll(Poll::Pending, cx, try_flush));
            if let Err(error) = stalled.await {
                return error;
            }
        }
    }

    /// It reads less than makes the runtime see room.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_closed() {
        let (stream, client) = connected().await;
        fill(&stream);
        let (mut limit, mut chunk) = (WriteTimeout::default(), vec![0; 200 * 1024]);
        for _ in 0..30 {
            let waits = until_timeout(&mut limit, &stream, 64 * 1024);
            assert!(timeout(Duration::from_secs(20), waits).await.is_err());
            client.readable().await.unwrap();
            assert!(client.try_read(&mut chunk).unwrap() > 0);
        }
        assert!(limit.take_progressed());
    }

    /// Bytes in the socket's buffer have not reached the client.
    #[tokio::test(start_paused = true)]
    async fn a_stalled_reader_is_closed_after_a_minute() {
        for piece in [100, 2_049, 64 * 1024] {
            let (stream, _client) = connected().await;
            fill(&stream);
            let (begin, mut limit) = (Instant::now(), WriteTimeout::default());
            let error = until_timeout(&mut limit, &stream, piece).await;
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let waited = begin.elapsed().as_secs();
            assert!((60..=65).contains(&waited), "{waited}");
            assert!(!limit.take_progressed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_with_nothing_to_read_does_not_count() {
        let (stream, _client) = connected().await;
        let mut limit = WriteTimeout::default();
        let all = || flush(&stream, b"x");
        for _ in 0..10 {
            poll_fn(|cx| limit.poll(Poll::Pending, cx, all))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_secs(50)).await;
        }
        fill(&stream);
        let begin = Instant::now();
        until_timeout(&mut limit, &stream, 1_000).await;
        assert!(
            (55..=65).contains(&begin.elapsed().as_secs()),
            "{:?}",
            begin.elapsed()
        );
    }
}
