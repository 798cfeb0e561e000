//! Failures of forwarding, as error types of RFC 9209.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_ingress_core::{BoxError, Error, ErrorKind};

/// A failure of forwarding, in words that name the likely cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("connect to {addr}{}", hint(.source))]
    Connect { addr: SocketAddr, source: io::Error },
    #[error(
        "no connection to {addr} within {timeout:?}: is a NetworkPolicy dropping the packets, or is the ClusterIP stale?"
    )]
    ConnectTimeout { addr: SocketAddr, timeout: Duration },
    #[error("the HTTP/2 preface was not accepted by {addr}: does this port speak h2c?")]
    Handshake { addr: SocketAddr, source: BoxError },
    #[error("no response headers from {addr} within {timeout:?}")]
    ResponseTimeout { addr: SocketAddr, timeout: Duration },
    #[error("the client sent nothing of its request body for {timeout:?}")]
    RequestBodyTimeout { timeout: Duration },
    #[error("nothing of the response body came from {addr} for {timeout:?}")]
    ResponseBodyTimeout { addr: SocketAddr, timeout: Duration },
    #[error("exchange with {addr}")]
    Exchange { addr: SocketAddr, source: BoxError },
    #[error("{addr} answered 101 Switching Protocols to a request that did not ask for it")]
    UnsolicitedUpgrade { addr: SocketAddr },
    #[error("{addr} switched to {got:?} when asked for {asked:?}")]
    WrongUpgrade {
        addr: SocketAddr,
        asked: String,
        got: String,
    },
    #[error(
        "{addr} closed the connection after its 101, or sent that before it had the whole request"
    )]
    UpgradeLost { addr: SocketAddr },
    #[error(
        "the request carries no Upstream extension: is a ServiceUpstreamLayer above the Forwarder?"
    )]
    NoUpstream,
    #[error("the future of a request is polled outside of a Tokio runtime")]
    NoRuntime,
    #[error(
        "{open} connections to {addr} are open and {waiting} requests wait for one: is the upstream slow, or max_connections too low?"
    )]
    LimitReached {
        addr: SocketAddr,
        open: usize,
        waiting: usize,
    },
    #[error(
        "no connection to {addr} became free within {waited:?}: {open} are open; is the upstream slow, or max_connections too low?"
    )]
    QueueTimeout {
        addr: SocketAddr,
        waited: Duration,
        open: usize,
    },
    #[error("the request is not complete within {timeout:?}")]
    RequestTimeout { timeout: Duration },
    #[error("{addr} read nothing of the request body for {timeout:?}")]
    RequestBodyWrite { addr: SocketAddr, timeout: Duration },
    #[error("{max} requests are in flight, which is the limit")]
    InFlight { max: usize },
    #[error("the request has neither Host nor an authority, and HTTP/2 needs one")]
    NoAuthority,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            " was refused: does the Service have ready endpoints, and is the sidecar up?"
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            ": there is no route to the address"
        }
        _ => " failed",
    }
}

impl ForwardError {
    /// As an error of the right kind. A failure before the request was sent is retryable.
    pub(crate) fn into_error(self) -> Error {
        let (kind, retry) = match &self {
            Self::Connect { source, .. } => (connect_kind(source), true),
            Self::ConnectTimeout { .. } => (ErrorKind::ConnectionTimeout, true),
            Self::Handshake { .. } => (ErrorKind::HttpProtocolError, true),
            Self::ResponseTimeout { .. } => (ErrorKind::HttpResponseTimeout, false),
            Self::RequestBodyTimeout { .. } => (ErrorKind::HttpRequestError, false),
            Self::ResponseBodyTimeout { .. } => (ErrorKind::ConnectionReadTimeout, false),
            Self::Exchange { .. } => (ErrorKind::ConnectionTerminated, false),
            Self::UnsolicitedUpgrade { .. } => (ErrorKind::HttpProtocolError, false),
            Self::WrongUpgrade { .. } | Self::UpgradeLost { .. } => {
                (ErrorKind::HttpUpgradeFailed, false)
            }
            Self::NoRuntime => (ErrorKind::ProxyInternalError, true),
            Self::LimitReached { .. } | Self::QueueTimeout { .. } | Self::InFlight { .. } => {
                (ErrorKind::ConnectionLimitReached, true)
            }
            Self::RequestTimeout { .. } => (ErrorKind::HttpResponseTimeout, false),
            Self::RequestBodyWrite { .. } => (ErrorKind::ConnectionWriteTimeout, false),
            Self::NoUpstream => (ErrorKind::ProxyConfigurationError, true),
            Self::NoAuthority => (ErrorKind::HttpRequestError, true),
        };
        let is_timeout = matches!(self, Self::RequestBodyTimeout { .. });
        let mut error = Error::new(kind, self);
        if is_timeout {
            error = error.with_status(StatusCode::REQUEST_TIMEOUT);
        }
        if retry { error.retryable() } else { error }
    }
}

/// One error for several requests.
pub(crate) struct SharedError(Arc<Error>);

impl SharedError {
    pub(crate) fn new(error: Error) -> Self {
        Self(Arc::new(error))
    }

    /// The error, for one more request.
    pub(crate) fn error(&self) -> Error {
        let cause = SharedCause(Arc::clone(&self.0));
        let mut error = Error::new(self.0.kind(), cause).with_origin(self.0.origin());
        if let Some(status) = self.0.status() {
            error = error.with_status(status);
        }
        if self.0.may_retry() {
            error = error.retryable();
        }
        error
    }
}

/// The cause of a shared error: it displays as that does.
#[derive(Debug)]
struct SharedCause(Arc<Error>);

impl SharedCause {
    fn inner(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl StdError for SharedCause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner().and_then(StdError::source)
    }
}

// From errno.h, the same on all Unixes.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

fn connect_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorKind::ConnectionRefused,
        io::ErrorKind::TimedOut => ErrorKind::ConnectionTimeout,
        io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::AddrNotAvailable => ErrorKind::DestinationIpUnroutable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            ErrorKind::ConnectionTerminated
        }
        // Out of file descriptors, for a moment.
        _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
            ErrorKind::ConnectionLimitReached
        }
        // Out of memory or worse: a failure of this process, not of the upstream.
        _ => ErrorKind::ProxyInternalError,
    }
}
