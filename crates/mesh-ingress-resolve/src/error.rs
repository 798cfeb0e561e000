//! Why a service has no address.

use std::fmt;
use std::sync::Arc;

use mesh_ingress_core::{BoxError, Error, ErrorKind};

/// Why a service could not be resolved. Cheap to clone, so that one failure answers every request
/// that waits for it.
///
/// The text names the likely cause: `web.default.svc.cluster.local. does not exist (NXDOMAIN): is
/// the Service's name, its namespace and the cluster domain right?` Requests see it as the
/// [`source`](std::error::Error::source) of an [`Error`] of the same [`kind`](Self::kind), which
/// [may be retried](Error::may_retry): nothing has been sent anywhere.
///
/// ```
/// use mesh_ingress_core::{Error, ErrorKind};
/// use mesh_ingress_resolve::ResolveError;
///
/// let error = ResolveError::new(ErrorKind::DnsError, "the registry has no such service");
/// assert!(Error::from(error).may_retry());
/// ```
#[derive(Clone)]
pub struct ResolveError(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    cause: BoxError,
}

impl ResolveError {
    /// A failure of a kind with its cause, which may be a text.
    pub fn new(kind: ErrorKind, cause: impl Into<BoxError>) -> Self {
        Self(Arc::new(Inner {
            kind,
            cause: cause.into(),
        }))
    }

    /// The RFC 9209 error type.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it would be the same news.
    pub(crate) fn is_equivalent(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.to_string() == other.to_string()
    }

    /// Nothing can be looked up where no Tokio runtime runs.
    #[cfg(feature = "hickory")]
    pub(crate) fn no_runtime() -> Self {
        Self::new(
            ErrorKind::ProxyInternalError,
            "resolving needs a Tokio runtime with I/O and time enabled, and none is running here: \
             poll the request inside one",
        )
    }
}

impl From<ResolveError> for Error {
    fn from(error: ResolveError) -> Self {
        Self::new(error.kind(), error).retryable()
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.cause.fmt(f)
    }
}

impl fmt::Debug for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolveError")
            .field("kind", &self.0.kind)
            .field("cause", &self.0.cause)
            .finish()
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The cause speaks for itself in `Display`; what lies below it is the source.
        self.0.cause.source()
    }
}
