//! Why TLS settings cannot be used.

use mesh_ingress_core::BoxError;

/// Why a [`TlsClient`](crate::TlsClient) cannot be built, or reloaded: then it goes on with what it
/// has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// There is no root certificate.
    #[error(
        "there are no root certificates: without the CA of the upstream nothing can be verified"
    )]
    NoRoots,
    /// A PEM text is broken, or has nothing of what is looked for in it.
    #[error("no {what} can be read from the PEM text")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where it breaks.
        source: BoxError,
    },
    /// A certificate is none that could be trusted as a root.
    #[error("root certificate number {number} cannot be used")]
    Root {
        /// Which one, from 1, in the order they were given.
        number: usize,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The client certificate or its key cannot be used: most often they do not belong together.
    #[error("the client certificate and its key cannot be used: do they belong together?")]
    ClientCertificate {
        /// What is wrong with them.
        source: BoxError,
    },
    /// The cryptography provider cannot do the TLS versions asked for.
    #[error("the cryptography provider does not support the TLS versions asked for")]
    Provider {
        /// What it lacks.
        source: BoxError,
    },
}
