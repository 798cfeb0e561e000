//! The transport under a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_ingress_core::Protocol;
use mesh_ingress_io::{TryWrite, WriteBuf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::tls::Secured;
use crate::tls::Session;

/// A byte stream to an upstream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS over TCP.
    #[cfg(feature = "tls")]
    Tls(Box<Secured>),
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

    /// What to ask about its TLS once somebody else has the stream.
    pub(crate) fn session(&self) -> Session {
        match self {
            Self::Plain(_) => Session::default(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.session().clone(),
        }
    }

    /// Whether nothing has come, not even its end. What did come is lost: it belongs to nothing.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            // Asks the kernel only where it has said that there is something.
            Self::Plain(stream) => {
                let read = stream.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            // What came may be for TLS itself, and say nothing.
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                let mut octet = [0];
                let mut octet = ReadBuf::new(&mut octet);
                let read =
                    std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut octet));
                // A task that has used up its budget must not be told that there is nothing.
                let read = std::pin::pin!(tokio::task::unconstrained(read));
                read.poll(&mut Context::from_waker(std::task::Waker::noop()))
                    .is_pending()
            }
        }
    }

    /// Writes what is in a buffer, at less cost and without taking of the task's cooperative budget: not
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

    /// Has it look cut off when it is dropped: what was spoken on it ends with the connection, and
    /// has not ended. What is not sent yet is lost.
    pub(crate) fn cut_off(&mut self) {
        // Fails only for a connection that is gone already.
        let _ = match self {
            Self::Plain(stream) => stream.set_zero_linger(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.cut_off(),
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
