//! A stream that notifies of its writes.
//!
//! hyper drives an HTTP/2 connection in a task of its own and does not tell when the peer's
//! SETTINGS have come. But it acknowledges them (RFC 9113 §6.5.3) *after* it has applied them: a
//! task that waits for SETTINGS checks again after each write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use crate::connect::Stream;

/// Wakes a waker after each write, and holds `G` until hyper closes the stream: hyper keeps that
/// for longer than the connection handle, as long as HTTP/2 streams go on.
pub(super) struct NotifyOnWrite<G> {
    io: TokioIo<Stream>,
    written: Arc<AtomicWaker>,
    _guard: G,
}

impl<G> NotifyOnWrite<G> {
    pub(super) fn new(stream: Stream, written: Arc<AtomicWaker>, guard: G) -> Self {
        Self {
            io: TokioIo::new(stream),
            written,
            _guard: guard,
        }
    }

    fn notify<T>(&self, wrote: Poll<T>) -> Poll<T> {
        if wrote.is_ready() {
            self.written.wake();
        }
        wrote
    }
}

impl<G: Unpin> Read for NotifyOnWrite<G> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<G: Unpin> Write for NotifyOnWrite<G> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.notify(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.notify(wrote)
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
