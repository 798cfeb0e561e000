//! TLS settings that can change while they are used.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use mesh_ingress_core::Protocol;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;

use crate::tls::{TlsClientBuilder, TlsConfigError};

/// How TLS is spoken to upstreams: whom to trust, and which certificate to show. A "profile", once
/// it has a name in [`ForwarderBuilder::tls_profile`](crate::ForwarderBuilder::tls_profile).
///
/// Cheap to clone; clones share the settings, so that one that is kept can
/// [reload](Self::reload) them for the forwarder that has the other.
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
/// // What requests to this Service carry as an extension:
/// let vhost = "pay.default.svc.cluster.local".parse()?;
/// let pay = Upstream::new("10.96.0.9:8443".parse()?).tls(Tls::for_vhost(&vhost));
/// # }
/// # Ok(())
/// # }
/// ```
///
/// # What is verified
///
/// The upstream's certificate, always: that it leads to one of the roots, is valid now, and is
/// valid for the server name of the [`Tls`](mesh_ingress_core::Tls) (RFC 9110 §4.3.4, RFC 9525).
/// There is no way to turn that off. Revocation is not looked at: the certificates of a cluster
/// live for hours or days.
///
/// Sessions are resumed (RFC 8446 §2.2) by connections with the same settings; nothing is sent
/// as early data.
///
/// # The cryptography
///
/// rustls leaves it to a provider. It is always passed explicitly: the process-wide default of
/// rustls is neither read nor set, so that a program may use another one elsewhere.
#[derive(Clone)]
pub struct TlsClient {
    current: Arc<ArcSwap<Generation>>,
}

/// Settings that do not change any more.
pub(crate) struct Generation {
    number: u64,
    /// Others have taken their place.
    retired: Arc<AtomicBool>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    alpn: Arc<ClientConfig>,
}

impl TlsClient {
    /// A builder with ring as the provider of the cryptography.
    #[cfg(feature = "tls-ring")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls-ring")))]
    pub fn builder() -> TlsClientBuilder {
        Self::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
    }

    /// A builder with a provider of the cryptography, such as that of aws-lc-rs.
    ///
    /// The only place where a type of rustls (0.23) is part of this crate's interface.
    pub fn builder_with_provider(provider: Arc<CryptoProvider>) -> TlsClientBuilder {
        TlsClientBuilder::new(provider)
    }

    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(Generation::new(0, config))),
        }
    }

    /// Uses other settings from now on: call it when a certificate or a CA has been renewed. All
    /// clones see it. Returns the number of the new [generation](Self::generation).
    ///
    /// New connections are made with the new settings, and no request begins on a connection that
    /// was made with the old ones: exchanges under way end on theirs. Old sessions are not resumed.
    ///
    /// # Errors
    ///
    /// As of [`TlsClientBuilder::build`]; then the old settings stay.
    pub fn reload(&self, new: TlsClientBuilder) -> Result<u64, TlsConfigError> {
        let new = new.config()?;
        let mut number = 0;
        let old = self.current.rcu(|old| {
            number = old.number + 1;
            Generation::new(number, &new)
        });
        // After the new ones are in place: whoever sees the old ones retired finds them.
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
        // The copies share the memory of sessions: what was agreed on with a server holds whatever
        // is spoken inside.
        let speaking = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|&name| name.into()).collect();
            Arc::new(config)
        };
        Self {
            number,
            retired: Arc::default(),
            http1: speaking(&[b"http/1.1"]),
            http2: speaking(&[b"h2"]),
            alpn: speaking(&[b"h2", b"http/1.1"]),
        }
    }

    /// The settings to speak a protocol with.
    pub(crate) fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        Arc::clone(match protocol {
            Protocol::Http2 => &self.http2,
            Protocol::Alpn => &self.alpn,
            // What a client speaks is settled before; protocols to come are spoken as what every
            // origin understands.
            _ => &self.http1,
        })
    }

    /// Turns true when others take their place.
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
