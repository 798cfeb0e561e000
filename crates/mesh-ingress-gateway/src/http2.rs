//! The socket of a client that speaks HTTP/2, with the care that hyper leaves to its owner.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use crate::linger::Linger;
use crate::stall::Stall;

/// A client's connection.
///
/// * A client that stops reading is cut off after a minute; hyper would wait for ever.
/// * A reset is noticed while hyper reads nothing: upstream must not work on for a client that is
///   gone.
/// * A client that is still sending when its connection is closed gets its responses first.
pub(crate) struct ClientIo {
    stream: TokioIo<TcpStream>,
    /// What has been read of it before hyper got it.
    begun: BytesMut,
    stall: Stall,
    linger: Linger,
    /// Whether hyper has looked for bytes since it last flushed.
    read: bool,
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, begun: BytesMut) -> Self {
        Self {
            stream: TokioIo::new(stream),
            begun,
            stall: Stall::default(),
            linger: Linger::default(),
            read: false,
        }
    }

    /// Fails if the connection has been reset; asks to be woken when it is.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        match self.stream.inner().poll_peek(cx, &mut byte) {
            Poll::Ready(Err(error)) => Err(error),
            // Something to read, or a client that has said all it had to say.
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.read = true;
        if self.begun.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let taken = self.begun.len().min(buf.remaining());
        buf.put_slice(&self.begun[..taken]);
        self.begun.advance(taken);
        if self.begun.is_empty() {
            // Gives the memory back: the connection may live long.
            self.begun = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stall.check(wrote, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stall.check(wrote, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::take(&mut self.read) {
            self.poll_reset(cx)?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let stream = this.stream.inner_mut();
        this.linger.poll(stream, false, cx).map(Ok)
    }
}
