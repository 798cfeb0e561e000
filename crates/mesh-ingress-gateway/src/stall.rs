//! Clients that do not take what they are sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long a client may take nothing of a response: nginx's `send_timeout`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a socket that takes no more is tried again. The runtime is told of room only when a
/// third of the socket's buffer is free, which may take a slow reader minutes.
const AGAIN: Duration = Duration::from_secs(5);

/// Cuts a client off that has stopped reading; hyper would wait for ever.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<Stalled>);

#[derive(Debug)]
struct Stalled {
    since: Instant,
    again: Pin<Box<Sleep>>,
}

impl Stall {
    /// Turns a write that waits for too long into an error. From time to time `again` is to try
    /// whether a few octets can be sent, without asking the runtime, and to tell how many.
    pub(crate) fn check<T>(
        &mut self,
        wrote: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
        mut again: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.moved();
            return wrote;
        }
        let stalled = self.0.get_or_insert_with(|| Stalled {
            since: Instant::now(),
            again: Box::pin(tokio::time::sleep(AGAIN)),
        });
        loop {
            ready!(stalled.again.as_mut().poll(cx));
            let now = Instant::now();
            match again() {
                Ok(0) => {}
                Ok(_) => stalled.since = now,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if now.duration_since(stalled.since) >= WRITE_TIMEOUT {
                let text = "the client takes nothing of its response";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            stalled.again.as_mut().reset(now + AGAIN);
        }
    }

    /// The client has taken something.
    pub(crate) fn moved(&mut self) {
        if self.0.is_some() {
            self.0 = None;
        }
    }
}

/// Sends octets of a stream whose socket the runtime takes to be full.
pub(crate) fn send_now(stream: &TcpStream, octets: &[u8]) -> io::Result<usize> {
    match octets {
        [] => Ok(0),
        octets => SockRef::from(stream).send(octets),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A socket that takes no more, and who could read from it.
    async fn full() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, listener.accept());
        let (stream, _) = accepted.unwrap();
        stream.writable().await.unwrap();
        while stream.try_write(&[0; 64 * 1024]).is_ok() {}
        (stream, client.unwrap())
    }

    async fn stalls(stall: &mut Stall, stream: &TcpStream) -> io::Error {
        let again = || send_now(stream, &[0; 64 * 1024]);
        let stalled = poll_fn(|cx| stall.check(Poll::<io::Result<()>>::Pending, cx, again));
        stalled.await.unwrap_err()
    }

    /// Less than what lets the runtime know of it.
    #[tokio::test(start_paused = true)]
    async fn who_reads_little_is_not_cut_off() {
        let (stream, client) = full().await;
        let (mut stall, mut chunk) = (Stall::default(), vec![0; 200 * 1024]);
        for _ in 0..30 {
            let waits = stalls(&mut stall, &stream);
            assert!(timeout(Duration::from_secs(20), waits).await.is_err());
            client.readable().await.unwrap();
            assert!(client.try_read(&mut chunk).unwrap() > 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_cut_off_after_a_minute() {
        let (stream, _client) = full().await;
        let begin = Instant::now();
        let error = stalls(&mut Stall::default(), &stream).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let waited = begin.elapsed().as_secs();
        assert!((60..=65).contains(&waited), "{waited}");
    }
}
