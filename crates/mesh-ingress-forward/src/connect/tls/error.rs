//! TLS that cannot be configured, or cannot be spoken with an upstream.

use std::net::SocketAddr;

#[cfg(feature = "tls")]
use mesh_ingress_core::BoxError;
use mesh_ingress_core::{Error, ErrorKind};

/// Why a [`TlsClient`](crate::TlsClient) cannot be built or reloaded. One that cannot be reloaded
/// goes on with its old settings.
#[cfg(feature = "tls")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// There is no root certificate.
    #[error(
        "there are no root certificates: without the CA of the upstream nothing can be verified"
    )]
    NoRoots,
    /// A PEM text is malformed, or has no item of the expected kind.
    #[error("no {what} can be read from the PEM text")]
    Pem {
        /// The kind of item that was expected.
        what: &'static str,
        /// The cause.
        source: BoxError,
    },
    /// A root certificate cannot be used.
    #[error("root certificate number {number} cannot be used")]
    Root {
        /// Its number, from 1, in the order they were given.
        number: usize,
        /// The cause.
        source: BoxError,
    },
    /// The client certificate or its key cannot be used: most often they do not belong together.
    #[error("the client certificate and its key cannot be used: do they belong together?")]
    ClientCertificate {
        /// The cause.
        source: BoxError,
    },
    /// The cryptography provider does not support the requested TLS versions.
    #[error("the cryptography provider does not support the TLS versions asked for")]
    Provider {
        /// The cause.
        source: BoxError,
    },
}

/// Why a connection has no TLS, in words that name the likely cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[cfg(not(feature = "tls"))]
    #[error(
        "TLS to {addr} is required, but mesh-ingress-forward is built without its feature \"tls\""
    )]
    NotBuilt { addr: SocketAddr },
    #[cfg(feature = "tls")]
    #[error(
        "TLS to {addr} is to use the profile {profile:?}, which the forwarder does not have: it is set with ForwarderBuilder::tls_profile"
    )]
    NoProfile { addr: SocketAddr, profile: String },
    #[cfg(feature = "tls")]
    #[error(
        "TLS to {addr} has no server name: set it with Tls::for_vhost or Tls::with_server_name"
    )]
    NoServerName { addr: SocketAddr },
    #[cfg(feature = "tls")]
    #[error("TLS to {addr}: {name:?} is neither a DNS name nor an IP address")]
    BadServerName { addr: SocketAddr, name: String },
    #[cfg(feature = "tls")]
    #[error("TLS with {addr} as {name:?}{hint}")]
    Tls {
        addr: SocketAddr,
        name: String,
        hint: String,
        kind: ErrorKind,
        source: std::io::Error,
    },
    #[cfg(feature = "tls")]
    #[error(
        "TLS with {addr} as {name:?}: it did not choose HTTP/2 (ALPN \"h2\"): does this port speak it?"
    )]
    NotHttp2 { addr: SocketAddr, name: String },
}

impl TlsError {
    /// As an error of the right kind. All of these happen before a request was sent, so that it may
    /// be sent again.
    pub(crate) fn into_error(self) -> Error {
        let kind = match &self {
            #[cfg(not(feature = "tls"))]
            Self::NotBuilt { .. } => ErrorKind::ProxyConfigurationError,
            #[cfg(feature = "tls")]
            Self::NoProfile { .. } | Self::NoServerName { .. } | Self::BadServerName { .. } => {
                ErrorKind::ProxyConfigurationError
            }
            #[cfg(feature = "tls")]
            Self::Tls { kind, .. } => *kind,
            #[cfg(feature = "tls")]
            Self::NotHttp2 { .. } => ErrorKind::TlsProtocolError,
        };
        Error::new(kind, self).retryable()
    }
}
