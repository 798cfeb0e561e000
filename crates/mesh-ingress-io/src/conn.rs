//! The transport under a connection.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::TryWrite;

/// A byte stream that carries HTTP: TCP, or any other stream.
///
/// A TCP socket saves work: a read that would find nothing is not tried, small writes go out without asking
/// the runtime, and bodies pass through the kernel. Other streams (TLS, a Unix socket,
/// a pipe in a test) work the same without that.
///
/// ```
/// use mesh_ingress_io::Conn;
///
/// let (ours, theirs) = tokio::io::duplex(1024);
/// let conn = Conn::other(ours);
/// assert!(conn.tcp().is_none());
/// # drop(theirs);
/// ```
#[non_exhaustive]
pub enum Conn {
    /// TCP as it is.
    Tcp(TcpStream),
    /// Any other stream.
    Other(Box<dyn Stream>),
}

/// What [`Conn::Other`] holds: anything that can be read from and written to.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Conn {
    /// A connection on any stream. A `TcpStream` is better [converted](From).
    pub fn other(stream: impl Stream + 'static) -> Self {
        Self::Other(Box::new(stream))
    }

    /// The socket, if it is spoken to without anything in between.
    #[inline]
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Other(_) => None,
        }
    }

    /// Ready when a read may bring something. Where that is not known without a read, it is always
    /// ready.
    ///
    /// # Errors
    /// Those of the runtime.
    #[inline]
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Other(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether the runtime has seen nothing to read since the last read would have blocked. Asks
    /// neither the kernel nor another stream than TCP, of which it is not known.
    #[inline]
    #[must_use]
    pub fn is_known_empty(&self) -> bool {
        self.tcp().is_some_and(|stream| {
            let ready = stream.try_io(Interest::READABLE, || Ok(()));
            ready.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        })
    }

    /// Ready with an error when the peer has reset the connection. Pending is no promise to wake the
    /// task, and no other stream than TCP is looked at.
    ///
    /// # Errors
    /// The reset.
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Self::Tcp(stream) = self else {
            return Poll::Pending;
        };
        let mut byte = [0];
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            // Something to read, or the end of what the peer sends.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Makes the peer see a reset when it is dropped, because what was spoken on it ends with the
    /// connection, and has not ended. Bytes that are not sent yet are lost. Another stream than TCP is
    /// dropped as it is.
    pub fn reset_on_drop(&mut self) {
        if let Self::Tcp(stream) = self {
            // Fails only for a connection that is gone already.
            let _ = stream.set_zero_linger();
        }
    }

    /// Writes a single small slice without asking the runtime for readiness: see [`TryWrite`].
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_try_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(&mut TryWrite(stream)).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

impl From<TcpStream> for Conn {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => f.debug_tuple("Tcp").field(stream).finish(),
            Self::Other(_) => f.debug_tuple("Other").finish_non_exhaustive(),
        }
    }
}

impl AsyncRead for Conn {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Nothing waits in a socket.
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
