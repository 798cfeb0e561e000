//! Requests to switch to another protocol, and the tunnels that they open.
//!
//! A client asks in the form of HTTP/1.1 (`Upgrade`, RFC 9110 §7.8) or of HTTP/2 (extended
//! `CONNECT`, RFC 8441), and so is the upstream asked. The client gets its answer in its own form,
//! and only after the upstream's answer was validated.

mod client;
#[cfg(test)]
mod tests;
mod tunnel;
mod websocket;

use std::net::SocketAddr;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::ext::Protocol;
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin};
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};

use self::client::Client;
pub(crate) use self::tunnel::Tunnels;
use self::websocket::Key;
use crate::error::ForwardError;

/// Whether a request is an extended `CONNECT`, which names the protocol of the tunnel (RFC 8441
/// §4).
///
/// Only those for WebSocket are forwarded. They mean the same as the `GET` of HTTP/1.1: route and
/// check them as one. No answer but the forwarder's may be a success: the client would take it for
/// an open tunnel.
#[must_use]
pub fn is_extended_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some()
}

/// A client's request to switch to another protocol.
#[derive(Debug)]
pub(crate) struct Upgrade {
    form: Form,
    /// Resolves when the client has its answer.
    pub(crate) client: Client,
}

#[derive(Debug)]
enum Form {
    /// That of HTTP/1.1, with the protocols of `Upgrade`.
    Upgrade {
        protocols: HeaderValue,
        /// The key of a WebSocket handshake.
        key: Option<Key>,
        /// HTTP/2 can express the same.
        has_http2_form: bool,
    },
    /// An extended `CONNECT` for WebSocket. The key is for an HTTP/1.1 upstream.
    ExtendedConnect { key: Key },
}

/// Why a request to switch is not forwarded, or its answer is not accepted.
#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error("CONNECT is for forward proxies, and this is a reverse proxy")]
    PlainConnect,
    #[error("extended CONNECT to {protocol:?}: only \"websocket\" is supported")]
    Protocol { protocol: String },
    #[error("{addr} switched to WebSocket with the wrong Sec-WebSocket-Accept")]
    WrongAccept { addr: SocketAddr },
    #[error("{addr} answered {status} to a WebSocket handshake: is there one at this path?")]
    NotSwitched {
        addr: SocketAddr,
        status: StatusCode,
    },
}

impl UpgradeError {
    fn into_error(self) -> Error {
        let status = match self {
            Self::PlainConnect => Some(StatusCode::METHOD_NOT_ALLOWED),
            // Recommended by RFC 9220 §3; RFC 8441 does not say.
            Self::Protocol { .. } => Some(StatusCode::NOT_IMPLEMENTED),
            Self::WrongAccept { .. } | Self::NotSwitched { .. } => None,
        };
        match status {
            Some(status) => Error::new(ErrorKind::HttpRequestError, self)
                .with_origin(ErrorOrigin::Client)
                .with_status(status),
            None => Error::new(ErrorKind::HttpUpgradeFailed, self),
        }
    }
}

impl Upgrade {
    /// The switch that a request asks for, if it is to be forwarded. `options` are the stripped
    /// hop-by-hop options.
    ///
    /// * `h2c` is not forwarded: it concerns one hop and was removed from HTTP (RFC 9113 §3.1).
    /// * An `Upgrade` is ignored if the server cannot switch, which is always allowed (RFC 9110
    ///   §7.8).
    ///
    /// # Errors
    /// For a `CONNECT` that cannot be forwarded: 405, or 501 for protocols other than WebSocket.
    pub(crate) fn of<B: HttpBody>(
        request: &mut Request<B>,
        options: &ConnectionOptions,
    ) -> Result<Option<Self>, Error> {
        let form = if request.method() == Method::CONNECT {
            let Some(protocol) = request.extensions().get::<Protocol>() else {
                return Err(UpgradeError::PlainConnect.into_error());
            };
            if !websocket::is_token(protocol.as_ref()) {
                let protocol = String::from_utf8_lossy(protocol.as_ref()).into_owned();
                return Err(UpgradeError::Protocol { protocol }.into_error());
            }
            let key = Key::random();
            Form::ExtendedConnect { key }
        } else {
            match &options.upgrade {
                Some(protocols)
                    if request.version() == Version::HTTP_11 && !contains(protocols, b"h2c") =>
                {
                    let key = contains(protocols, b"websocket").then(|| Key::of(request.headers()));
                    let key = key.flatten();
                    Form::Upgrade {
                        has_http2_form: key.is_some() && has_http2_form(request, protocols),
                        key,
                        protocols: protocols.clone(),
                    }
                }
                _ => return Ok(None),
            }
        };
        let client = Client::take(request.extensions_mut());
        match (client, form) {
            (Some(client), form) => Ok(Some(Self { form, client })),
            // A `CONNECT` can only become a tunnel.
            (None, Form::ExtendedConnect { .. }) => Err(UpgradeError::PlainConnect.into_error()),
            (None, Form::Upgrade { .. }) => Ok(None),
        }
    }

