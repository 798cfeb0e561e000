//! The WebSocket handshake, translated between HTTP versions.
//!
//! HTTP/1.1 has `GET` with `Upgrade: websocket`, a key, and `101` with a hash of that key (RFC 6455
//! §4). HTTP/2 has extended `CONNECT` with `:protocol`, no key, and `200` (RFC 8441 §5). All other
//! fields, with `Sec-WebSocket-Protocol` and `-Extensions`, are the same in both and are end to
//! end.

use data_encoding::BASE64;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;

const TOKEN: &str = "websocket";
const WEBSOCKET: HeaderValue = HeaderValue::from_static(TOKEN);
pub(super) const CONNECTION_UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
/// The only version there is (RFC 6455 §4.1).
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// Part of the hash in a server's answer, to show that it knows the protocol (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A `Sec-WebSocket-Key`: 16 bytes in base64.
#[derive(Clone, Debug)]
pub(super) struct Key(HeaderValue);

impl Key {
    /// A random key. It is no secret: it only prevents that a cache, or a server without WebSocket,
    /// seems to agree (RFC 6455 §10.3 asks for strong randomness only in masking keys).
    pub(super) fn random() -> Self {
        let nonce: [u8; 16] = fastrand::u128(..).to_ne_bytes();
        let mut text = [0; 24];
        BASE64.encode_mut(&nonce, &mut text);
        Self(value(&text))
    }

    /// The key of a request, if it has exactly one and that is well-formed (RFC 6455 §4.2.1).
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(SEC_WEBSOCKET_KEY).iter();
        let (Some(key), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let mut nonce = [0; 18];
        let decoded = key.len() == 24 && BASE64.decode_mut(key.as_bytes(), &mut nonce) == Ok(16);
        decoded.then(|| Self(key.clone()))
    }

    /// The `Sec-WebSocket-Accept` that answers it (RFC 6455 §4.2.2, item 5.4).
    fn accept(&self) -> [u8; 28] {
        let mut hash = sha1_smol::Sha1::new();
        hash.update(self.0.as_bytes());
        hash.update(GUID);
        let mut text = [0; 28];
        BASE64.encode_mut(&hash.digest().bytes(), &mut text);
        text
    }

    /// Whether a response answers it (RFC 6455 §4.1, item 4 of the checks).
    pub(super) fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let (Some(answer), None) = (lines.next(), lines.next()) else {
            return false;
        };
        answer.as_bytes().trim_ascii() == self.accept()
    }
}

/// Base64 as a field value, for which it is always valid.
fn value(base64: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(base64).unwrap_or(HeaderValue::from_static(""))
}

/// Whether `protocol`, of `Upgrade` or `:protocol`, is WebSocket and nothing else.
pub(super) fn is_token(protocol: &[u8]) -> bool {
    protocol.trim_ascii().eq_ignore_ascii_case(TOKEN.as_bytes())
}

/// Turns an extended `CONNECT` into an HTTP/1.1 handshake with `key`. Call it last: `Connection`
/// must not change afterwards.
pub(super) fn to_http1<B>(request: &mut Request<B>, key: &Key) {
    *request.method_mut() = Method::GET;
    request.extensions_mut().remove::<Protocol>();
    let headers = request.headers_mut();
    // Meaningless in HTTP/2 (RFC 8441 §5).
    headers.remove(SEC_WEBSOCKET_ACCEPT);
    headers.remove(CONTENT_LENGTH);
    headers.insert(SEC_WEBSOCKET_KEY, key.0.clone());
    headers.insert(CONNECTION, CONNECTION_UPGRADE);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Adds a version if the client sent none: for HTTP/2 only the examples have one (RFC 8441 §5.1).
pub(super) fn set_version(headers: &mut HeaderMap) {
    headers.entry(SEC_WEBSOCKET_VERSION).or_insert(VERSION);
}

/// Turns an HTTP/1.1 handshake into an extended `CONNECT`.
pub(super) fn to_extended_connect<B>(request: &mut Request<B>) {
    *request.method_mut() = Method::CONNECT;
    request
        .extensions_mut()
        .insert(Protocol::from_static(TOKEN));
    let headers = request.headers_mut();
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_ACCEPT] {
        headers.remove(name);
    }
    // hyper resets a CONNECT with a body, and a handshake has none.
    headers.remove(CONTENT_LENGTH);
}

/// Turns an answer into one that opens a tunnel on an HTTP/2 stream.
pub(super) fn to_success<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        headers.remove(name);
    }
    remove_framing(headers);
}

/// Turns an answer into one that switches an HTTP/1.1 connection.
pub(super) fn to_switching<B>(response: &mut Response<B>, key: &Key) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    remove_framing(headers);
    headers.insert(SEC_WEBSOCKET_ACCEPT, value(&key.accept()));
    headers.insert(CONNECTION, CONNECTION_UPGRADE);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Removes the framing fields: no body follows (RFC 9110 §8.6, §9.3.6).
