//! Errors of rustls as error types of RFC 9209, with the likely cause.

use std::io;
use std::net::SocketAddr;

use mesh_ingress_core::{Error, ErrorKind, Protocol};
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::error::TlsError;

/// The other side of a TLS connection, and the settings that a hint at the cause of an error needs.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) name: String,
    pub(crate) profile: String,
    pub(crate) protocol: Protocol,
    /// Whether the profile has a client certificate.
    pub(crate) has_client_certificate: bool,
}

impl Peer {
    /// The error of a TLS failure; not yet marked as retryable.
    pub(crate) fn error(&self, source: io::Error) -> Error {
        let (kind, hint) = match source.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => self.explain(error),
            None => explain_io(&source),
        };
        let error = TlsError::Tls {
            addr: self.addr,
            name: self.name.clone(),
            hint,
            kind,
            source,
        };
        Error::new(kind, error)
    }

    fn explain(&self, error: &rustls::Error) -> (ErrorKind, String) {
        match error {
            rustls::Error::InvalidCertificate(error) => {
                (ErrorKind::TlsCertificateError, self.certificate(error))
            }
            rustls::Error::NoCertificatesPresented => {
                (ErrorKind::TlsCertificateError, String::new())
            }
            rustls::Error::AlertReceived(alert) => {
                (ErrorKind::TlsAlertReceived, self.alert(*alert))
            }
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => (
                ErrorKind::TlsProtocolError,
                ": the answer is not TLS: does this port speak cleartext?".into(),
            ),
            rustls::Error::PeerIncompatible(_) => (
                ErrorKind::TlsProtocolError,
                ": no TLS version and cipher suite that both sides take".into(),
            ),
            _ => (ErrorKind::TlsProtocolError, " failed".into()),
        }
    }

    fn certificate(&self, error: &CertificateError) -> String {
        let Self { name, profile, .. } = self;
        match error {
            CertificateError::UnknownIssuer => format!(
                ": is the CA that signed its certificate among the roots of the TLS profile {profile:?}?"
            ),
            // The roots have a CA of the same name: as a rule the same one with an older key.
            CertificateError::BadSignature => format!(
                ": its certificate is not signed by the CA of that name among the roots of the TLS profile {profile:?}: has the CA been renewed?"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    ": its certificate is for another name: is this the Service meant, and is {name:?} the server name to expect of it?"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ": its certificate has expired: is it being renewed, and is the clock here right?"
                    .into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ": its certificate is not valid yet: is the clock here right?".into()
            }
            _ => ": its certificate does not verify".into(),
        }
    }

    fn alert(&self, alert: AlertDescription) -> String {
        let Self { name, profile, .. } = self;
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
                self.about_client_certificate()
            }
            // Servers send these to a client without a certificate in TLS 1.2, and in both versions
            // to one whose certificate they reject.
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => self.about_client_certificate(),
            AlertDescription::UnrecognisedName => format!(": it does not know {name:?}"),
            AlertDescription::NoApplicationProtocol => match self.protocol {
                Protocol::Http2 => ": it does not speak HTTP/2 on this port".into(),
                Protocol::Alpn => ": it speaks neither HTTP/2 nor HTTP/1.1 on this port".into(),
                _ => ": it does not speak HTTP/1.1 on this port".into(),
            },
            AlertDescription::HandshakeFailure if !self.has_client_certificate => format!(
                ": it found no cipher suite that both sides take, or wants a client certificate, which the TLS profile {profile:?} does not have"
            ),
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity => {
                ": it found no TLS version and cipher suite that both sides take".into()
            }
            _ => " was ended by it".into(),
        }
    }

    fn about_client_certificate(&self) -> String {
        let profile = &self.profile;
        if self.has_client_certificate {
            format!(
                ": it does not take the client certificate of the TLS profile {profile:?}: has that expired, and does the upstream trust its CA?"
            )
        } else {
            format!(
                ": it wants a client certificate (mTLS), and the TLS profile {profile:?} has none"
            )
        }
    }
}

fn explain_io(error: &io::Error) -> (ErrorKind, String) {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => (
            ErrorKind::ConnectionTerminated,
            ": it closed the connection in the middle of the handshake: does this port speak TLS?"
                .into(),
        ),
        io::ErrorKind::TimedOut => (ErrorKind::ConnectionTimeout, " took too long".into()),
        _ => (ErrorKind::TlsProtocolError, " failed".into()),
    }
}
