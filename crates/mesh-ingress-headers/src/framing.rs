//! Message framing and the form of heads: what must be refused.
//!
//! hyper and h2 accept some messages that two parties could read in two ways:
//! `Transfer-Encoding: gzip, chunked` and `chunked, chunked` pass the server side, a response with
//! both `Transfer-Encoding` and `Content-Length` passes the client side, and the form of the
//! request target is not checked. [`check_request`] and [`check_response`] refuse those; they
//! never repair. Neither of them allocates.
//!
//! Not checked here, because types and parsers ensure it: control bytes, CR, LF and NUL cannot be in a
//! [`HeaderValue`](http::HeaderValue) or [`Uri`]; a fragment is cut off when the `Uri` is parsed;
//! obsolete line folding and whitespace before a colon are refused by hyper's parser. Bytes above 0x7F
//! in a path are passed on as they are.

mod request;
mod response;

use http::{HeaderMap, Method, StatusCode, Uri, Version};

pub use self::request::{RequestRules, RequestRulesBuilder, content_length};
pub use self::response::{ResponseRules, ResponseRulesBuilder};
use crate::header_presence::FieldSet;
use crate::{HeaderPresence, InvalidRequest, InvalidResponse};

/// The default limit on fields in a header section: hyper's.
const MAX_FIELDS: usize = 100;

/// The default limit on the bytes of a header section: near Envoy's 60 KiB.
const MAX_SECTION: usize = 64 * 1024;

/// Checks a request with the default [`RequestRules`].
///
/// # Errors
/// When the request must be refused; see [`RequestRules::check`].
pub fn check_request(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), InvalidRequest> {
    RequestRules::DEFAULT.check(method, uri, version, headers)
}

/// [`check_request`] for a section with this [`HeaderPresence`]. Hidden: see there.
///
/// # Errors
/// As [`check_request`].
#[doc(hidden)]
pub fn check_request_with(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    presence: &HeaderPresence,
) -> Result<(), InvalidRequest> {
    RequestRules::DEFAULT.check_with(method, uri, version, headers, presence)
}

/// Checks a response with the default [`ResponseRules`].
///
/// # Errors
/// When the response must not be relayed and its connection not be used again; see
/// [`ResponseRules::check`].
pub fn check_response(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), InvalidResponse> {
    ResponseRules::DEFAULT.check(status, version, headers)
}

/// [`check_response`] for a section with this [`HeaderPresence`]. Hidden: see there.
///
/// # Errors
/// As [`check_response`].
#[doc(hidden)]
pub fn check_response_with(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    presence: &HeaderPresence,
) -> Result<(), InvalidResponse> {
    ResponseRules::DEFAULT.check_with(status, version, headers, presence)
}

/// Only HTTP/1 has connection-specific fields.
fn is_http1(version: Version) -> bool {
    version <= Version::HTTP_11
}

/// Checks the limits on a header section: its fields, and its bytes as HTTP/1 writes it.
fn check_limits(
    headers: &HeaderMap,
    presence: &HeaderPresence,
    max_fields: usize,
    max_section: usize,
) -> Result<(), LimitExceeded> {
    if headers.len() > max_fields {
        return Err(LimitExceeded::Fields);
    }
    if presence.section_bytes() > max_section {
        return Err(LimitExceeded::Bytes);
    }
    Ok(())
}

enum LimitExceeded {
    Fields,
    Bytes,
}

/// The bytes that a value of `Content-Length` announces: `1*DIGIT` (RFC 9110 §8.6) in the one
/// spelling a number has, `0` or digits that do not begin with `0`. `None` for anything else.
///
/// The RFC allows leading zeros, but no client sends them, and some recipients read them as octal.
///
/// ```
/// use mesh_ingress_headers::framing::number;
///
/// assert_eq!(number(b"1024"), Some(1024));
/// assert_eq!(number(b"0x400"), None);
/// ```
#[must_use]
pub fn number(value: &[u8]) -> Option<u64> {
    match value {
        [b'0'] => Some(0),
        [b'1'..=b'9', ..] => value.iter().try_fold(0_u64, |number, &digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        }),
        _ => None,
    }
}

/// Whether there are fields that HTTP/2 forbids (RFC 9113 §8.2.2); `TE` has a rule of its own.
fn has_connection_specific(presence: &HeaderPresence) -> bool {
    presence.has(
        FieldSet::CONNECTION
            .or(FieldSet::KEEP_ALIVE)
            .or(FieldSet::PROXY_CONNECTION)
            .or(FieldSet::TRANSFER_ENCODING)
            .or(FieldSet::UPGRADE),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_8_6_number_has_one_spelling() {
        for (text, expected) in [
            (&b"0"[..], Some(0)),
            (b"5", Some(5)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"99999999999999999999999999", None),
            (b"", None),
            (b"00", None),
            (b"05", None),
            (b"+5", None),
            (b"-5", None),
            (b"0x5", None),
            (b"5 ", None),
            (b" 5", None),
            (b"5,5", None),
            (b"5, 5", None),
            (b"5.0", None),
            (b"1e3", None),
            (b"5\t", None),
            (b"\xff", None),
            ("٥".as_bytes(), None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
