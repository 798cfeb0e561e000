//! A TLS connection to an upstream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_ingress_core::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::tls::Session;

/// A TLS connection whose end is told apart from its being cut off, both ways.
///
/// * Read: only a `close_notify` is an end. Without one rustls says `UnexpectedEof`, and a body
///   that ends with the connection is an error, as RFC 9112 §9.8 wants it.
/// * Write: a `close_notify` goes out even when the connection is just dropped, as a client's must
///   (RFC 9112 §9.8). Requests have a length of their own, so that none looks complete by it. What
///   ends with the connection does: see [`cut_off`](Self::cut_off).
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    session: Session,
    abrupt: bool,
}

impl Secured {
    pub(crate) fn new(stream: TlsStream<TcpStream>, session: Session) -> Self {
        Self {
            stream,
            session,
            abrupt: false,
        }
    }

    /// The protocol that was chosen. Without a choice it is HTTP/1.1 (RFC 9113 §3.2).
    pub(crate) fn negotiated(&self) -> Protocol {
        match self.stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Has it look cut off when it is dropped: without a `close_notify`, and reset. For tunnels.
    pub(crate) fn cut_off(&mut self) -> io::Result<()> {
        self.abrupt = true;
        self.stream.get_ref().0.set_zero_linger()
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.session.note(error);
        }
        polled
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        if self.abrupt {
            return;
        }
        let (tcp, tls) = self.stream.get_mut();
        tls.send_close_notify();
        let mut tcp = WhatFits(tcp);
        // A peer that takes nothing does not get it either: nobody waits here.
        while tls.wants_write() && matches!(tls.write_tls(&mut tcp), Ok(1..)) {}
    }
}

/// Writes what the socket takes at once.
struct WhatFits<'a>(&'a TcpStream);

impl io::Write for WhatFits<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.noted(polled)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.noted(polled)
    }
}
