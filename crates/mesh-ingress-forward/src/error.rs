//! From what hyper and the kernel say to what RFC 9209 calls it.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use mesh_ingress_core::{BoxError, Error, ErrorKind, ErrorOrigin};

/// What went wrong with one upstream, in words that name the likely cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
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
    #[error("{addr} answered 101 and closed the connection")]
    UpgradeLost { addr: SocketAddr },
    #[error(
        "the request carries no Upstream extension: is a ServiceUpstreamLayer above the Forwarder?"
    )]
    NoUpstream,
    #[error("the request says neither Host nor an authority, HTTP/2 needs one")]
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

impl Failure {
    /// As an error of the right kind. Whatever fails before a request was sent may be retried.
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
            Self::NoUpstream => (ErrorKind::ProxyConfigurationError, true),
            Self::NoAuthority => (ErrorKind::HttpRequestError, true),
        };
        let stalled = matches!(self, Self::RequestBodyTimeout { .. });
        let mut error = Error::new(kind, self);
        if stalled {
            error = error.with_status(StatusCode::REQUEST_TIMEOUT);
        }
        if retry { error.retryable() } else { error }
    }
}

// As in errno.h, the same on all Unixes.
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
        // Out of file descriptors: that passes.
        _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
            ErrorKind::ConnectionLimitReached
        }
        // Out of memory or worse: ours, not the upstream's.
        _ => ErrorKind::ProxyInternalError,
    }
}

/// What hyper reports of an exchange that was begun.
pub(crate) fn exchange(addr: SocketAddr, error: hyper::Error) -> Error {
    // A request body that fails is the client's doing (it went away), not the upstream's.
    let by_client = error.is_user() && !error.is_shutdown();
    let kind = if by_client {
        ErrorKind::HttpRequestError
    } else if error.is_parse_too_large() {
        ErrorKind::HttpResponseHeaderSectionSize
    } else if error.is_parse() || error.is_parse_status() {
        ErrorKind::HttpProtocolError
    } else if error.is_timeout() {
        ErrorKind::ConnectionTimeout
    } else if is_io_timeout(&error) {
        ErrorKind::ConnectionReadTimeout
    } else {
        ErrorKind::ConnectionTerminated
    };
    let error = Error::new(
        kind,
        Failure::Exchange {
            addr,
            source: error.into(),
        },
    );
    if by_client {
        error.with_origin(ErrorOrigin::Client)
    } else {
        error
    }
}

fn is_io_timeout(error: &hyper::Error) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}
