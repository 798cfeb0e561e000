//! The fields that Envoy adds to messages, and its own answers.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SERVER};
use http::{Response, StatusCode};
use mesh_ingress_core::Body;

/// Says which router took a request through the mesh: what no data plane adds, for tests to see.
pub(crate) const MESH_ROUTER: HeaderName = HeaderName::from_static("x-mesh-router");

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const ENVOY: HeaderValue = HeaderValue::from_static("envoy");

/// Changes an outbound request as a sidecar does.
pub(super) fn mark_request(headers: &mut HeaderMap, count_attempts: bool) {
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(&uuid())
    {
        headers.insert(REQUEST_ID, id);
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    // A cleartext client shows no certificate, so what it claims about one is not passed on.
    headers.remove(CLIENT_CERT);
    if count_attempts {
        headers.insert(ATTEMPT_COUNT, HeaderValue::from_static("1"));
    }
}

/// Changes a response as a sidecar does.
pub(super) fn mark_response(headers: &mut HeaderMap, took: Duration) {
    headers.insert(SERVER, ENVOY);
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    headers.insert(SERVICE_TIME, HeaderValue::from(millis));
}

/// An answer of the proxy's own.
pub(super) fn local_reply(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, ENVOY);
    if !text.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// The answer to HTTP/1.0, where that is not accepted.
pub(super) fn upgrade_required() -> Response<Body> {
    let mut response = local_reply(StatusCode::UPGRADE_REQUIRED, "");
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// The answer when the upstream cannot be reached, or breaks off before its head is there.
pub(super) fn upstream_failed() -> Response<Body> {
    local_reply(
        StatusCode::SERVICE_UNAVAILABLE,
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
    )
}

/// A random UUID (RFC 9562 §5.4): Istio samples traces by its version digit.
fn uuid() -> String {
    let version_4 = 0x4 << 76;
    let variant = 0b10 << 62;
    let random = fastrand::u128(..) & !(0xf << 76) & !(0b11 << 62);
    let hex = format!("{:032x}", random | version_4 | variant);
    let mut id = hex;
    for at in [20, 16, 12, 8] {
        id.insert(at, '-');
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let (one, two) = (uuid(), uuid());
        assert_ne!(one, two);
        for id in [one, two] {
            let parts: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!("89ab".contains(&id[19..20]), "{id}");
        }
    }
}
