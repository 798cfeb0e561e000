//! The behaviours at work.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRAILER,
    UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use mesh_ingress_core::Body;

use super::Behaviour;
use super::behaviour::Handler;
use super::body::{Frames, Held, Pattern};
use crate::server::Connection;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Answers one request of the origin named `origin`.
pub(super) async fn respond(
    behaviour: &Behaviour,
    origin: &str,
    connection: &Connection,
    request: Request<Body>,
) -> Response<Body> {
    match behaviour {
        Behaviour::Echo => echo(origin, connection, request).await,
        Behaviour::EchoBody => echo_body(request),
        Behaviour::Drain => match read(request.into_body(), |_| ()).await {
            Ok(length) => typed(TEXT, Body::from(length.to_string())),
            Err(_) => status(StatusCode::BAD_REQUEST),
        },
        Behaviour::StreamBytes(length) => {
            typed(OCTET_STREAM, Body::new(Pattern::new(*length, true)))
        }
        Behaviour::StreamChunked(length) => {
            typed(OCTET_STREAM, Body::new(Pattern::new(*length, false)))
        }
        Behaviour::Trailers(trailers) => with_trailers(request, trailers.clone()).await,
        Behaviour::Status(code) => status(*code),
        Behaviour::Gated(gate) => {
            gate.opened().await;
            echo(origin, connection, request).await
        }
        Behaviour::GatedBody(gate) => typed(TEXT, Body::new(Held::new(gate.clone(), "ok\n"))),
        Behaviour::CloseAfterResponse => {
            let version = request.version();
            let mut response = echo(origin, connection, request).await;
            // Connection fields have no place in HTTP/2 (RFC 9113 §8.2.2).
            if version < Version::HTTP_2 {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            connection.close();
            response
        }
        Behaviour::UpgradeEcho => upgrade_echo(connection, request),
        Behaviour::Custom(Handler(answer)) => answer(request).await,
    }
}

async fn echo(origin: &str, connection: &Connection, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(length) = read(body, |_| ()).await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let host = match (parts.uri.authority(), parts.headers.get(HOST)) {
        (Some(authority), _) => authority.as_str().into(),
        (None, Some(host)) => String::from_utf8_lossy(host.as_bytes()),
        (None, None) => "".into(),
    };
    let target = match parts.uri.path_and_query() {
        Some(target) => target.to_string(),
        None => parts.uri.to_string(),
    };
    let mut text = format!(
        "origin: {origin}\nconnection: {}\nversion: {:?}\nmethod: {}\ntarget: {target}\nhost: {host}\n\
         body-length: {length}\n\n",
        connection.id, parts.version, parts.method,
    );
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {value}");
    }
    typed(TEXT, Body::from(text))
}

fn echo_body(request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let content_type = parts.headers.remove(CONTENT_TYPE).unwrap_or(OCTET_STREAM);
    let mut response = typed(content_type, body);
    // On HTTP/1 only announced trailers are sent.
    for announced in parts.headers.get_all(TRAILER) {
        response.headers_mut().append(TRAILER, announced.clone());
    }
    response
}

async fn with_trailers(request: Request<Body>, trailers: HeaderMap) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let content_type = parts.headers.remove(CONTENT_TYPE).unwrap_or(TEXT);
    let mut frames = VecDeque::new();
    let read = read(body, |data| frames.push_back(Frame::data(data))).await;
    if read.is_err() {
        return status(StatusCode::BAD_REQUEST);
    }
    if frames.is_empty() {
        frames.push_back(Frame::data(Bytes::from_static(b"ok\n")));
    }
    let names: Vec<HeaderValue> = trailers
        .keys()
        .map(|name| HeaderValue::from(name.clone()))
        .collect();
    frames.push_back(Frame::trailers(trailers));
    let mut response = typed(content_type, Body::new(Frames(frames)));
    for name in names {
        response.headers_mut().append(TRAILER, name);
    }
    response
}

fn upgrade_echo(connection: &Connection, mut request: Request<Body>) -> Response<Body> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return status(StatusCode::UPGRADE_REQUIRED);
    };
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let accept = key.and_then(websocket_accept);
    let upgrade = hyper::upgrade::on(&mut request);
    connection.tasks.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            // Ends with the client; then its half of the connection is closed, too.
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, protocol);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(accept) = accept {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2, item 5.4).
fn websocket_accept(key: &HeaderValue) -> Option<HeaderValue> {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    data_encoding::BASE64.encode_mut(&hash.digest().bytes(), &mut accept);
    HeaderValue::from_bytes(&accept).ok()
}

/// Reads a body to its end, one frame at a time, and tells its length.
async fn read(
    mut body: Body,
    mut each: impl FnMut(Bytes),
) -> Result<u64, mesh_ingress_core::BoxError> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
            each(data);
        }
    }
    Ok(length)
}

fn typed(content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}
