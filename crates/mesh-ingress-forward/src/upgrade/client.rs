//! The client's end of a tunnel, before and after the switch.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Extensions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mesh_ingress_io::Conn;
use mesh_ingress_io::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::TunnelEnd;

/// A client that is getting the answer to its request to switch.
#[derive(Debug)]
pub(crate) enum Client {
    Hyper(hyper::upgrade::OnUpgrade),
    Conn(OnUpgrade),
}

impl Client {
    /// Takes the client out of a request's extensions, where its server has put it.
    pub(crate) fn take(extensions: &mut Extensions) -> Option<Self> {
        let conn = extensions.remove::<OnUpgrade>().map(Self::Conn);
        conn.or_else(|| extensions.remove().map(Self::Hyper))
    }

    /// Its connection, and the bytes of the new protocol that were read already.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(ClientEnd, Bytes)>> {
        Poll::Ready(Ok(match self {
            Self::Hyper(client) => {
                let client = ready!(Pin::new(client).poll(cx)).map_err(io::Error::other)?;
                (ClientEnd::Hyper(TokioIo::new(client)), Bytes::new())
            }
            Self::Conn(client) => {
                let (conn, early, guard) = ready!(client.poll_upgraded(cx))?.into_parts();
                (ClientEnd::Conn(conn, guard), early)
            }
        }))
    }
}

/// A client that has been switched.
pub(super) enum ClientEnd {
    /// A connection of hyper's server, or a stream of its HTTP/2, which hyper ends before it resets
    /// it.
    Hyper(TokioIo<Upgraded>),
    /// A connection of another server, and a guard that is dropped with it.
    Conn(Conn, #[allow(dead_code)] Option<Box<dyn Any + Send>>),
}

impl fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hyper(_) => "Hyper",
            Self::Conn(..) => "Conn",
        })
    }
}

impl TunnelEnd for ClientEnd {
    fn reset_on_drop(&mut self) {
        if let Self::Conn(conn, _) = self {
            TunnelEnd::reset_on_drop(conn);
        }
    }

    fn poll_forward(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Conn(conn, _) => conn.poll_forward(cx, bytes),
            Self::Hyper(_) => Pin::new(self).poll_write(cx, bytes),
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Conn(conn, _) => conn.poll_readable(cx),
            Self::Hyper(_) => Poll::Ready(()),
        }
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Conn(conn, _) => Pin::new(conn).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Conn(conn, _) => Pin::new(conn).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_flush(cx),
            Self::Conn(conn, _) => Pin::new(conn).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Conn(conn, _) => Pin::new(conn).poll_shutdown(cx),
        }
    }
}
