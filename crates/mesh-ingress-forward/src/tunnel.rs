//! Connections that have switched to another protocol: WebSocket and its like.

mod copy;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use mesh_ingress_core::Error;
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

pub(crate) use self::copy::Limits;
use self::copy::{Copy, Ended};
use crate::error::Failure;
use crate::pool::Pool;

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

/// What a client asked to switch to.
pub(crate) struct Upgrade {
    pub(crate) token: HeaderValue,
    pub(crate) client: OnUpgrade,
}

impl Upgrade {
    /// The upgrade a request asks for, if it is one to pass on.
    ///
    /// `h2c` is not: it concerns one hop and was removed from HTTP (RFC 9113 §3.1).
    pub(crate) fn of<B>(
        request: &mut http::Request<B>,
        options: &ConnectionOptions,
    ) -> Option<Self> {
        let token = options.upgrade.clone()?;
        if request.version() != http::Version::HTTP_11 || names(&token, b"h2c") {
            return None;
        }
        Some(Self {
            token,
            client: hyper::upgrade::on(request),
        })
    }

    /// Checks that the upstream switched to what was asked for (RFC 9110 §7.8) and returns that.
    pub(crate) fn accepted(
        &self,
        pool: &Pool,
        got: Option<HeaderValue>,
    ) -> Result<HeaderValue, Error> {
        match got {
            Some(got) if names(&self.token, got.as_bytes()) => Ok(got),
            got => Err(Failure::WrongUpgrade {
                addr: pool.upstream.addr(),
                asked: text(&self.token),
                got: got.as_ref().map(text).unwrap_or_default(),
            }
            .into_error()),
        }
    }
}

/// The `Upgrade` field of a `101`, even where `Connection` forgets to name it.
pub(crate) fn token(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(UPGRADE).cloned()
}

/// Whether the comma-separated list has the protocol in it, in any case.
fn names(list: &HeaderValue, protocol: &[u8]) -> bool {
    list.as_bytes().split(|&b| b == b',').any(|item| {
        item.trim_ascii()
            .eq_ignore_ascii_case(protocol.trim_ascii())
    })
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Counts tunnels and ends them: a graceful shutdown of a server does not see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels {
    limits: Limits,
    tracker: TaskTracker,
    closing: CancellationToken,
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
        client: OnUpgrade,
        upstream: U,
        early: Bytes,
        guard: impl Send + 'static,
    ) where
        U: AsyncRead + AsyncWrite + Unpin + Send + 'static,
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
        };
        self.tracker.spawn(async move {
            tunnel.await;
            drop(guard);
        });
    }
}

pin_project! {
    /// One tunnel, from the upstream's agreement to the end.
    struct Tunnel<U> {
        stage: Stage<U>,
        limits: Limits,
        #[pin]
        closing: WaitForCancellationFutureOwned,
    }
}

enum Stage<U> {
    /// The client is being told.
    Switching {
        client: OnUpgrade,
        upstream: Option<U>,
        early: Bytes,
    },
    Copying(Copy<TokioIo<Upgraded>, U>),
    Done,
}

impl<U: AsyncRead + AsyncWrite + Unpin> Stage<U> {
    fn poll(&mut self, limits: Limits, cx: &mut Context<'_>) -> Poll<io::Result<Ended>> {
        loop {
            match self {
                Self::Switching {
                    client,
                    upstream,
                    early,
                } => {
                    let client = ready!(Pin::new(client).poll(cx)).map_err(io::Error::other)?;
                    let Some(upstream) = upstream.take() else {
                        return Poll::Pending;
                    };
                    let client = TokioIo::new(client);
                    *self = Self::Copying(Copy::new(client, upstream, early, limits));
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

impl<U: AsyncRead + AsyncWrite + Unpin> Future for Tunnel<U> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let ended = match this.stage.poll(*this.limits, cx) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => {
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
        *this.stage = Stage::Done;
        Poll::Ready(())
    }
}
