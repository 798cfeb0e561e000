//! The client's end of a tunnel, before and after it is there.

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

use crate::tunnel::End;

/// A client that is being told of the switch.
#[derive(Debug)]
pub(crate) enum Client {
    Hyper(hyper::upgrade::OnUpgrade),
    Own(OnUpgrade),
}

impl Client {
    /// What a server has left of it in a request.
    pub(crate) fn take(extensions: &mut Extensions) -> Option<Self> {
        let own = extensions.remove::<OnUpgrade>().map(Self::Own);
        own.or_else(|| extensions.remove().map(Self::Hyper))
    }

    /// Its connection, and what has been read of it already.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(ClientEnd, Bytes)>> {
        Poll::Ready(Ok(match self {
            Self::Hyper(client) => {
                let client = ready!(Pin::new(client).poll(cx)).map_err(io::Error::other)?;
                (ClientEnd::Hyper(TokioIo::new(client)), Bytes::new())
            }
            Self::Own(client) => {
                let (conn, early, guard) = ready!(client.poll_upgraded(cx))?.into_parts();
                (ClientEnd::Own(conn, guard), early)
            }
        }))
    }
}

/// A client that has been switched.
pub(crate) enum ClientEnd {
    /// Or a stream of HTTP/2. What it looks like when it is dropped is up to the server that has the
    /// socket, or to hyper, which ends a stream of HTTP/2 before it resets it.
    Hyper(TokioIo<Upgraded>),
    /// A connection of our server, or of any other that resolves an [`OnUpgrade`], and what that wants
    /// to be dropped with it.
    Own(Conn, #[allow(dead_code)] Option<Box<dyn Any + Send>>), // Held to be dropped.
}

impl fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hyper(_) => "Hyper",
            Self::Own(..) => "Own",
        })
    }
}

impl End for ClientEnd {
    fn cut_off(&mut self) {
        if let Self::Own(conn, _) = self {
            conn.cut_off();
        }
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Own(conn, _) => conn.poll_pass(cx, octets),
            Self::Hyper(_) => Pin::new(self).poll_write(cx, octets),
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Own(conn, _) => conn.poll_more(cx),
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
            Self::Own(conn, _) => Pin::new(conn).poll_read(cx, buf),
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
            Self::Own(conn, _) => Pin::new(conn).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_flush(cx),
            Self::Own(conn, _) => Pin::new(conn).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Own(conn, _) => Pin::new(conn).poll_shutdown(cx),
        }
    }
}
