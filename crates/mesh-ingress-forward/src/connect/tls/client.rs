//! TLS settings that can be reloaded while they are used.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use mesh_ingress_core::Protocol;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;

use super::{TlsClientBuilder, TlsConfigError};

/// How TLS is spoken to upstreams: the trusted roots, and the client certificate. It is a "profile"
/// once it has a name in [`ForwarderBuilder::tls_profile`](crate::ForwarderBuilder::tls_profile).
///
/// Cheap to clone. Clones share the settings: keep one to [reload](Self::reload) them for the
/// forwarder that has the other.
///
/// ```no_run
/// use mesh_ingress_core::{Tls, Upstream};
/// use mesh_ingress_forward::{Forwarder, TlsClient};
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "tls-ring")] {
/// let tls = TlsClient::builder()
///     .roots_pem(std::fs::read("/tls/ca.crt")?)
///     .client_certificate_pem(std::fs::read("/tls/tls.crt")?, std::fs::read("/tls/tls.key")?)
///     .build()?;
/// let forwarder = Forwarder::builder().tls_profile("default", tls.clone()).build();
///
/// // Requests to this Service carry it as an extension.
/// let vhost = "pay.default.svc.cluster.local".parse()?;
/// let pay = Upstream::new("10.96.0.9:8443".parse()?).tls(Tls::for_vhost(&vhost));
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # Verification
///
/// The upstream's certificate is always verified: it must chain to one of the roots, be valid now,
/// and be valid for the server name of the [`Tls`](mesh_ingress_core::Tls) (RFC 9110 §4.3.4, RFC
/// 9525). There is no way to turn that off. Revocation is not checked: the certificates of a
/// cluster live for hours or days.
///
/// Sessions are resumed (RFC 8446 §2.2) by connections with the same settings; nothing is sent
/// as early data.
///
/// # Cryptography
///
/// rustls leaves it to a provider, which is always passed explicitly. The process-wide default of
/// rustls is neither read nor set, so that a program may use another one elsewhere.
#[derive(Clone)]
pub struct TlsClient {
    current: Arc<ArcSwap<Generation>>,
}

/// The settings between two reloads.
pub(crate) struct Generation {
    number: u64,
    /// Set by the next reload.
    retired: Arc<AtomicBool>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    alpn: Arc<ClientConfig>,
}

impl TlsClient {
    /// A builder with ring as the cryptography provider.
    #[cfg(feature = "tls-ring")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-ring")))]
    pub fn builder() -> TlsClientBuilder {
        Self::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
    }

    /// A builder with another cryptography provider, such as aws-lc-rs.
    ///
    /// This is the only type of rustls (0.23) in the interface of this crate.
    pub fn builder_with_provider(provider: Arc<CryptoProvider>) -> TlsClientBuilder {
        TlsClientBuilder::new(provider)
    }

    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(Generation::new(0, config))),
        }
    }

    /// Replaces the settings, in all clones: call it when a certificate or a CA has been renewed.
    /// Returns the number of the new [generation](Self::generation).
    ///
    /// New connections use the new settings, and no request begins on a connection with the old
    /// ones; exchanges under way complete on theirs. Old sessions are not resumed.
    ///
    /// # Errors
    ///
    /// Those of [`TlsClientBuilder::build`]; then the old settings stay.
    pub fn reload(&self, new: TlsClientBuilder) -> Result<u64, TlsConfigError> {
        let new = new.config()?;
        let mut number = 0;
        let old = self.current.rcu(|old| {
            number = old.number + 1;
            Generation::new(number, &new)
        });
        // Stored after the swap: a task that sees the old settings retired finds the new ones.
        old.retired.store(true, Ordering::Release);
        Ok(number)
    }

    /// How often the settings have been reloaded.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().number
    }

    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }
}

impl Generation {
    fn new(number: u64, config: &ClientConfig) -> Self {
        // The copies share the session cache: a session can be resumed with any protocol.
        let with_alpn = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
            Arc::new(config)
        };
        Self {
            number,
            retired: Arc::default(),
            http1: with_alpn(&[b"http/1.1"]),
            http2: with_alpn(&[b"h2"]),
            alpn: with_alpn(&[b"h2", b"http/1.1"]),
        }
    }

    /// The configuration for a protocol.
    pub(crate) fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        Arc::clone(match protocol {
            Protocol::Http2 => &self.http2,
            Protocol::Alpn => &self.alpn,
            // `SameAsClient` is resolved before; future protocols fall back to HTTP/1.1.
            _ => &self.http1,
        })
    }

    /// Turns true with the next reload.
    pub(crate) fn retired(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.retired)
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current.load();
        f.debug_struct("TlsClient")
            .field("generation", &current.number)
            .field(
                "client_certificate",
                &current.http1.client_auth_cert_resolver.has_certs(),
            )
            .finish_non_exhaustive()
    }
}
