//! What remains known of a connection's TLS while somebody else has its stream.

#[cfg(feature = "tls")]
use std::sync::Arc;
#[cfg(feature = "tls")]
use std::sync::OnceLock;
#[cfg(feature = "tls")]
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_ingress_core::Error;

#[cfg(feature = "tls")]
use crate::tls::hint::Peer;

/// A handle on the TLS of a connection; of one in cleartext, too, which has nothing to tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    #[cfg(feature = "tls")]
    inner: Option<Arc<Inner>>,
}

#[cfg(feature = "tls")]
#[derive(Debug)]
struct Inner {
    peer: Peer,
    retired: Arc<AtomicBool>,
    fault: OnceLock<rustls::Error>,
}

#[cfg(feature = "tls")]
impl Session {
    pub(crate) fn new(peer: Peer, retired: Arc<AtomicBool>) -> Self {
        Self {
            inner: Some(Arc::new(Inner {
                peer,
                retired,
                fault: OnceLock::new(),
            })),
        }
    }

    /// Remembers what TLS itself failed with.
    pub(crate) fn note(&self, error: &std::io::Error) {
        let Some(inner) = &self.inner else { return };
        let fault = error.get_ref().and_then(|e| e.downcast_ref());
        if let Some(fault) = fault {
            // The first one is the cause of those that follow.
            let _ = inner.fault.set(rustls::Error::clone(fault));
        }
    }
}

impl Session {
    /// Whether requests may still be begun on the connection: not once its profile has been
    /// reloaded.
    pub(crate) fn is_current(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(inner) = &self.inner {
            return !inner.retired.load(Ordering::Acquire);
        }
        true
    }

    /// The error as what it is if it comes from TLS, and as it was otherwise.
    ///
    /// In TLS 1.3 the handshake is complete for the client before the server has looked at its
    /// certificate (RFC 8446 §2): a refusal comes while we wait for a response, and h2 keeps
    /// nothing but the text of it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        #[cfg(feature = "tls")]
        if let Some(inner) = &self.inner
            && let Some(fault) = inner.fault.get()
        {
            let retry = error.may_retry();
            let explained = inner.peer.failed(std::io::Error::other(fault.clone()));
            return if retry {
                explained.retryable()
            } else {
                explained
            };
        }
        error
    }
}
