#!/usr/bin/env bash
# axum's WebSocketUpgrade extractor works behind hyper's server only.
#
# axum 0.8.9 is a tower Service that any HTTP server may call. Its WebSocketUpgrade extractor takes the
# connection from the request extension hyper::upgrade::OnUpgrade (hyper 1.12.0). That type has no public
# constructor, so no other server can provide one: a valid handshake (RFC 6455 §4.1) that is passed to the
# Router as a Service is answered with 426 "WebSocket request couldn't be upgraded since no upgrade state
# was present", while the same handshake without `Upgrade` is answered with 400. A server that is not
# hyper's cannot serve WebSocket handlers of axum applications, though it can serve everything else.
#
# Seen with: axum 0.8.9, hyper 1.12.0, http 1.5.0. Output seen:
#   valid handshake: 426 WebSocket request couldn't be upgraded since no upgrade state was present
#   without Upgrade: 400 `Upgrade` header did not include 'websocket'
#
# Needs cargo. Ends non-zero when the behaviour has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
axum = { version = "=0.8.9", default-features = false, features = ["ws", "http1", "tokio"] }
http = "=1.5.0"
http-body-util = "0.1"
hyper = "=1.12.0"
tokio = { version = "1", features = ["macros", "rt"] }
tower = { version = "0.5", features = ["util"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use axum::{body::Body, extract::ws::WebSocketUpgrade, response::Response, routing::get, Router};
use http_body_util::BodyExt;
use tower::ServiceExt;

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|_socket| async {})
}

async fn answer(upgrade: Option<&str>) -> String {
    let mut request = http::Request::get("/")
        .header("host", "shop.example.com")
        .header("connection", "upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    if let Some(upgrade) = upgrade {
        request = request.header("upgrade", upgrade);
    }
    let app = Router::new().route("/", get(echo));
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    format!("{status} {}", String::from_utf8_lossy(&body))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("valid handshake: {}", answer(Some("websocket")).await);
    println!("without Upgrade: {}", answer(None).await);
}
RUST
output=$(cargo run --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target")
echo "$output"
grep -q "^valid handshake: 426 .*no upgrade state was present" <<<"$output" &&
    grep -q "^without Upgrade: 400 " <<<"$output"
