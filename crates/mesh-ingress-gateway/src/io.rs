//! The socket of a client, with the care that hyper leaves to its owner.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use crate::activity::Activity;
use crate::guard::GuardedStream;

/// How long a client may take nothing of a response: nginx's `send_timeout`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long, after the last response, a client may go on sending what nobody wants.
const LINGER: Duration = Duration::from_secs(1);

/// What a client is told that has begun a request and does not get on (RFC 9110 §15.5.9).
const TOO_LATE: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A client's connection.
///
/// * A client that stops reading is cut off after a minute; hyper would wait for ever.
/// * A reset is noticed while hyper reads nothing, which it does as long as bytes of a next request
///   wait in its buffer: upstream must not work on for a client that is gone.
/// * A client that is still sending when its connection is closed gets its response first: closing
///   a socket with unread bytes resets it, and the reset overtakes the response (RFC 9112 §9.6).
/// * A client of a tunnel that is closed before both sides have ended is reset: it must not take
///   what came so far for all there is.
pub(crate) struct ClientIo {
    stream: TokioIo<GuardedStream>,
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Pin<Box<Sleep>>>,
    /// Whether hyper has looked for bytes since it last flushed.
    read: bool,
    activity: Arc<Activity>,
}

impl ClientIo {
    pub(crate) fn new(stream: GuardedStream, activity: Arc<Activity>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            stalled: None,
            lingering: None,
            read: false,
            activity,
        }
    }

    /// Resolves when there is something to read, or the client has gone.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.inner().readable().await
    }

    /// Ends a connection on which no head of a request came in time; hyper just drops those. One
    /// that has not begun a request is owed no answer, and one that has not taken its last
    /// response would read another one into it.
    pub(crate) async fn say_too_late(mut self) {
        let stream = self.stream.inner_mut();
        if self.stalled.is_none() && stream.is_amid_request() {
            // Small enough for an empty send buffer; who has none has no interest in it.
            let _ = stream.socket().try_write(TOO_LATE);
        }
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self).poll_shutdown(cx)).await;
    }

    /// Turns a write that waits for too long into an error.
    fn check_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            if self.stalled.take().is_some() {
                self.activity.set_stalled(false);
            }
            return wrote;
        }
        self.activity.set_stalled(true);
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        stalled.as_mut().poll(cx).map(|()| {
            let text = "the client takes nothing of its response";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// Fails if the connection has been reset; asks to be woken when it is.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut byte = [0];
        let peeked = self
            .stream
            .inner()
            .socket()
            .poll_peek(cx, &mut ReadBuf::new(&mut byte));
        match peeked {
            Poll::Ready(Err(error)) => Err(error),
            // Something to read, or a client that has said all it had to say.
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Reads and drops what the client is still sending, until it ends or its time is up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(self.stream.inner_mut().socket_mut()).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {
                    self.lingering
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                // Nothing was under way: there is nothing to wait for.
                Poll::Pending => {
                    return match &mut self.lingering {
                        Some(lingering) => lingering.as_mut().poll(cx),
                        None => Poll::Ready(()),
                    };
                }
            }
            if let Some(lingering) = &mut self.lingering
                && lingering.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(());
            }
        }
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.read = true;
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let amid_request = self.stream.inner().is_amid_request();
        self.activity.set_amid_request(amid_request);
        read
    }
}

impl Write for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check_stall(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.check_stall(cx, wrote)
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
        self.activity.close();
        // In a tunnel, what it is still sending is for the other side.
        if self.stream.inner().is_switched() {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        if self.lingering.is_none() {
            let socket = self.stream.inner().socket();
            if socket.poll_read_ready(cx).is_pending() {
                // hyper drops the socket now, and that says the same.
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        let stream = self.stream.inner();
        if stream.is_switched() && !stream.is_complete() {
            // Fails only for a connection that is gone already.
            let _ = stream.socket().set_zero_linger();
        }
    }
}
