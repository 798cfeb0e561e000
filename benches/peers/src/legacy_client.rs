//! The shape of most Rust proxies: hyper's server and `hyper_util::client::legacy`, with the same
//! header work.

use std::future::{Ready, ready};
use std::io;
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::rewrite::{self, VHOST};
use crate::{BoxError, Settings};

/// Every name is the origin's.
#[derive(Clone, Debug)]
pub(crate) struct Origin(pub(crate) SocketAddr);

impl tower::Service<Name> for Origin {
    type Response = iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(iter::once(self.0)))
    }
}

pub(crate) fn connector(origin: SocketAddr) -> HttpConnector<Origin> {
    let mut connector = HttpConnector::new_with_resolver(Origin(origin));
    connector.set_nodelay(true);
    connector
}

pub(crate) fn run(settings: Settings, listener: TcpListener) -> Result<(), BoxError> {
    crate::current_thread()?.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
            .http2_only(settings.h2_origin)
            .build(connector(settings.origin));
        let server1 = hyper::server::conn::http1::Builder::new();
        let server2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let version = if settings.h2_origin {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        loop {
            let (stream, peer) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            let client = client.clone();
            let from = Arc::new(rewrite::Client::new(peer.ip(), settings.listen.port()));
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (client, from) = (client.clone(), Arc::clone(&from));
                async move {
                    let authority = request.uri().authority();
                    let authority =
                        authority.and_then(|name| HeaderValue::from_str(name.as_str()).ok());
                    from.rewrite(request.headers_mut(), authority);
                    if version == Version::HTTP_2 {
                        request.headers_mut().remove(http::header::HOST);
                    }
                    to_vhost(request.uri_mut());
                    *request.version_mut() = version;
                    client.request(request).await
                }
            });
            let io = TokioIo::new(stream);
            if settings.h2 {
                tokio::spawn(server2.serve_connection(io, service));
            } else {
                tokio::spawn(server1.serve_connection(io, service));
            }
        }
        #[allow(unreachable_code)]
        Ok::<(), Error>(()).map_err(Into::into)
    })
}

fn to_vhost(uri: &mut Uri) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static(VHOST));
    if let Ok(absolute) = Uri::from_parts(parts) {
        *uri = absolute;
    }
}
