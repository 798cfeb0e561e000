//! The TLS handshake on a TCP connection.

use std::net::SocketAddr;

use mesh_ingress_core::{Error, Protocol, Tls, Upstream};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::TlsError;
use super::hint::Peer;
use super::{TlsClient, TlsState, TlsStream};
use crate::connect::{ConnectSettings, Stream};

/// A handshake whose settings were checked, before anything is dialed.
#[derive(Debug)]
pub(crate) struct Handshake {
    client: TlsClient,
    name: ServerName<'static>,
    peer: Peer,
}

impl Handshake {
    /// The handshake that an upstream asks for.
    pub(crate) fn new(
        settings: &ConnectSettings,
        upstream: &Upstream,
        tls: &Tls,
    ) -> Result<Self, Error> {
        let addr = upstream.addr();
        let Some(client) = settings.tls.get(tls.profile()) else {
            let profile = tls.profile().into();
            return Err(TlsError::NoProfile { addr, profile }.into_error());
        };
        Self::with_client(client, addr, tls, upstream.http_protocol())
    }

    pub(super) fn with_client(
        client: &TlsClient,
        addr: SocketAddr,
        tls: &Tls,
        protocol: Protocol,
    ) -> Result<Self, Error> {
        let Some(name) = tls.server_name().map(String::from) else {
            return Err(TlsError::NoServerName { addr }.into_error());
        };
        let peer = Peer {
            addr,
            name: name.clone(),
            profile: tls.profile().into(),
            protocol,
            has_client_certificate: false,
        };
        match ServerName::try_from(name) {
            Ok(name) => Ok(Self {
                client: client.clone(),
                name,
                peer,
            }),
            Err(_) => {
                let name = peer.name;
                Err(TlsError::BadServerName { addr, name }.into_error())
            }
        }
    }

    pub(crate) async fn run(mut self, tcp: TcpStream) -> Result<Stream, Error> {
        // Of several addresses, this is the one that answered.
        self.peer.addr = tcp.peer_addr().unwrap_or(self.peer.addr);
        let generation = self.client.current();
        let config = generation.config(self.peer.protocol);
        self.peer.has_client_certificate = config.client_auth_cert_resolver.has_certs();
        let stream = TlsConnector::from(config)
            .connect(self.name, tcp)
            .await
            .map_err(|error| self.peer.error(error).retryable())?;
        let state = TlsState::new(self.peer.clone(), generation.retired());
        let stream = TlsStream::new(stream, state);
        // A server without ALPN completes the handshake, and would parse the HTTP/2 preface as
        // HTTP/1.1 (RFC 9113 §3.2).
        if self.peer.protocol == Protocol::Http2 && stream.negotiated() != Protocol::Http2 {
            let Peer { addr, name, .. } = self.peer;
            return Err(TlsError::NotHttp2 { addr, name }.into_error());
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}
