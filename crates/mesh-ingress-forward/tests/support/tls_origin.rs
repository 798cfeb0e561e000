//! Certificates, and an origin that speaks TLS.
#![allow(dead_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(crate) type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// The name of the Service behind these origins.
pub(crate) const NAME: &str = "web.default.svc.cluster.local";

pub(crate) static ONLY_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::named("the CA of the mesh")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.issue_with(name, |_| {})
    }

    pub(crate) fn issue_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity {
            chain: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The settings of a server.
pub(crate) struct Server {
    pub(crate) identity: Identity,
    pub(crate) alpn: &'static [&'static [u8]],
    pub(crate) clients: Option<CertificateDer<'static>>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

impl Server {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            alpn: &[b"h2", b"http/1.1"],
            clients: None,
            versions: rustls::ALL_VERSIONS,
        }
    }

    /// With a certificate of the CA for [`NAME`].
    pub(crate) fn of(ca: &Ca) -> Self {
        Self::new(ca.issue(NAME))
    }

    fn config(self) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::pem_slice_iter(self.identity.chain.as_bytes())
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self.alpn.iter().map(|&name| name.into()).collect();
        config
    }
}

/// A handshake, as the server saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) name: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) resumed: bool,
    /// The client's certificate.
    pub(crate) client: Option<CertificateDer<'static>>,
}

pub(crate) struct Origin {
    addr: SocketAddr,
    handshakes: mpsc::UnboundedReceiver<io::Result<Seen>>,
    _tasks: JoinSet<()>,
}

impl Origin {
    /// Serves each connection with `serve`.
    pub(crate) async fn start<F>(
        server: Server,
        serve: impl Fn(ServerStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(Arc::new(server.config()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, handshakes) = mpsc::unbounded_channel();
        let serve = Arc::new(serve);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                let serve = Arc::clone(&serve);
                connections.spawn(async move {
                    match acceptor.accept(tcp).into_fallible().await {
                        Ok(stream) => {
                            let _ = sender.send(Ok(seen(&stream)));
                            serve(stream).await;
                        }
                        Err((error, mut tcp)) => {
                            let _ = sender.send(Err(error));
                            // Closed with unread bytes, it would be reset, and the alert lost.
                            let _ = tcp.shutdown().await;
                            let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
                        }
                    }
                });
            }
        });
        Self {
            addr,
            handshakes,
            _tasks: tasks,
        }
    }

    /// An origin that answers `ok` to every request over HTTP/1.1.
    pub(crate) async fn http1(server: Server) -> Self {
        Self::start(server, http1).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the next handshake.
    pub(crate) async fn handshake(&mut self) -> io::Result<Seen> {
        self.handshakes.recv().await.unwrap()
    }

    /// The number of handshakes that were not taken yet.
    pub(crate) fn more_handshakes(&self) -> usize {
        self.handshakes.len()
    }
}

fn seen(stream: &ServerStream) -> Seen {
    let tls = stream.get_ref().1;
    let alpn = tls
        .alpn_protocol()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    Seen {
        name: tls.server_name().map(str::to_owned),
        alpn,
        resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        client: tls
            .peer_certificates()
            .map(|chain| chain[0].clone().into_owned()),
    }
}

async fn http1(mut stream: ServerStream) {
    while head(&mut stream).await.is_some() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Reads the head of a request without a body.
pub(crate) async fn head(stream: &mut ServerStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
