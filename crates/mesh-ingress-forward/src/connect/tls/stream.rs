//! A TLS connection to an upstream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_ingress_core::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream as RustlsStream;

use super::TlsState;

/// A TLS connection that distinguishes its end from being cut off, both ways.
///
/// * Read: only a `close_notify` is an end. Without one rustls reports `UnexpectedEof`, and a body
///   that ends with the connection is an error, as RFC 9112 §9.8 requires.
/// * Write: a `close_notify` is sent even when the connection is just dropped, as a client must
///   (RFC 9112 §9.8). Requests have a length, so that none looks complete by it. A tunnel does: see
///   [`reset_on_drop`](Self::reset_on_drop).
#[derive(Debug)]
pub(crate) struct TlsStream {
    stream: RustlsStream<TcpStream>,
    state: TlsState,
    reset: bool,
}

impl TlsStream {
    pub(crate) fn new(stream: RustlsStream<TcpStream>, state: TlsState) -> Self {
        Self {
            stream,
            state,
            reset: false,
        }
    }

    /// The protocol that ALPN chose. Without ALPN it is HTTP/1.1 (RFC 9113 §3.2).
    pub(crate) fn negotiated(&self) -> Protocol {
        match self.stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            _ => Protocol::Http1,
        }
    }

    pub(crate) fn state(&self) -> &TlsState {
        &self.state
    }

    /// Makes a drop reset the connection, without `close_notify`. For tunnels.
    pub(crate) fn reset_on_drop(&mut self) -> io::Result<()> {
        self.reset = true;
        self.stream.get_ref().0.set_zero_linger()
    }

    fn record_error<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            self.state.record(error);
        }
        polled
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if self.reset {
            return;
        }
        let (tcp, tls) = self.stream.get_mut();
        tls.send_close_notify();
        let mut tcp = NonBlocking(tcp);
        // A peer that does not read does not get it: a drop cannot wait.
        while tls.wants_write() && matches!(tls.write_tls(&mut tcp), Ok(1..)) {}
    }
}

/// Writes as much as the socket takes without waiting.
struct NonBlocking<'a>(&'a TcpStream);

impl io::Write for NonBlocking<'_> {
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

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.record_error(polled)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.record_error(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.record_error(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.record_error(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.record_error(polled)
    }
}
