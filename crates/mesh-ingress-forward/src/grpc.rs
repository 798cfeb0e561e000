//! How long a gRPC client waits.

use std::time::Duration;

use http::{HeaderName, Request};
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long a request may take in all: `limit`, or less if its client says that it waits less.
/// The field goes on to the upstream, which counts for itself.
pub(crate) fn timeout<B>(
    request: &Request<B>,
    options: &ConnectionOptions,
    limit: Option<Duration>,
) -> Option<Duration> {
    // All calls of gRPC take trailers; nobody else pays for the look.
    if !options.te_trailers {
        return limit;
    }
    let said = request.headers().get(GRPC_TIMEOUT);
    let said = said.and_then(|value| parse(value.as_bytes()));
    match (said, limit) {
        (Some(said), Some(limit)) => Some(said.min(limit)),
        (said, limit) => said.or(limit),
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout"). What is no timeout is none.
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
        for odd in ["", "S", "5", "-1S", "1 S", "123456789S", "1s", "0x1S"] {
            assert_eq!(parse(odd.as_bytes()), None, "{odd}");
        }
    }
}
