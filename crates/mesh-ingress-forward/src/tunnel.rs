//! Connections that have switched to another protocol: WebSocket and its like.

use std::io;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_ingress_core::Error;
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Failure;
use crate::pool::Pool;
use crate::stream::Stream;

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
    tracker: TaskTracker,
    closing: CancellationToken,
}

impl Tunnels {
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

    /// Copies both ways until both sides have ended, half-closes included.
    pub(crate) fn open(&self, client: OnUpgrade, upstream: Stream, read: Bytes) {
        let closing = self.closing.clone();
        self.tracker.spawn(async move {
            let copied = async {
                let client = client.await.map_err(io::Error::other)?;
                let mut client = TokioIo::new(client);
                let mut upstream = upstream;
                client.write_all(&read).await?;
                drop(read);
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await
            };
            tokio::select! {
                () = closing.cancelled() => tracing::debug!("tunnel closed by shutdown"),
                copied = copied => match copied {
                    Ok((up, down)) => tracing::debug!(up, down, "tunnel ended"),
                    Err(error) => tracing::debug!(%error, "tunnel broke"),
                },
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_a_list_in_any_case() {
        let asked = HeaderValue::from_static("foo, WebSocket");
        assert!(names(&asked, b"websocket"));
        assert!(names(&asked, b" FOO "));
        assert!(!names(&asked, b"socket"));
        assert!(!names(&asked, b"h2c"));
    }
}
