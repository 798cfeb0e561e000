//! Requests to switch to another protocol, and what upstreams answer to them.
//!
//! A client may ask in the form of HTTP/1.1 (`Upgrade`, RFC 9110 §7.8) or of HTTP/2 (extended
//! `CONNECT`, RFC 8441), an upstream may be asked in either. What the client is told is said in its
//! own form, and only once the upstream's answer is found to be the right one.

mod client;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use http::header::UPGRADE;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::ext::Protocol;
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin};
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};

pub(crate) use self::client::{Client, ClientEnd};
use crate::websocket::{self, Key};
use crate::{error::Failure, prepare};

/// Whether a request is an extended `CONNECT`, one that says what the tunnel is for (RFC 8441 §4).
///
/// Where such a request is for WebSocket, and that is all that is forwarded, it means the same as
/// the `GET` of HTTP/1.1: route and check it as one. No answer to it but the forwarder's may be a
/// success: the client would take it for an open tunnel.
#[must_use]
pub fn is_extended_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_some()
}

/// What a client asked to switch to.
#[derive(Debug)]
pub(crate) struct Upgrade {
    asked: Asked,
    /// Resolves when the client has been told that it is switched.
    pub(crate) client: Client,
}

#[derive(Debug)]
enum Asked {
    /// In HTTP/1.1, for the protocols of `Upgrade`.
    Token {
        token: HeaderValue,
        /// That of a WebSocket handshake.
        key: Option<Key>,
        /// HTTP/2 can say the same.
        http2: bool,
    },
    /// With an extended `CONNECT`, for WebSocket. An HTTP/1.1 upstream is sent the key.
    ExtendedConnect { key: Key },
}

/// Why a request to switch cannot be passed on, or its answer cannot be believed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("CONNECT is for proxies that clients choose, this is none")]
    PlainConnect,
    #[error("extended CONNECT to {protocol:?}: only \"websocket\" is known here")]
    Protocol { protocol: String },
    #[error("{addr} switched to WebSocket with the wrong Sec-WebSocket-Accept")]
    WrongAccept { addr: SocketAddr },
    #[error("{addr} answered {status} to a WebSocket handshake: is there one at this path?")]
    NotSwitched {
        addr: SocketAddr,
        status: StatusCode,
    },
}

