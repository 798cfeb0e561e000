//! A connection that tells when it writes.
//!
//! hyper does the I/O of an HTTP/2 connection in a task of its own and tells nobody when the
//! peer's SETTINGS have come. But it acknowledges them (RFC 9113 §6.5.3), *after* it has applied
//! them: whoever waits for them looks again after each write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use crate::permit::Permit;
use crate::stream::Stream;

pub(crate) struct Noticed {
    io: TokioIo<Stream>,
    written: Arc<AtomicWaker>,
    /// Given back when the transport is closed: hyper keeps it for longer than the connection that
    /// it gives us, as long as streams go on.
    _permit: Permit,
}

impl Noticed {
    /// Wakes whoever is registered after each write.
    pub(crate) fn new(stream: Stream, written: Arc<AtomicWaker>, permit: Permit) -> Self {
        Self {
            io: TokioIo::new(stream),
            written,
            _permit: permit,
        }
    }

    fn notice<T>(&self, wrote: Poll<T>) -> Poll<T> {
        if wrote.is_ready() {
            self.written.wake();
        }
        wrote
    }
}

impl Read for Noticed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Noticed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.notice(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.notice(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
