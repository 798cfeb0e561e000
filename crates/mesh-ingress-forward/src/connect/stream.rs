//! The byte stream under a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_ingress_core::Protocol;
use mesh_ingress_io::{TryWrite, WriteBuf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::TlsState;
#[cfg(feature = "tls")]
use super::tls::TlsStream;

/// A byte stream to an upstream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS over TCP.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The protocol that the upstream chose in the TLS handshake; `None` in cleartext, where there
    /// is no choice.
    pub(crate) fn negotiated(&self) -> Option<Protocol> {
        match self {
            Self::Plain(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Some(stream.negotiated()),
        }
    }

    /// The state of its TLS, for the time when hyper owns the stream.
    pub(crate) fn tls_state(&self) -> TlsState {
        match self {
            Self::Plain(_) => TlsState::default(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.state().clone(),
        }
    }

    /// Whether nothing has been received, not even the end of the stream. A received byte is lost:
    /// no request is under way that it could answer.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            // The runtime makes the system call only if the socket was reported as readable.
            Self::Plain(stream) => {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            // Received bytes may be records of TLS itself, without data.
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                let mut byte = [0];
                let mut byte = ReadBuf::new(&mut byte);
                let read =
                    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut byte));
                // Without cooperative budget every read would be pending.
                let read = std::pin::pin!(tokio::task::unconstrained(read));
                read.poll(&mut Context::from_waker(std::task::Waker::noop()))
                    .is_pending()
            }
        }
    }

    /// Writes a buffer without asking the runtime first and without using cooperative budget. Not
    /// for a task that writes in a loop without ever waiting.
    pub(crate) fn poll_write_last(
        &mut self,
        buf: &mut WriteBuf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => buf.poll_write(&mut TryWrite(stream), cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => buf.poll_write(stream, cx),
        }
    }

    /// Makes a drop reset the connection, without `close_notify`: the peer must not take a tunnel
    /// that was cut off for one that ended. Unsent bytes are lost.
    pub(crate) fn reset_on_drop(&mut self) {
        // Fails only for a connection that has ended already.
        let _ = match self {
            Self::Plain(stream) => stream.set_zero_linger(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.reset_on_drop(),
        };
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
