//! A stream that has become a tunnel (RFC 8441 §5).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::signals::Bell;
use super::upload::RequestBody;

/// What may wait in it for the client.
const ROOM: usize = 64 * 1024;

/// What the gateway writes into a tunnel, until its stream takes it.
#[derive(Debug)]
pub(super) struct Pipe {
    inner: Mutex<Inner>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Inner {
    octets: BytesMut,
    end: End,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The last octets have been written.
    Shut,
    /// What has been written was not all.
    Cut,
    /// The stream has ended first.
    Gone,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next octets; `None` at the end, and an error if that is none.
    pub(super) fn poll_next(&self) -> Poll<Option<Result<Bytes, ()>>> {
        let mut inner = self.lock();
        if !inner.octets.is_empty() {
            if let Some(writer) = inner.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(inner.octets.split().freeze())));
        }
        match inner.end {
            End::Open => Poll::Pending,
            End::Cut => Poll::Ready(Some(Err(()))),
            End::Shut | End::Gone => Poll::Ready(None),
        }
    }

    /// Nobody takes anything any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.end = End::Gone;
        inner.octets = BytesMut::new();
        if let Some(writer) = inner.writer.take() {
            writer.wake();
        }
    }
}

/// The gateway's end of a tunnel. Dropped before it is shut down, it resets the stream.
#[derive(Debug)]
pub(super) struct Tunnel {
    body: RequestBody,
    unread: Bytes,
    pipe: Arc<Pipe>,
}

impl Tunnel {
    /// One that is read from a request's body, and what is written to it.
    pub(super) fn new(body: RequestBody, bell: &Arc<Bell>) -> (Self, Arc<Pipe>) {
        let pipe = Arc::new(Pipe {
            inner: Mutex::new(Inner {
                octets: BytesMut::new(),
                end: End::Open,
                writer: None,
            }),
            bell: Arc::clone(bell),
        });
        let tunnel = Self {
            body,
            unread: Bytes::new(),
            pipe: Arc::clone(&pipe),
        };
        (tunnel, pipe)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
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
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.pipe.lock();
        if inner.end != End::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = ROOM.saturating_sub(inner.octets.len());
        if room == 0 {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = octets.len().min(room);
        inner.octets.extend_from_slice(&octets[..taken]);
        drop(inner);
        self.pipe.bell.ring();
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.pipe.lock();
        if inner.end == End::Open {
            inner.end = End::Shut;
            drop(inner);
            self.pipe.bell.ring();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let mut inner = self.pipe.lock();
        if inner.end == End::Open {
            inner.end = End::Cut;
            drop(inner);
            self.pipe.bell.ring();
        }
    }
}
