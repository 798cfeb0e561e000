//! Connections that have switched to another protocol: WebSocket and its like.

mod bell;
mod copy;
#[cfg(test)]
mod tests;
mod way;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mesh_ingress_io::{Conn, TryWrite};
use pin_project_lite::pin_project;
use tokio::io::AsyncWrite as _;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

pub(crate) use self::copy::End;
pub(crate) use self::copy::Limits;
use self::copy::{Copy, Ended};
use crate::stream::Stream;
use crate::upgrade::{Client, ClientEnd};

impl Limits {
    /// What ingress-nginx recommends for WebSockets; its default of 60 s cuts off those that do
    /// not ping.
    pub(crate) const IDLE: Duration = Duration::from_secs(60 * 60);
    /// Enough for an answer to the end; HAProxy's manual has 30 s for `timeout client-fin`.
    pub(crate) const HALF_CLOSED: Duration = Duration::from_secs(60);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle: Some(Self::IDLE),
            half_closed: Some(Self::HALF_CLOSED),
        }
    }
}

impl End for Stream {
    fn cut_off(&mut self) {
        Self::cut_off(self);
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(&mut TryWrite(stream)).poll_write(cx, octets),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx).map(drop),
            #[cfg(feature = "tls")]
            Self::Tls(_) => Poll::Ready(()),
        }
    }
}

impl End for Conn {
    fn cut_off(&mut self) {
        self.reset_on_drop();
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_try_write(cx, octets)
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

/// A stream of HTTP/2 of an upstream: hyper ends it before it resets it.
impl End for TokioIo<Upgraded> {}

/// Counts tunnels and ends them: a graceful shutdown of a server does not see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels {
    limits: Limits,
    tracker: TaskTracker,
    closing: CancellationToken,
    /// Set before the token is: to look at this costs next to nothing.
    closed: Arc<AtomicBool>,
}

impl Tunnels {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Ends all that are open and those to come.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.cancel();
    }

    /// Resolves when none is open.
    pub(crate) async fn closed(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Joins `client`, once it is switched, with the connection of an upstream, of which `early`
    /// has been read already. `guard` is dropped when both are closed.
    pub(crate) fn open<U>(
        &self,
        client: Client,
        upstream: U,
        early: Bytes,
        guard: impl Send + 'static,
    ) where
        U: End + Send + 'static,
    {
        let closing = self.closing.clone().cancelled_owned();
        let tunnel = Tunnel {
            stage: Stage::Switching {
                client,
                upstream: Some(upstream),
                early,
            },
            limits: self.limits,
            closing,
            closed: Arc::clone(&self.closed),
            waits: false,
        };
        self.tracker.spawn(async move {
            tunnel.await;
            drop(guard);
        });
    }
}

pin_project! {
    /// One tunnel, from the upstream's agreement to the end.
    struct Tunnel<U: End> {
        stage: Stage<U>,
        limits: Limits,
        #[pin]
        closing: WaitForCancellationFutureOwned,
        closed: Arc<AtomicBool>,
        // The token wakes this task.
        waits: bool,
    }
}

// What lasts is the large one.
#[allow(clippy::large_enum_variant)]
enum Stage<U: End> {
    /// The client is being told.
    Switching {
        client: Client,
        upstream: Option<U>,
        early: Bytes,
    },
    Copying(Copy<ClientEnd, U>),
    Done,
}

impl<U: End> Stage<U> {
    fn poll(&mut self, limits: Limits, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            match self {
                Self::Switching {
                    client,
                    upstream,
                    early,
                } => {
                    let (client, said) = ready!(client.poll(cx))?;
                    let Some(upstream) = upstream.take() else {
                        return Poll::Pending;
                    };
                    let copy = Copy::new(client, upstream, early, limits);
                    *self = Self::Copying(copy.behind(&said));
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

impl<U: End> Future for Tunnel<U> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let ended = match this.stage.poll(*this.limits, cx) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending if *this.waits && !this.closed.load(Ordering::Acquire) => {
                return Poll::Pending;
            }
            Poll::Pending => {
                *this.waits = true;
                ready!(this.closing.poll(cx));
                None
            }
        };
        let (up, down) = this.stage.copied();
        match ended {
            Some(Ok(Ended::Complete)) => tracing::debug!(up, down, "tunnel ended"),
            Some(Ok(Ended::Idle)) => tracing::debug!(up, down, "tunnel closed: nothing moved"),
            Some(Err(error)) => tracing::debug!(up, down, %error, "tunnel broke"),
            None => tracing::debug!(up, down, "tunnel closed by shutdown"),
        }
        if let Stage::Switching {
            upstream: Some(upstream),
            ..
        } = this.stage
        {
            // It has switched, and nobody was told.
            upstream.cut_off();
        }
        *this.stage = Stage::Done;
        Poll::Ready(())
    }
}