pub(super) fn remove_framing(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Option<Key> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(text));
        Key::of(&headers)
    }

    #[test]
    fn rfc6455_1_3_accept_matches_the_example() {
        let key = key("dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(key.accept(), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn rfc6455_4_2_1_key_is_16_bytes_in_base64_once() {
        assert!(key("AAAAAAAAAAAAAAAAAAAAAA==").is_some());
        for bad in [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAA!==",
            "AAAAAAAAAAAAAAAAAAAAAA==AAAAAAAA",
        ] {
            assert!(key(bad).is_none(), "{bad}");
        }
        let mut twice = HeaderMap::new();
        let good = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
        twice.append(SEC_WEBSOCKET_KEY, good.clone());
        twice.append(SEC_WEBSOCKET_KEY, good);
        assert!(Key::of(&twice).is_none());
        assert!(Key::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn rfc6455_4_1_only_the_matching_accept_answers_a_key() {
        let key = key("dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        let answer = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(line));
            }
            key.is_answered_by(&headers)
        };
        let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(answer(&[right]));
        assert!(!answer(&[]));
        assert!(!answer(&["s3pplmbitxaq9kygzzhzrbk+xoo="]), "case counts");
        assert!(
            !answer(&["dGhlIHNhbXBsZSBub25jZQ=="]),
            "the key is no answer"
        );
        assert!(!answer(&[right, right]));
    }

    #[test]
    fn random_keys_are_well_formed_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let Key(value) = Key::random();
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_KEY, value.clone());
            assert!(Key::of(&headers).is_some(), "{value:?}");
            assert!(seen.insert(value));
        }
    }

    #[test]
    fn rfc8441_5_extended_connect_becomes_get_with_a_new_key() {
        let mut request = Request::connect("http://shop.example.com/chat?room=1")
            .header("sec-websocket-protocol", "chat, superchat")
            .header("sec-websocket-extensions", "permessage-deflate")
            .header("sec-websocket-key", "of-the-client")
            .header("origin", "http://example.com")
            .extension(Protocol::from_static("websocket"))
            .body(())
            .unwrap();
        let key = Key::random();
        set_version(request.headers_mut());
        to_http1(&mut request, &key);
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "http://shop.example.com/chat?room=1");
        assert!(request.extensions().get::<Protocol>().is_none());
        let headers = request.headers();
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(headers["sec-websocket-version"], "13");
        assert_eq!(headers["sec-websocket-key"], key.0);
        assert_eq!(headers.get_all("sec-websocket-key").iter().count(), 1);
        assert_ne!(key.0, "of-the-client");
        assert_eq!(headers["sec-websocket-protocol"], "chat, superchat");
        assert_eq!(headers["sec-websocket-extensions"], "permessage-deflate");
        assert_eq!(headers["origin"], "http://example.com");
    }

    #[test]
    fn version_of_the_client_is_forwarded() {
        let mut request = Request::connect("http://a/")
            .header("sec-websocket-version", "8")
            .body(())
            .unwrap();
        set_version(request.headers_mut());
        assert_eq!(request.headers()["sec-websocket-version"], "8");
    }

    #[test]
    fn rfc8441_5_get_becomes_extended_connect_without_key() {
        let mut request = Request::get("http://shop.example.com/chat?room=1")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
            .header("content-length", "0")
            .body(())
            .unwrap();
        to_extended_connect(&mut request);
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "http://shop.example.com/chat?room=1");
        let protocol = request.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_ref(), b"websocket");
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn rfc8441_5_101_becomes_200_without_http1_fields() {
        let mut response = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            .header("sec-websocket-protocol", "chat")
            .header("content-length", "0")
            .body(())
            .unwrap();
        to_success(&mut response);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    }

    #[test]
    fn http2_200_becomes_101_with_the_accept_of_the_clients_key() {
        let mut response = Response::builder()
            .status(200)
            .header("sec-websocket-protocol", "chat")
            .header("sec-websocket-accept", "whatever")
            .header("content-length", "0")
            .body(())
            .unwrap();
        to_switching(&mut response, &key("dGhlIHNhbXBsZSBub25jZQ==").unwrap());
        assert_eq!(response.status(), 101);
        let headers = response.headers();
        assert_eq!(headers.len(), 4);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        assert_eq!(
            headers["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(headers["sec-websocket-protocol"], "chat");
    }

    #[test]
    fn protocol_name_is_case_insensitive() {
        assert!(is_token(b"websocket"));
        assert!(is_token(b" WebSocket "));
        assert!(!is_token(b"websockets"));
        assert!(!is_token(b"websocket, foo"));
        assert!(!is_token(b""));
    }
}