    /// Whether an extended `CONNECT` can express it.
    pub(crate) fn has_http2_form(&self) -> bool {
        match &self.form {
            Form::Upgrade { has_http2_form, .. } => *has_http2_form,
            Form::ExtendedConnect { .. } => true,
        }
    }

    /// Gives the request the form of HTTP/1.1, as the last step before it is sent. It may have had
    /// the form of HTTP/2 before, if it was sent and not processed.
    pub(crate) fn ask_http1<B>(&self, request: &mut Request<B>) {
        match &self.form {
            Form::Upgrade {
                key: Some(key),
                has_http2_form: true,
                ..
            } => websocket::to_http1(request, key),
            Form::ExtendedConnect { key } => {
                websocket::set_version(request.headers_mut());
                websocket::to_http1(request, key);
            }
            Form::Upgrade { protocols, .. } => {
                set_upgrade(request.headers_mut(), protocols.clone());
            }
        }
    }

    /// Gives the request the form of HTTP/2, if [it has one](Self::has_http2_form). The upstream
    /// must have offered extended `CONNECT`.
    pub(crate) fn ask_http2<B>(&self, request: &mut Request<B>) {
        websocket::to_extended_connect(request);
    }

    /// Validates an HTTP/1.1 upstream's `101`, and gives it the client's form.
    ///
    /// # Errors
    /// If it does not answer the request (RFC 9110 §7.8, RFC 6455 §4.1).
    pub(crate) fn switched<B>(
        &self,
        addr: SocketAddr,
        response: &mut Response<B>,
    ) -> Result<(), Error> {
        let received = response.headers().get(UPGRADE).cloned();
        // Without `Connection: upgrade`, the field `Upgrade` is left over from another hop.
        let got = hop_by_hop::strip(response.headers_mut()).upgrade;
        let websocket = got
            .as_ref()
            .is_some_and(|got| websocket::is_token(got.as_bytes()));
        let (matches, key) = match &self.form {
            Form::Upgrade { protocols, key, .. } => {
                let matches = got
                    .as_ref()
                    .is_some_and(|got| contains(protocols, got.as_bytes()));
                (matches, key.as_ref().filter(|_| websocket))
            }
            Form::ExtendedConnect { key } => (websocket, Some(key)),
        };
        if !matches {
            return Err(self.wrong_protocol(addr, received.as_ref()));
        }
        if key.is_some_and(|key| !key.is_answered_by(response.headers())) {
            return Err(UpgradeError::WrongAccept { addr }.into_error());
        }
        match (&self.form, got) {
            (Form::Upgrade { .. }, Some(got)) => {
                websocket::remove_framing(response.headers_mut());
                set_upgrade(response.headers_mut(), got);
            }
            _ => websocket::to_success(response),
        }
        Ok(())
    }

    fn wrong_protocol(&self, addr: SocketAddr, received: Option<&HeaderValue>) -> Error {
        let asked = match &self.form {
            Form::Upgrade { protocols, .. } => text(protocols),
            Form::ExtendedConnect { .. } => "websocket".to_owned(),
        };
        let got = received.map(text).unwrap_or_default();
        ForwardError::WrongUpgrade { addr, asked, got }.into_error()
    }

    /// Gives an HTTP/2 upstream's `200` to an extended `CONNECT` the client's form.
    pub(crate) fn connected<B>(&self, response: &mut Response<B>) {
        hop_by_hop::strip(response.headers_mut());
        match &self.form {
            Form::Upgrade { key: Some(key), .. } => websocket::to_switching(response, key),
            _ => websocket::to_success(response),
        }
    }

    /// Checks an answer that refuses the switch. `version` is the upstream's.
    ///
    /// # Errors
    /// If it is a success, and one of the sides speaks HTTP/2: there, a success to an extended
    /// `CONNECT` means an open tunnel (RFC 9110 §9.3.6).
    pub(crate) fn check_refusal(
        &self,
        addr: SocketAddr,
        status: StatusCode,
        version: Version,
    ) -> Result<(), Error> {
        let tunnel =
            version == Version::HTTP_2 || matches!(self.form, Form::ExtendedConnect { .. });
        if tunnel && status.is_success() {
            return Err(UpgradeError::NotSwitched { addr, status }.into_error());
        }
        Ok(())
    }
}

/// Whether an extended `CONNECT` can express an `Upgrade`: only that of a WebSocket handshake.
fn has_http2_form<B: HttpBody>(request: &Request<B>, protocols: &HeaderValue) -> bool {
    request.method() == Method::GET
        && websocket::is_token(protocols.as_bytes())
        && request.body().is_end_stream()
}

/// Asks for another protocol, or agrees to it, in HTTP/1.1 (RFC 9110 §7.8).
fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, websocket::CONNECTION_UPGRADE);
    headers.insert(UPGRADE, protocol);
}

/// Whether a comma-separated list contains a protocol, in any case.
fn contains(list: &HeaderValue, protocol: &[u8]) -> bool {
    let protocol = protocol.trim_ascii();
    let mut items = list
        .as_bytes()
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii);
    !protocol.is_empty() && items.any(|item| item.eq_ignore_ascii_case(protocol))
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
