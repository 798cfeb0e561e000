//! What goes wrong with TLS, in words that name the likely cause.

use std::net::SocketAddr;

use mesh_ingress_core::{Error, ErrorKind};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[cfg(not(feature = "tls"))]
    #[error(
        "TLS is asked for to {addr}, but mesh-ingress-forward is built without its feature \"tls\""
    )]
    NotBuilt { addr: SocketAddr },
    #[cfg(feature = "tls")]
    #[error(
        "TLS to {addr} is to use the profile {profile:?}, which the forwarder does not have: it is set with ForwarderBuilder::tls_profile"
    )]
    NoProfile { addr: SocketAddr, profile: String },
    #[cfg(feature = "tls")]
    #[error(
        "TLS to {addr} has no server name: whose certificate is to be expected is said with Tls::for_vhost or Tls::with_server_name"
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

impl Failure {
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
