//! Upgraded connections: no byte passes before the switch, and all bytes after it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod front;
mod http1;
mod http2;
mod lifetime;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tls-ring")]
mod tls;
#[cfg(feature = "tls-ring")]
#[path = "../support/tls_origin.rs"]
mod tls_origin;

/// The key of RFC 6455 §1.3, and its accept.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A WebSocket handshake, with the key of the example.
fn handshake() -> String {
    format!(
        "GET /chat?room=1 HTTP/1.1\r\nhost: shop.example.com\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\
         sec-websocket-protocol: chat\r\n\r\n"
    )
}

/// The right answer to it, with bytes of the new protocol right behind.
fn switching(early: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-accept: {ACCEPT}\r\nsec-websocket-protocol: chat\r\n\r\n{early}"
    )
}
