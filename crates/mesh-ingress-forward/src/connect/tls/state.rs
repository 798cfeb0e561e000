//! The state of a connection's TLS, for the time when hyper owns its stream.

#[cfg(feature = "tls")]
use std::sync::Arc;
#[cfg(feature = "tls")]
use std::sync::OnceLock;
#[cfg(feature = "tls")]
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_ingress_core::Error;

#[cfg(feature = "tls")]
use super::hint::Peer;

/// A handle on the TLS of a connection; empty for one in cleartext.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsState {
    #[cfg(feature = "tls")]
    inner: Option<Arc<Inner>>,
}

#[cfg(feature = "tls")]
#[derive(Debug)]
struct Inner {
    peer: Peer,
    retired: Arc<AtomicBool>,
    error: OnceLock<rustls::Error>,
}

#[cfg(feature = "tls")]
impl TlsState {
    pub(crate) fn new(peer: Peer, retired: Arc<AtomicBool>) -> Self {
        Self {
            inner: Some(Arc::new(Inner {
                peer,
                retired,
                error: OnceLock::new(),
            })),
        }
    }

    /// Records an error of TLS itself.
    pub(crate) fn record(&self, error: &std::io::Error) {
        let Some(inner) = &self.inner else { return };
        let error = error.get_ref().and_then(|e| e.downcast_ref());
        if let Some(error) = error {
            // The first error is the cause of those that follow.
            let _ = inner.error.set(rustls::Error::clone(error));
        }
    }
}

impl TlsState {
    /// Whether requests may still begin on the connection: not after a reload of its profile.
    pub(crate) fn is_current(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(inner) = &self.inner {
            return !inner.retired.load(Ordering::Acquire);
        }
        true
    }

    /// Replaces an error that TLS caused with that of TLS; returns any other unchanged.
    ///
    /// In TLS 1.3 the handshake is complete for the client before the server has verified its
    /// certificate (RFC 8446 §2): a rejection comes while the client waits for a response, and h2
    /// keeps only its text.
    pub(crate) fn explain(&self, error: Error) -> Error {
        #[cfg(feature = "tls")]
        if let Some(inner) = &self.inner
            && let Some(cause) = inner.error.get()
        {
            let retry = error.may_retry();
            let explained = inner.peer.error(std::io::Error::other(cause.clone()));
            return if retry {
                explained.retryable()
            } else {
                explained
            };
        }
        error
    }
}
