//! Writing to a socket that has room, as a rule.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// What is no longer is written without asking: that it went out in part only is so seldom that the
/// call in vain which follows does not count.
const SMALL: usize = 16 * 1024;

/// A socket to which what is small is written first, and the runtime is asked for leave only where
/// that fails: sixty instructions less for each of the two writes of a small request. "Small" is up to
/// 16 KiB in one slice; all else is written as the socket itself would. Errors are those of the socket.
///
/// ```
/// # async fn answer(socket: &mut tokio::net::TcpStream) -> std::io::Result<()> {
/// use mesh_ingress_http1::Direct;
/// use tokio::io::AsyncWriteExt as _;
///
/// Direct(socket).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
/// # }
/// ```
///
/// Such a write takes nothing of the task's budget: whoever writes again and again, without a pause
/// that others make, has to make one.
#[derive(Debug)]
pub struct Direct<'s>(pub &'s mut TcpStream);

impl AsyncWrite for Direct<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut *self.get_mut().0;
        if octets.len() <= SMALL {
            match stream.try_write(octets) {
                // Now the runtime knows that it is full, and tells when it is not.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(stream).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// However often a socket is full, all goes out in its order, and nobody waits for ever.
    #[tokio::test]
    async fn who_finds_no_room_waits_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap());
        let (dialed, accepted) = tokio::join!(dialed, listener.accept());
        let (mut stream, (mut reader, _)) = (dialed.unwrap(), accepted.unwrap());
        let octets: Vec<u8> = (0..20_000_000_u32)
            .map(|number| (number >> 8) as u8)
            .collect();
        let expected = octets.clone();
        let writing = async move {
            let (mut rest, mut waited) = (&octets[..], 0);
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(SMALL)];
                let wrote = poll_fn(|cx| {
                    let polled = Pin::new(&mut Direct(&mut stream)).poll_write(cx, piece);
                    waited += usize::from(polled.is_pending());
                    polled
                });
                rest = &rest[wrote.await.unwrap()..];
            }
            waited
        };
        let reading = async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            got
        };
        let (waited, got) = tokio::join!(tokio::spawn(writing), reading);
        assert!(waited.unwrap() > 0, "it was never full");
        assert_eq!(got, expected);
    }
}
