//! TLS to upstreams.
//!
//! An [`Upstream`](mesh_ingress_core::Upstream) that asks for [`Tls`](mesh_ingress_core::Tls) gets
//! it, or its requests fail: they are never sent in cleartext, whatever features this crate is
//! built with.

#[cfg(feature = "tls")]
mod builder;
#[cfg(feature = "tls")]
mod client;
mod error;
#[cfg(feature = "tls")]
mod handshake;
#[cfg(feature = "tls")]
mod hint;
mod state;
#[cfg(feature = "tls")]
mod stream;
#[cfg(all(test, feature = "tls-ring"))]
mod tests;

#[cfg(feature = "tls")]
pub use self::builder::{TlsClientBuilder, TlsVersion};
#[cfg(feature = "tls")]
pub use self::client::TlsClient;
#[cfg(not(feature = "tls"))]
pub(super) use self::disabled::Handshake;
#[cfg(feature = "tls")]
pub use self::error::TlsConfigError;
#[cfg(feature = "tls")]
pub(super) use self::handshake::Handshake;
pub(crate) use self::state::TlsState;
#[cfg(feature = "tls")]
pub(super) use self::stream::TlsStream;

/// The refusal of a build without the feature `tls`.
#[cfg(not(feature = "tls"))]
mod disabled {
    use std::convert::Infallible;

    use mesh_ingress_core::{Error, Tls, Upstream};
    use tokio::net::TcpStream;

    use super::error::TlsError;
    use crate::connect::{ConnectSettings, Stream};

    /// A handshake that is never made.
    #[derive(Debug)]
    pub(crate) struct Handshake(Infallible);

    impl Handshake {
        pub(crate) fn new(
            _: &ConnectSettings,
            upstream: &Upstream,
            _: &Tls,
        ) -> Result<Self, Error> {
            let addr = upstream.addr();
            Err(TlsError::NotBuilt { addr }.into_error())
        }

        pub(crate) async fn run(self, _: TcpStream) -> Result<Stream, Error> {
            match self.0 {}
        }
    }
}
