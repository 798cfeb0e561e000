//! Opening a byte stream to an upstream: TCP, and TLS if the upstream asks for it.

mod stream;
mod tls;

use std::cell::Cell;
#[cfg(feature = "tls")]
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_ingress_core::{Error, ErrorKind, Upstream};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) use self::stream::Stream;
pub(crate) use self::tls::TlsState;
#[cfg(feature = "tls")]
pub use self::tls::{TlsClient, TlsClientBuilder, TlsConfigError, TlsVersion};
use crate::error::ForwardError;

/// How connections are opened.
#[derive(Clone, Debug)]
pub(crate) struct ConnectSettings {
    /// For all addresses and handshakes together.
    pub(crate) timeout: Option<Duration>,
    /// For how long a refused connection is tried again.
    pub(crate) retry: Option<Duration>,
    /// TLS profiles by name.
    #[cfg(feature = "tls")]
    pub(crate) tls: HashMap<String, TlsClient>,
}

impl ConnectSettings {
    /// Whether there is a TLS profile of this name.
    #[cfg(feature = "tls")]
    pub(crate) fn has_tls_profile(&self, name: &str) -> bool {
        self.tls.contains_key(name)
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn has_tls_profile(&self, _: &str) -> bool {
        false
    }
}

/// How long one address may take before the next is tried beside it (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The pause before a refused connection is tried again: the first, and the longest.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(20);
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A step of opening a connection, to tell which one took too long.
#[derive(Clone, Copy, Debug)]
enum Step {
    Dial,
    Tls,
    Http,
}

tokio::task_local! {
    static STEP: Cell<Step>;
}

fn enter(step: Step) {
    // Without a connect timeout there is no step to report.
    let _ = STEP.try_with(|current| current.set(step));
}

/// A handshake that took too long, on a TCP connection that was opened in time.
#[derive(Debug, thiserror::Error)]
enum HandshakeTimeout {
    #[error(
        "{addr} accepted the connection and did not finish the TLS handshake within {timeout:?}: does this port speak TLS, or is it overloaded?"
    )]
    Tls { addr: SocketAddr, timeout: Duration },
    #[error(
        "{addr} accepted the connection and did not begin to speak HTTP/2 within {timeout:?}: does this port speak it?"
    )]
    Http { addr: SocketAddr, timeout: Duration },
}

/// Runs `connecting` within the connect timeout.
pub(crate) async fn within<T>(
    timeout: Option<Duration>,
    addr: SocketAddr,
    connecting: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(timeout) = timeout else {
        return connecting.await;
    };
    let mut connecting = pin!(STEP.scope(Cell::new(Step::Dial), connecting));
    if let Ok(connected) = tokio::time::timeout(timeout, connecting.as_mut()).await {
        return connected;
    }
    let error = match connecting.take_value().map(Cell::into_inner) {
        Some(Step::Tls) => HandshakeTimeout::Tls { addr, timeout },
        Some(Step::Http) => HandshakeTimeout::Http { addr, timeout },
        Some(Step::Dial) | None => {
            return Err(ForwardError::ConnectTimeout { addr, timeout }.into_error());
        }
    };
    // No request has been sent yet.
    Err(Error::new(ErrorKind::ConnectionTimeout, error).retryable())
}

/// Connects to the first of the upstream's addresses that answers, and makes the TLS handshake if
/// the upstream asks for TLS.
///
/// The protocol to speak on the stream is that of the upstream: HTTP/1.1, HTTP/2, or for
/// `Protocol::Alpn` what [`Stream::negotiated`] says.
pub(crate) async fn open(settings: &ConnectSettings, upstream: &Upstream) -> Result<Stream, Error> {
    // Configuration errors come before anything is dialed.
    let handshake = upstream.tls_options();
    let handshake = handshake
        .map(|tls| tls::Handshake::new(settings, upstream, tls))
        .transpose()?;
    let tcp = tcp(settings, upstream).await?;
    let stream = match handshake {
        None => Stream::Plain(tcp),
        Some(handshake) => {
            enter(Step::Tls);
            handshake.run(tcp).await?
        }
    };
    enter(Step::Http);
    Ok(stream)
}

/// Connects. A refused connection is tried again for as long as the settings allow.
async fn tcp(settings: &ConnectSettings, upstream: &Upstream) -> Result<TcpStream, Error> {
    let until = settings.retry.map(|retry| Instant::now() + retry);
    let mut pause = FIRST_RETRY_PAUSE;
    loop {
        let connected = match upstream.addresses() {
            [only] => dial(*only).await,
            several => race(several).await,
        };
        let refused = |error: &Error| error.kind() == ErrorKind::ConnectionRefused;
        if !connected.as_ref().is_err_and(refused)
            || until.is_none_or(|until| Instant::now() + pause > until)
        {
            return connected;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY_PAUSE);
    }
}

async fn dial(addr: SocketAddr) -> Result<TcpStream, Error> {
    let connected = async {
        let stream = TcpStream::connect(addr).await?;
        // A head and a small body are one write each; Nagle's algorithm would delay the second.
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connected
        .await
        .map_err(|source: io::Error| ForwardError::Connect { addr, source }.into_error())
}

/// "Happy Eyeballs": tries the addresses in order, each with a head start over the next (RFC 8305).
async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut waiting = addresses.iter().copied();
    let mut dialing = FuturesUnordered::new();
    dialing.extend(waiting.next().map(dial));
    let mut failed = None;
    loop {
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            done = dialing.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    // The first failure is that of the preferred address: the one worth reporting.
                    failed.get_or_insert(error);
                    dialing.extend(waiting.next().map(dial));
                }
                None => break,
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {
                dialing.extend(waiting.next().map(dial));
            }
        }
    }
    Err(failed.unwrap_or_else(|| ForwardError::NoUpstream.into_error()))
}
