//! Builds and checks TLS settings.

use std::fmt;
use std::sync::Arc;

use mesh_ingress_core::BoxError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use super::{TlsClient, TlsConfigError};

/// The oldest TLS version to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446). It encrypts the client certificate.
    Tls13,
}

static SINCE_12: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
static SINCE_13: &[&SupportedProtocolVersion] = &[&version::TLS13];

impl TlsVersion {
    fn and_newer(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => SINCE_12,
            Self::Tls13 => SINCE_13,
        }
    }
}

/// Builds a [`TlsClient`], or the settings that one is [reloaded](TlsClient::reload) with. `build`
/// checks everything.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TlsClientBuilder {
    provider: Arc<CryptoProvider>,
    roots: Vec<Root>,
    client: Option<Client>,
    min_version: TlsVersion,
}

#[derive(Clone, Debug)]
enum Root {
    Pem(Vec<u8>),
    Der(CertificateDer<'static>),
}

#[derive(Clone)]
struct Client {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl TlsClientBuilder {
    pub(crate) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            roots: Vec::new(),
            client: None,
            min_version: TlsVersion::default(),
        }
    }

    /// Trusts all certificates in a PEM text: the CA of the Service, or of the cluster. At least
    /// one root is needed. There is no default, and the system's roots are not used.
    ///
    /// To trust the system's roots, pass their file: `/etc/ssl/certs/ca-certificates.crt` on
    /// Debian, `/etc/pki/tls/certs/ca-bundle.crt` on Fedora.
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(Root::Pem(pem.into()));
        self
    }

    /// Trusts one certificate in DER form.
    pub fn root_der(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.push(Root::Der(der.into().into()));
        self
    }

    /// Presents a certificate to upstreams that ask for one (mTLS). Default: none.
    ///
    /// Both are PEM texts: the chain with the client's own certificate first, and the private key
    /// (PKCS #8, PKCS #1 or SEC 1), as in a Kubernetes Secret's `tls.crt` and `tls.key`.
    pub fn client_certificate_pem(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.client = Some(Client {
            chain: chain.into(),
            key: key.into(),
        });
        self
    }

    /// Sets the oldest TLS version to speak. Default: TLS 1.2 (RFC 9325 §3.1.1 deprecates older
    /// ones, which rustls does not have).
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.min_version = version;
        self
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// See [`TlsConfigError`].
    pub fn build(self) -> Result<TlsClient, TlsConfigError> {
        Ok(TlsClient::new(&self.config()?))
    }

    /// The configuration of rustls, without ALPN.
    pub(crate) fn config(self) -> Result<ClientConfig, TlsConfigError> {
        let roots = roots(&self.roots)?;
        let config = ClientConfig::builder_with_provider(self.provider)
            .with_protocol_versions(self.min_version.and_newer())
            .map_err(|error| TlsConfigError::Provider {
                source: error.into(),
            })?
            .with_root_certificates(roots);
        let Some(client) = self.client else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(&client.chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(&client.key).map_err(|error| TlsConfigError::Pem {
                what: "private key",
                source: error.into(),
            })?;
        config.with_client_auth_cert(chain, key).map_err(|error| {
            TlsConfigError::ClientCertificate {
                source: error.into(),
            }
        })
    }
}

fn roots(given: &[Root]) -> Result<RootCertStore, TlsConfigError> {
    let mut store = RootCertStore::empty();
    let mut add = |certificate: CertificateDer<'static>| {
        let number = store.len() + 1;
        store
            .add(certificate)
            .map_err(|error| TlsConfigError::Root {
                number,
                source: error.into(),
            })
    };
    for root in given {
        match root {
            Root::Pem(pem) => certificates(pem)?.into_iter().try_for_each(&mut add)?,
            Root::Der(der) => add(der.clone())?,
        }
    }
    if store.is_empty() {
        return Err(TlsConfigError::NoRoots);
    }
    Ok(store)
}

/// All certificates of a PEM text; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let failed = |source: BoxError| TlsConfigError::Pem {
        what: "certificate",
        source,
    };
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.into()))?;
    if certificates.is_empty() {
        return Err(failed("it contains none".into()));
    }
    Ok(certificates)
}

/// Omits the key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
