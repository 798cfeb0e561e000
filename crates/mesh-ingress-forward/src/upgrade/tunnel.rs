//! Connections that have switched to another protocol, such as WebSocket.

mod copy;
mod direction;
#[cfg(test)]
mod tests;
mod wake_flag;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mesh_ingress_io::{Conn, TryWrite};
use pin_project_lite::pin_project;
use tokio::io::AsyncWrite as _;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

pub(crate) use self::copy::TunnelEnd;
use self::copy::{Copy, Ended};
use super::client::{Client, ClientEnd};
use crate::connect::Stream;
use crate::settings::TunnelTimeouts;

impl TunnelEnd for Stream {
    fn reset_on_drop(&mut self) {
        Self::reset_on_drop(self);
    }

    fn poll_forward(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut TryWrite(stream)).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx).map(drop),
            #[cfg(feature = "tls")]
            Self::Tls(_) => Poll::Ready(()),
        }
    }
}

impl TunnelEnd for Conn {
    fn reset_on_drop(&mut self) {
        Self::reset_on_drop(self);
    }

    fn poll_forward(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, bytes)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

/// An HTTP/2 stream of an upstream. hyper ends it before it resets it.
impl TunnelEnd for TokioIo<Upgraded> {}

/// Counts the tunnels of a forwarder and closes them: a server's graceful shutdown does not wait
/// for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels {
    timeouts: TunnelTimeouts,
    tracker: TaskTracker,
    closing: CancellationToken,
    /// Set before the token is cancelled: cheaper to check than the token.
    closed: Arc<AtomicBool>,
}

impl Tunnels {
    pub(crate) fn new(timeouts: TunnelTimeouts) -> Self {
        Self {
            timeouts,
            ..Self::default()
        }
    }

    /// The number of open tunnels.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Closes all tunnels, now and in future.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.cancel();
    }

    /// Resolves when no tunnel is open.
    pub(crate) async fn closed(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Opens a tunnel between `client`, once it has switched, and the connection of an upstream, of
    /// which `early` was read already. `guard` is dropped when both are closed.
    pub(crate) fn open<U>(
        &self,
        client: Client,
        upstream: U,
        early: Bytes,
        guard: impl Send + 'static,
    ) where
        U: TunnelEnd + Send + 'static,
    {
        let closing = self.closing.clone().cancelled_owned();
        let tunnel = Tunnel {
            stage: Stage::Switching {
                client,
                upstream: Some(upstream),
                early,
            },
            timeouts: self.timeouts,
            closing,
            closed: Arc::clone(&self.closed),
            waits_for_close: false,
        };
        self.tracker.spawn(async move {
            tunnel.await;
            drop(guard);
        });
    }
}

pin_project! {
    /// One tunnel, from the upstream's answer to the end.
    struct Tunnel<U: TunnelEnd> {
        stage: Stage<U>,
        timeouts: TunnelTimeouts,
        #[pin]
        closing: WaitForCancellationFutureOwned,
        closed: Arc<AtomicBool>,
        // The token has been polled, and wakes this task.
        waits_for_close: bool,
    }
}

// Tunnels spend their life in the large variant.
#[allow(clippy::large_enum_variant)]
enum Stage<U: TunnelEnd> {
    /// The client is getting its answer.
    Switching {
        client: Client,
        upstream: Option<U>,
        early: Bytes,
    },
    Copying(Copy<ClientEnd, U>),
    Done,
}

impl<U: TunnelEnd> Stage<U> {
    fn poll(&mut self, timeouts: TunnelTimeouts, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            match self {
                Self::Switching {
                    client,
                    upstream,
                    early,
                } => {
                    let (client, client_early) = ready!(client.poll(cx))?;
                    let Some(upstream) = upstream.take() else {
                        return Poll::Pending;
                    };
                    let copy = Copy::new(client, upstream, early, timeouts);
                    *self = Self::Copying(copy.with_client_early(&client_early));
                }
                Self::Copying(copy) => return copy.poll(cx),
                Self::Done => return Poll::Pending,
            }
        }
    }

    fn copied(&self) -> (u64, u64) {
        match self {
            Self::Copying(copy) => copy.copied(),
            Self::Switching { .. } | Self::Done => (0, 0),
        }
    }
}

impl<U: TunnelEnd> Future for Tunnel<U> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let ended = match this.stage.poll(*this.timeouts, cx) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending if *this.waits_for_close && !this.closed.load(Ordering::Acquire) => {
                return Poll::Pending;
            }
            Poll::Pending => {
                *this.waits_for_close = true;
                ready!(this.closing.poll(cx));
                None
            }
        };
        let (up, down) = this.stage.copied();
        match ended {
            Some(Ok(Ended::Complete)) => tracing::debug!(up, down, "tunnel ended"),
            Some(Ok(Ended::Idle)) => tracing::debug!(up, down, "tunnel closed: idle"),
            Some(Err(error)) => tracing::debug!(up, down, %error, "tunnel failed"),
            None => tracing::debug!(up, down, "tunnel closed by shutdown"),
        }
        if let Stage::Switching {
            upstream: Some(upstream),
            ..
        } = this.stage
        {
            // The upstream has switched, and the client has not.
            upstream.reset_on_drop();
        }
        *this.stage = Stage::Done;
        Poll::Ready(())
    }
}