impl Refused {
    fn into_error(self) -> Error {
        let status = match self {
            Self::PlainConnect => Some(StatusCode::METHOD_NOT_ALLOWED),
            // What RFC 9220 §3 recommends; RFC 8441 says nothing of it.
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
    /// The switch a request asks for, if it is one to pass on. `options` are what was stripped of
    /// its fields.
    ///
    /// * `h2c` is not passed on: it concerns one hop and was removed from HTTP (RFC 9113 §3.1).
    /// * Nor is anything of a server that cannot switch: then the request is ordinary HTTP, as it
    ///   may always be (RFC 9110 §7.8).
    ///
    /// # Errors
    /// When it is a `CONNECT` that cannot become anything else: 405, or 501 for protocols other
    /// than WebSocket.
    pub(crate) fn of<B: HttpBody>(
        request: &mut Request<B>,
        options: &ConnectionOptions,
    ) -> Result<Option<Self>, Error> {
        let asked = if request.method() == Method::CONNECT {
            let Some(protocol) = request.extensions().get::<Protocol>() else {
                return Err(Refused::PlainConnect.into_error());
            };
            if !websocket::is_token(protocol.as_ref()) {
                let protocol = String::from_utf8_lossy(protocol.as_ref()).into_owned();
                return Err(Refused::Protocol { protocol }.into_error());
            }
            let key = Key::random();
            Asked::ExtendedConnect { key }
        } else {
            match &options.upgrade {
                Some(token) if request.version() == Version::HTTP_11 && !names(token, b"h2c") => {
                    let key = names(token, b"websocket").then(|| Key::of(request.headers()));
                    let key = key.flatten();
                    Asked::Token {
                        http2: key.is_some() && is_expressible(request, token),
                        key,
                        token: token.clone(),
                    }
                }
                _ => return Ok(None),
            }
        };
        let client = Client::take(request.extensions_mut());
        match (client, asked) {
            (Some(client), asked) => Ok(Some(Self { asked, client })),
            // It can only be a tunnel.
            (None, Asked::ExtendedConnect { .. }) => Err(Refused::PlainConnect.into_error()),
            (None, Asked::Token { .. }) => Ok(None),
        }
    }

    /// Whether an upstream that speaks HTTP/2 with extended `CONNECT` can be asked for it.
    pub(crate) fn has_http2_form(&self) -> bool {
        match &self.asked {
            Asked::Token { http2, .. } => *http2,
            Asked::ExtendedConnect { .. } => true,
        }
    }

    /// Asks in the form of HTTP/1.1; to be called last, after [`prepare::http1`]. An upstream may
    /// have been asked before that has not looked at it.
    pub(crate) fn ask_http1<B>(&self, request: &mut Request<B>) {
        match &self.asked {
            Asked::Token {
                key: Some(key),
                http2: true,
                ..
            } => websocket::to_http1(request, key),
            Asked::ExtendedConnect { key } => {
                websocket::set_version(request.headers_mut());
                websocket::to_http1(request, key);
            }
            Asked::Token { token, .. } => prepare::upgrade(request.headers_mut(), token.clone()),
        }
    }

    /// Asks in the form of HTTP/2, of an upstream that has offered it, if there
    /// [is one](Self::has_http2_form).
    pub(crate) fn ask_http2<B>(&self, request: &mut Request<B>) {
        websocket::to_extended_connect(request);
    }

    /// Checks an HTTP/1.1 upstream's `101` and makes the answer for the client of it.
    ///
    /// # Errors
    /// When it is not the right answer to what was asked (RFC 9110 §7.8, RFC 6455 §4.1).
    pub(crate) fn switched<B>(
        &self,
        addr: SocketAddr,
        response: &mut Response<B>,
    ) -> Result<(), Error> {
        let said = response.headers().get(UPGRADE).cloned();
        // Without `Connection`, `Upgrade` is a leftover of another hop.
        let got = hop_by_hop::strip(response.headers_mut()).upgrade;
        let websocket = got
            .as_ref()
            .is_some_and(|got| websocket::is_token(got.as_bytes()));
        let (right, key) = match &self.asked {
            Asked::Token { token, key, .. } => {
                let right = got.as_ref().is_some_and(|got| names(token, got.as_bytes()));
                (right, key.as_ref().filter(|_| websocket))
            }
            Asked::ExtendedConnect { key } => (websocket, Some(key)),
        };
        if !right {
            return Err(self.wrong_token(addr, said.as_ref()));
        }
        if key.is_some_and(|key| !key.is_answered_by(response.headers())) {
            return Err(Refused::WrongAccept { addr }.into_error());
        }
        match (&self.asked, got) {
            (Asked::Token { .. }, Some(got)) => {
                websocket::without_framing(response.headers_mut());
                prepare::upgrade(response.headers_mut(), got);
            }
            _ => websocket::to_success(response),
        }
        Ok(())
    }

    fn wrong_token(&self, addr: SocketAddr, said: Option<&HeaderValue>) -> Error {
        let asked = match &self.asked {
            Asked::Token { token, .. } => text(token),
            Asked::ExtendedConnect { .. } => "websocket".to_owned(),
        };
        let got = said.map(text).unwrap_or_default();
        Failure::WrongUpgrade { addr, asked, got }.into_error()
    }

    /// Makes the answer for the client of an HTTP/2 upstream's `200` to an extended `CONNECT`.
    pub(crate) fn connected<B>(&self, response: &mut Response<B>) {
        hop_by_hop::strip(response.headers_mut());
        match &self.asked {
            Asked::Token { key: Some(key), .. } => websocket::to_switching(response, key),
            _ => websocket::to_success(response),
        }
    }

    /// Whether any other answer may go to the client as it is. `version` is the upstream's.
    ///
    /// # Errors
    /// When it is a success and HTTP/2 on one of the sides: the client of an extended `CONNECT`
    /// would take it for an open tunnel (RFC 9110 §9.3.6), and so has an upstream meant it.
    pub(crate) fn check_refusal(
        &self,
        addr: SocketAddr,
        status: StatusCode,
        version: Version,
    ) -> Result<(), Error> {
        let tunnel =
            version == Version::HTTP_2 || matches!(self.asked, Asked::ExtendedConnect { .. });
        if tunnel && status.is_success() {
            return Err(Refused::NotSwitched { addr, status }.into_error());
        }
        Ok(())
    }
}

/// Whether an extended `CONNECT` can say the same: of a WebSocket handshake, and that alone.
fn is_expressible<B: HttpBody>(request: &Request<B>, token: &HeaderValue) -> bool {
    request.method() == Method::GET
        && websocket::is_token(token.as_bytes())
        && request.body().is_end_stream()
}

/// Whether the comma-separated list has the protocol in it, in any case.
fn names(list: &HeaderValue, protocol: &[u8]) -> bool {
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
