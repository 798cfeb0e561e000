//! From a TCP connection to a TLS one.

use std::net::SocketAddr;

use mesh_ingress_core::{Error, Protocol, Tls};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pool::Pool;
use crate::stream::Stream;
use crate::tls::failure::Failure;
use crate::tls::hint::Peer;
use crate::tls::{Secured, Session, TlsClient};

/// A handshake that can be made: what it takes is known, before anything is dialed.
#[derive(Debug)]
pub(crate) struct Handshake {
    client: TlsClient,
    name: ServerName<'static>,
    peer: Peer,
}

impl Handshake {
    /// The one that the upstream of a pool asks for.
    pub(crate) fn new(pool: &Pool, tls: &Tls) -> Result<Self, Error> {
        let addr = pool.addr;
        let Some(client) = pool.settings.tls.get(tls.profile()) else {
            let profile = tls.profile().into();
            return Err(Failure::NoProfile { addr, profile }.into_error());
        };
        Self::with(client, addr, tls, pool.upstream.http_protocol())
    }

    pub(crate) fn with(
        client: &TlsClient,
        addr: SocketAddr,
        tls: &Tls,
        protocol: Protocol,
    ) -> Result<Self, Error> {
        let Some(name) = tls.server_name().map(String::from) else {
            return Err(Failure::NoServerName { addr }.into_error());
        };
        let peer = Peer {
            addr,
            name: name.clone(),
            profile: tls.profile().into(),
            protocol,
            certified: false,
        };
        match ServerName::try_from(name) {
            Ok(name) => Ok(Self {
                client: client.clone(),
                name,
                peer,
            }),
            Err(_) => {
                let name = peer.name;
                Err(Failure::BadServerName { addr, name }.into_error())
            }
        }
    }

    pub(crate) async fn run(mut self, tcp: TcpStream) -> Result<Stream, Error> {
        // Of several addresses it is known only now which one it is.
        self.peer.addr = tcp.peer_addr().unwrap_or(self.peer.addr);
        let generation = self.client.current();
        let config = generation.config(self.peer.protocol);
        self.peer.certified = config.client_auth_cert_resolver.has_certs();
        let stream = TlsConnector::from(config)
            .connect(self.name, tcp)
            .await
            .map_err(|error| self.peer.failed(error).retryable())?;
        let session = Session::new(self.peer.clone(), generation.retired());
        let secured = Secured::new(stream, session);
        // A server that knows nothing of ALPN completes the handshake, and would be sent a preface
        // that it takes for HTTP/1.1 (RFC 9113 §3.2).
        if self.peer.protocol == Protocol::Http2 && secured.negotiated() != Protocol::Http2 {
            let Peer { addr, name, .. } = self.peer;
            return Err(Failure::NotHttp2 { addr, name }.into_error());
        }
        Ok(Stream::Tls(Box::new(secured)))
    }
}
