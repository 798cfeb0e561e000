//! A stream that has become a tunnel (RFC 8441 §5).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Http2Body;
use super::ready_queue::StreamWaker;

/// How many bytes may wait in a tunnel for the client.
const MAX_BUFFERED: usize = 64 * 1024;

/// Bytes that the service has written into a tunnel and the stream has not taken.
#[derive(Debug)]
pub(super) struct TunnelOutput {
    inner: Mutex<Inner>,
    waker: Arc<StreamWaker>,
}

#[derive(Debug)]
struct Inner {
    bytes: BytesMut,
    state: State,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The last bytes have been written.
    ShutDown,
    /// The tunnel was dropped: what has been written was not all.
    Aborted,
    /// The stream has ended first.
    Closed,
}

impl TunnelOutput {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes; `None` at the end, and an error if the tunnel was aborted.
    pub(super) fn poll_next(&self) -> Poll<Option<Result<Bytes, ()>>> {
        let mut inner = self.lock();
        if !inner.bytes.is_empty() {
            if let Some(writer) = inner.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(inner.bytes.split().freeze())));
        }
        match inner.state {
            State::Open => Poll::Pending,
            State::Aborted => Poll::Ready(Some(Err(()))),
            State::ShutDown | State::Closed => Poll::Ready(None),
        }
    }

    /// The stream takes nothing any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.state = State::Closed;
        inner.bytes = BytesMut::new();
        if let Some(writer) = inner.writer.take() {
            writer.wake();
        }
    }
}

/// The service's end of a tunnel. Dropped before it is shut down, it resets the stream.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// `None` if the client has ended the stream with its request.
    body: Option<Http2Body>,
    unread: Bytes,
    output: Arc<TunnelOutput>,
}

impl Tunnel {
    /// A tunnel that is read from the request's body, and its output.
    pub(super) fn new(
        body: Option<Http2Body>,
        waker: &Arc<StreamWaker>,
    ) -> (Self, Arc<TunnelOutput>) {
        let output = Arc::new(TunnelOutput {
            inner: Mutex::new(Inner {
                bytes: BytesMut::new(),
                state: State::Open,
                writer: None,
            }),
            waker: Arc::clone(waker),
        });
        let tunnel = Self {
            body,
            unread: Bytes::new(),
            output: Arc::clone(&output),
        };
        (tunnel, output)
    }

    fn end(&self, state: State) {
        let mut inner = self.output.lock();
        if inner.state == State::Open {
            inner.state = state;
            drop(inner);
            self.output.waker.notify();
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            let Some(body) = &mut self.body else {
                return Poll::Ready(Ok(()));
            };
            match ready!(body.poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => self.unread = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
            }
        }
        let taken = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..taken]);
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.output.lock();
        if inner.state != State::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = MAX_BUFFERED.saturating_sub(inner.bytes.len());
        if room == 0 {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.len().min(room);
        inner.bytes.extend_from_slice(&bytes[..taken]);
        drop(inner);
        self.output.waker.notify();
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end(State::ShutDown);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end(State::Aborted);
    }
}
