//! Forwarding: simple and right, one upstream connection for each one downstream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use mesh_ingress_core::{Body, BoxError};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::envoy;
use crate::server::Connection;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The way on from one downstream connection. The protocol is the one the client speaks.
#[derive(Debug)]
pub(super) struct Relay {
    connection: Arc<Connection>,
    http1: Mutex<HashMap<SocketAddr, http1::SendRequest<Body>>>,
    http2: Mutex<HashMap<SocketAddr, http2::SendRequest<Body>>>,
}

impl Relay {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            http1: Mutex::new(HashMap::new()),
            http2: Mutex::new(HashMap::new()),
        }
    }

    /// Forwards a request and marks its response as Envoy's, unless `mark` is off.
    pub(super) async fn forward(
        &self,
        origin: SocketAddr,
        mut request: Request<Incoming>,
        mark: bool,
    ) -> Response<Body> {
        let upgrade = upgrade_of(&request);
        let downstream = match &upgrade {
            Some(protocol) if !is_websocket(protocol) => {
                // The only `upgrade_configs` Istio sets.
                return envoy::local_reply(StatusCode::FORBIDDEN, "");
            }
            Some(_) => Some(hyper::upgrade::on(&mut request)),
            None => None,
        };
        let start = Instant::now();
        strip(request.headers_mut(), upgrade.as_ref());
        request.headers_mut().remove(EXPECT);
        let sent = if request.version() == Version::HTTP_2 {
            self.send_http2(origin, request).await
        } else {
            self.send_http1(origin, request).await
        };
        let Ok(mut response) = sent else {
            return envoy::upstream_failed();
        };
        let switched = match downstream {
            Some(downstream) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let upstream = hyper::upgrade::on(&mut response);
                self.connection.tasks.spawn(async move {
                    let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else {
                        return;
                    };
                    let (mut one, mut other) = (TokioIo::new(downstream), TokioIo::new(upstream));
                    let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
                });
                upgrade.as_ref()
            }
            _ => None,
        };
        strip(response.headers_mut(), switched);
        if mark {
            envoy::mark_response(response.headers_mut(), start.elapsed());
        }
        response.map(Body::new)
    }

    async fn send_http1(
        &self,
        origin: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, BoxError> {
        let mut request = to_origin_form(request)?.map(Body::new);
        let kept = self.http1.lock().await.remove(&origin);
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.http1.lock().await.insert(origin, sender);
                    return Ok(response);
                }
                // The origin has closed it meanwhile. What was not sent can be sent elsewhere.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let (mut sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(connect(origin).await?))
            .await?;
        self.connection.tasks.spawn(connection.with_upgrades());
        let response = sender.send_request(request).await?;
        self.http1.lock().await.insert(origin, sender);
        Ok(response)
    }

    async fn send_http2(
        &self,
        origin: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, BoxError> {
        let request = with_authority(request)?.map(Body::new);
        let mut sender = {
            // Held while connecting, so that streams that begin together share a connection.
            let mut senders = self.http2.lock().await;
            match senders.get(&origin) {
                Some(sender) if !sender.is_closed() => sender.clone(),
                _ => {
                    let io = TokioIo::new(connect(origin).await?);
                    let tasks = self.connection.tasks.clone();
                    let (sender, connection) = http2::Builder::new(tasks).handshake(io).await?;
                    self.connection.tasks.spawn(connection);
                    senders.insert(origin, sender.clone());
                    sender
                }
            }
        };
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }
}

async fn connect(origin: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(origin).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// HTTP/1 to an origin server: origin-form and `Host`, also where the client sent an absolute
/// target, which overrides its `Host` (RFC 9112 §3.2.2).
fn to_origin_form(mut request: Request<Incoming>) -> Result<Request<Incoming>, BoxError> {
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
    }
    let target = request.uri().path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    Ok(request)
}

/// HTTP/2 wants an authority in the URI; a client may have sent `Host` instead (RFC 9113 §8.3.1).
fn with_authority(mut request: Request<Incoming>) -> Result<Request<Incoming>, BoxError> {
    if request.uri().authority().is_none()
        && let Some(host) = request.headers().get(HOST)
    {
        let authority = Authority::try_from(host.as_bytes())?;
        let mut parts = request.uri().clone().into_parts();
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts)?;
    }
    Ok(request)
}

/// The protocol that a request asks to switch to (RFC 9110 §7.8).
fn upgrade_of<B>(request: &Request<B>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let nominated = options(request.headers()).any(|option| option.eq_ignore_ascii_case("upgrade"));
    nominated.then(|| request.headers().get(UPGRADE).cloned())?
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// The connection options (RFC 9110 §7.6.1).
fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes off what is for one connection only (RFC 9110 §7.6.1), except for an upgrade that is to be
/// passed on and `TE: trailers`.
fn strip(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    let nominated: Vec<HeaderName> = options(headers)
        .filter_map(|option| option.parse().ok())
        .collect();
    let trailers = headers.get_all(TE).into_iter().any(|value| {
        let value = value.as_bytes().to_ascii_lowercase();
        value
            .split(|b| *b == b',')
            .any(|coding| coding.trim_ascii() == b"trailers")
    });
    for name in nominated {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}
