//! TLS towards upstreams.
//!
//! What an [`Upstream`](mesh_ingress_core::Upstream) asks for in its
//! [`Tls`](mesh_ingress_core::Tls) is done here or refused here: nothing that asks for TLS is ever
//! sent in cleartext, whatever features this crate is built with.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod builder;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod error;
mod failure;
#[cfg(feature = "tls")]
mod handshake;
#[cfg(feature = "tls")]
mod hint;
#[cfg(feature = "tls")]
mod secured;
mod session;
#[cfg(all(test, feature = "tls-ring"))]
mod tests;

#[cfg(not(feature = "tls"))]
pub(crate) use self::absent::Handshake;
#[cfg(feature = "tls")]
pub use self::builder::{TlsClientBuilder, TlsVersion};
#[cfg(feature = "tls")]
pub use self::client::TlsClient;
#[cfg(feature = "tls")]
pub use self::error::TlsConfigError;
#[cfg(feature = "tls")]
pub(crate) use self::handshake::Handshake;
#[cfg(feature = "tls")]
pub(crate) use self::secured::Secured;
pub(crate) use self::session::Session;
