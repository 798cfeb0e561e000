//! Requests to switch to another protocol, and what upstreams answer to them.
//!
//! A client may ask in the form of HTTP/1.1 (`Upgrade`, RFC 9110 §7.8) or of HTTP/2 (extended
//! `CONNECT`, RFC 8441), an upstream may be asked in either. What the client is told is said in its
//! own form, and only once the upstream's answer is found to be the right one.

use std::net::SocketAddr;

use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin};
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;

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
    pub(crate) client: OnUpgrade,
}

#[derive(Debug)]
enum Asked {
    /// In HTTP/1.1, for the protocols of `Upgrade`.
    Token {
        token: HeaderValue,
        /// That of a WebSocket handshake that HTTP/2 can say.
        key: Option<Key>,
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
                    Asked::Token {
                        key: expressible(request, token),
                        token: token.clone(),
                    }
                }
                _ => return Ok(None),
            }
        };
        let client = request.extensions_mut().remove::<OnUpgrade>();
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
            Asked::Token { key, .. } => key.is_some(),
            Asked::ExtendedConnect { .. } => true,
        }
    }

    /// Asks in the form of HTTP/1.1; to be called last, after [`prepare::http1`]. An upstream may
    /// have been asked before that has not looked at it.
    pub(crate) fn ask_http1<B>(&self, request: &mut Request<B>) {
        match &self.asked {
            Asked::Token { key: Some(key), .. } => websocket::to_http1(request, key),
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
        // Also where `Connection` forgets to name it.
        let got = response.headers().get(UPGRADE).cloned();
        match &self.asked {
            Asked::Token { token, .. } => {
                let got = got.filter(|got| names(token, got.as_bytes()));
                let got = got.ok_or_else(|| wrong_token(addr, token, response.headers()))?;
                prepare::response(response.headers_mut());
                websocket::without_framing(response.headers_mut());
                prepare::upgrade(response.headers_mut(), got);
            }
            Asked::ExtendedConnect { key } => {
                if !got.is_some_and(|got| websocket::is_token(got.as_bytes())) {
                    let asked = HeaderValue::from_static("websocket");
                    return Err(wrong_token(addr, &asked, response.headers()));
                }
                if !key.is_answered_by(response.headers()) {
                    return Err(Refused::WrongAccept { addr }.into_error());
                }
                prepare::response(response.headers_mut());
                websocket::to_success(response);
            }
        }
        Ok(())
    }

    /// Makes the answer for the client of an HTTP/2 upstream's `200` to an extended `CONNECT`.
    pub(crate) fn connected<B>(&self, response: &mut Response<B>) {
        prepare::response(response.headers_mut());
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

/// The key of a request that an extended `CONNECT` can say: a WebSocket handshake, and that alone.
fn expressible<B: HttpBody>(request: &Request<B>, token: &HeaderValue) -> Option<Key> {
    let handshake = request.method() == Method::GET
        && websocket::is_token(token.as_bytes())
        && request.body().is_end_stream();
    handshake.then(|| Key::of(request.headers())).flatten()
}

fn wrong_token(addr: SocketAddr, asked: &HeaderValue, headers: &HeaderMap) -> Error {
    let got = headers.get(UPGRADE).map(text).unwrap_or_default();
    let asked = text(asked);
    Failure::WrongUpgrade { addr, asked, got }.into_error()
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;

    type Asking = Request<Empty<bytes::Bytes>>;

    const ADDR: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    /// A request as a server gives it, that can switch.
    fn asking(method: Method, version: Version, fields: &[(&'static str, &'static str)]) -> Asking {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.version_mut() = version;
        for (name, value) in fields {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        // One of a request that cannot switch: good enough not to be awaited.
        let none = hyper::upgrade::on(Request::new(()));
        request.extensions_mut().insert(none);
        request
    }

    fn of(request: &mut Asking) -> Result<Option<Upgrade>, Error> {
        let options = mesh_ingress_headers::hop_by_hop::strip(request.headers_mut());
        Upgrade::of(request, &options)
    }

    fn handshake() -> Asking {
        asking(
            Method::GET,
            Version::HTTP_11,
            &[
                ("connection", "Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-key", KEY),
                ("sec-websocket-version", "13"),
            ],
        )
    }

    fn extended_connect(protocol: &'static str) -> Asking {
        let mut request = asking(Method::CONNECT, Version::HTTP_2, &[]);
        request
            .extensions_mut()
            .insert(Protocol::from_static(protocol));
        request
    }

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn tokens_are_a_list_in_any_case() {
        let asked = HeaderValue::from_static("foo,, WebSocket");
        assert!(names(&asked, b"websocket"));
        assert!(names(&asked, b" FOO "));
        assert!(!names(&asked, b"socket"));
        assert!(!names(&asked, b"h2c"));
        assert!(!names(&asked, b""));
    }

    #[test]
    fn rfc9110_7_8_only_http11_asks_with_upgrade_and_h2c_is_left_out() {
        assert!(of(&mut handshake()).unwrap().is_some());
        let upgrade = [("connection", "upgrade"), ("upgrade", "foo")];
        for version in [Version::HTTP_10, Version::HTTP_2] {
            let mut request = asking(Method::GET, version, &upgrade);
            assert!(of(&mut request).unwrap().is_none(), "{version:?}");
        }
        let h2c = [("connection", "upgrade"), ("upgrade", "websocket, h2c")];
        let mut request = asking(Method::GET, Version::HTTP_11, &h2c);
        assert!(of(&mut request).unwrap().is_none());
        let unnamed = [("upgrade", "websocket")];
        let mut request = asking(Method::GET, Version::HTTP_11, &unnamed);
        assert!(of(&mut request).unwrap().is_none());
    }

    #[test]
    fn what_the_server_cannot_switch_is_ordinary_http() {
        let mut request = handshake();
        request.extensions_mut().remove::<OnUpgrade>();
        assert!(of(&mut request).unwrap().is_none());
    }

    #[test]
    fn rfc9220_3_an_unknown_protocol_is_501_and_a_plain_connect_405() {
        let error = of(&mut extended_connect("connect-udp")).unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::NOT_IMPLEMENTED));
        assert_eq!(error.origin(), ErrorOrigin::Client);
        let mut plain = asking(Method::CONNECT, Version::HTTP_2, &[]);
        let error = of(&mut plain).unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn http2_can_say_a_websocket_handshake_and_nothing_else() {
        let http2 = |request: &mut Asking| of(request).unwrap().unwrap().has_http2_form();
        assert!(http2(&mut handshake()));
        assert!(http2(&mut extended_connect("websocket")));
        let mut post = handshake();
        *post.method_mut() = Method::POST;
        assert!(!http2(&mut post));
        let mut no_key = handshake();
        no_key.headers_mut().remove("sec-websocket-key");
        assert!(!http2(&mut no_key));
        let mut list = handshake();
        list.headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("websocket, foo"));
        assert!(!http2(&mut list));
    }

    #[test]
    fn rfc9110_7_8_a_101_must_be_to_what_was_asked_for() {
        let upgrade = of(&mut handshake()).unwrap().unwrap();
        let right = [
            ("upgrade", "websocket"),
            ("connection", "upgrade, x-hop"),
            ("x-hop", "1"),
            ("content-length", "0"),
            ("sec-websocket-accept", ACCEPT),
        ];
        let mut response = answer(101, &right);
        upgrade.switched(ADDR, &mut response).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers().len(), 3);
        assert_eq!(response.headers()["connection"], "upgrade");
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["sec-websocket-accept"], ACCEPT);
        for wrong in [&[("upgrade", "foo")][..], &[("upgrade", "")], &[]] {
            let error = upgrade.switched(ADDR, &mut answer(101, wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HttpUpgradeFailed);
        }
    }

    #[test]
    fn rfc6455_4_1_an_http2_client_is_told_of_a_101_only_with_the_right_accept() {
        let mut request = extended_connect("websocket");
        let upgrade = of(&mut request).unwrap().unwrap();
        upgrade.ask_http1(&mut request);
        assert_eq!(request.method(), Method::GET);
        let accept = Key::of(request.headers()).unwrap();
        let mut response = Response::new(());
        websocket::to_switching(&mut response, &accept);
        upgrade.switched(ADDR, &mut response).unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty());

        let mut untold = Response::new(());
        websocket::to_switching(&mut untold, &accept);
        untold.headers_mut().remove("sec-websocket-accept");
        let stolen = answer(
            101,
            &[("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)],
        );
        let mut other = Response::new(());
        websocket::to_switching(&mut other, &accept);
        other
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("foo"));
        for mut wrong in [untold, stolen, other] {
            let error = upgrade.switched(ADDR, &mut wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HttpUpgradeFailed);
        }
    }

    #[test]
    fn an_upstream_can_be_asked_in_one_form_after_another_in_the_other() {
        let mut request = handshake();
        let upgrade = of(&mut request).unwrap().unwrap();
        for _ in 0..2 {
            upgrade.ask_http2(&mut request);
            assert_eq!(request.method(), Method::CONNECT);
            assert!(!request.headers().contains_key("sec-websocket-key"));
            assert!(!request.headers().contains_key("connection"));
            upgrade.ask_http1(&mut request);
            assert_eq!(request.method(), Method::GET);
            assert_eq!(request.headers()["sec-websocket-key"], KEY);
            assert_eq!(request.headers()["connection"], "upgrade");
            assert_eq!(request.headers()["upgrade"], "websocket");
            assert!(request.extensions().get::<Protocol>().is_none());
        }
    }

    #[test]
    fn rfc8441_5_a_200_is_told_in_the_form_the_client_asked_in() {
        let upgrade = of(&mut handshake()).unwrap().unwrap();
        let mut response = answer(200, &[("sec-websocket-protocol", "chat")]);
        upgrade.connected(&mut response);
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], ACCEPT);

        let upgrade = of(&mut extended_connect("websocket")).unwrap().unwrap();
        let mut response = answer(200, &[("sec-websocket-protocol", "chat")]);
        upgrade.connected(&mut response);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().len(), 1);
    }

    #[test]
    fn a_refusal_that_looks_like_success_is_not_passed_on_where_it_would_open_a_tunnel() {
        let get = of(&mut handshake()).unwrap().unwrap();
        let connect = of(&mut extended_connect("websocket")).unwrap().unwrap();
        let refused = |upgrade: &Upgrade, status, version| {
            let status = StatusCode::from_u16(status).unwrap();
            upgrade.check_refusal(ADDR, status, version).is_ok()
        };
        let (http1, http2) = (Version::HTTP_11, Version::HTTP_2);
        assert!(refused(&get, 200, http1), "ordinary HTTP");
        assert!(
            !refused(&get, 204, http2),
            "the upstream thinks it is a tunnel"
        );
        for version in [http1, http2] {
            assert!(!refused(&connect, 200, version));
            assert!(!refused(&connect, 299, version));
            for status in [301, 401, 403, 404, 426, 500, 503] {
                assert!(refused(&connect, status, version));
                assert!(refused(&get, status, version));
            }
        }
    }
}
