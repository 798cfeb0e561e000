//! gRPC: its timeout, and its trailers.

use std::time::Duration;

use http::header::{CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The trailers of gRPC, for clients that must be told beforehand (RFC 9110 §6.6.2).
const GRPC_TRAILERS: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");

/// Whether a message is gRPC, or grpc-web, by its `Content-Type`.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Announces the trailers of a gRPC response to an HTTP/1.1 client that accepts trailers: HTTP/2
/// does not announce them, and hyper's HTTP/1.1 server sends only announced ones.
pub(super) fn announce_trailers(headers: &mut HeaderMap) {
    if is_grpc(headers) && !headers.contains_key(TRAILER) {
        headers.insert(TRAILER, GRPC_TRAILERS);
    }
}

/// How long a request may take in all: `limit`, or the client's `grpc-timeout` if that is shorter.
/// The field is forwarded to the upstream, which has a timeout of its own.
pub(super) fn timeout<B>(
    request: &Request<B>,
    options: &ConnectionOptions,
    limit: Option<Duration>,
) -> Option<Duration> {
    // All gRPC calls accept trailers; other requests skip the lookup.
    if !options.te_trailers {
        return limit;
    }
    let value = request.headers().get(GRPC_TIMEOUT);
    let timeout = value.and_then(|value| parse(value.as_bytes()));
    match (timeout, limit) {
        (Some(timeout), Some(limit)) => Some(timeout.min(limit)),
        (timeout, limit) => timeout.or(limit),
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout"). A malformed value is ignored.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits
        .iter()
        .fold(0_u64, |amount, digit| amount * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse(b"99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(parse(b"7u"), Some(Duration::from_micros(7)));
        for malformed in ["", "S", "5", "-1S", "1 S", "123456789S", "1s", "0x1S"] {
            assert_eq!(parse(malformed.as_bytes()), None, "{malformed}");
        }
    }
}
