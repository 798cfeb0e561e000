//! The last octets of a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

/// No `SIGPIPE`, as with other writes of the standard library; and more follows: the end.
const FLAGS: SendFlags = SendFlags::MORE.union(SendFlags::NOSIGNAL);

/// A stream that is closed at once when what is written to it has been taken.
///
/// The end of a connection is a segment of its own, to be answered with another one, unless it can
/// go with the last octets. So these wait in the socket for the end, where otherwise they would be
/// sent off at once.
#[derive(Debug)]
pub(crate) struct Last<'s>(pub(crate) &'s TcpStream);

impl Last<'_> {
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&TcpStream) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Self(stream) = self;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let sent = stream.try_io(Interest::WRITABLE, || Ok(send(stream)?));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncWrite for Last<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| send(stream, octets, FLAGS))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |stream| {
            sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), FLAGS)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // By whoever has the stream.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_last_goes_with_the_end() {
        for vectored in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap());
            let stream = stream.await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let (mut octets, mut last) = ([0; 8], Last(&stream));
            let wrote = match vectored {
                true => {
                    let slices = [IoSlice::new(b"last"), IoSlice::new(b"word")];
                    last.write_vectored(&slices).await
                }
                false => last.write(b"lastword").await,
            };
            assert_eq!(wrote.unwrap(), 8);
            peer.set_nonblocking(true).unwrap();
            let nothing = peer.read(&mut octets).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            drop(stream);
            peer.set_nonblocking(false).unwrap();
            peer.read_exact(&mut octets).unwrap();
            assert_eq!(&octets, b"lastword");
            assert_eq!(peer.read(&mut octets).unwrap(), 0);
        }
    }
}
