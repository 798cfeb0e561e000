//! Filtering trailer fields (RFC 9110 §6.5).
//!
//! Trailers arrive after routing, access control and framing, but some recipients merge them into the
//! headers. So a trailer must not have a field that would change one of these decisions (§6.5.1).
//! [`filter`] drops, in requests and responses:
//!
//! * framing and hop-by-hop fields: `Content-Length`, `Transfer-Encoding`,
//!   `Trailer`, and all that [`hop_by_hop`](crate::hop_by_hop) removes;
//! * routing fields: `Host`, `Max-Forwards`, `Via`, `Expect`;
//! * request modifiers and response control data: `Cache-Control`, `Pragma`, `Range`, `TE`,
//!   `If-*`, `Age`, `Date`, `Expires`, `Location`, `Retry-After`, `Vary`, `Warning`, `Alt-Svc`,
//!   `Set-Cookie`, `Access-Control-*`, `Strict-Transport-Security`, `Clear-Site-Data`,
//!   `Refresh`, `Link`;
//! * authentication fields: `Authorization`, `Cookie`, `WWW-Authenticate`, `Authentication-Info`,
//!   `Origin`, `Referer`, `Sec-*`;
//! * descriptions of the body: `Content-*`, except `Content-Digest` (RFC 9530 §2 means it
//!   for trailers) and `Content-MD5`;
//! * the fields of the [edge rules](crate::EdgeHygiene), for every peer: `Forwarded`,
//!   `X-Forwarded-*`, identity, `X-Envoy-*`, `L5d-*`, `Proxy`; and `X-Request-ID`, `traceparent`,
//!   `tracestate`, `b3`, `X-B3-*`;
//! * every name with a `_`.
//!
//! All others pass: `grpc-status`, `grpc-message`, `Server-Timing`, `ETag`, digests, custom fields.

use http::header::{HeaderMap, HeaderName};

use crate::names::{FieldGroup, HOP_BY_HOP, has_underscore, remove_matching};

/// Removes the fields that must not be in a trailer section. Allocates only if there is one.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use mesh_ingress_headers::trailers;
///
/// let mut fields = HeaderMap::new();
/// for name in ["grpc-status", "content-length", "authorization", "x_forwarded_for"] {
///     fields.insert(name, HeaderValue::from_static("0"));
/// }
/// trailers::filter(&mut fields);
/// assert_eq!(fields.keys().collect::<Vec<_>>(), ["grpc-status"]);
/// ```
pub fn filter(trailers: &mut HeaderMap) {
    remove_matching(trailers, is_forbidden);
}

/// Whether a field of this name must not be in a trailer section.
#[must_use]
pub fn is_forbidden(name: &HeaderName) -> bool {
    if has_underscore(name.as_str().as_bytes()) || HOP_BY_HOP.contains(&name) {
        return true;
    }
    let name = name.as_str().as_bytes();
    if FieldGroup::of(name).is_some() {
        return true;
    }
    let begins = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match name {
        b"content-digest" | b"content-md5" => false,
        b"trailer"
        | b"host"
        | b"max-forwards"
        | b"via"
        | b"expect"
        | b"cache-control"
        | b"pragma"
        | b"range"
        | b"age"
        | b"date"
        | b"expires"
        | b"location"
        | b"retry-after"
        | b"vary"
        | b"warning"
        | b"alt-svc"
        | b"set-cookie"
        | b"strict-transport-security"
        | b"clear-site-data"
        | b"refresh"
        | b"link"
        | b"authorization"
        | b"cookie"
        | b"www-authenticate"
        | b"authentication-info"
        | b"origin"
        | b"referer"
        | b"x-request-id"
        | b"traceparent"
        | b"tracestate"
        | b"b3" => true,
        _ => begins(&[b"content-", b"access-control-", b"sec-", b"if-", b"x-b3-"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_6_5_1_fields_that_change_a_decision_are_forbidden() {
        for name in "content-length transfer-encoding trailer te connection keep-alive upgrade \
                     proxy-connection http2-settings proxy-authorization proxy-authenticate host \
                     max-forwards via expect cache-control range if-match if-none-match \
                     if-modified-since content-type content-encoding content-range \
                     content-location content-disposition content-security-policy authorization \
                     cookie set-cookie www-authenticate location date forwarded x-forwarded-for \
                     x-forwarded-proto x-real-ip x-forwarded-client-cert remote-user ssl-client-cert \
                     x-envoy-retry-on x-envoy-peer-metadata x-istio-attributes l5d-dst-override \
                     l5d-server-id proxy x-request-id traceparent x-b3-flags x_forwarded_for \
                     content_length x_anything origin sec-fetch-site access-control-allow-origin \
                     x-http-method-override"
            .split_whitespace()
        {
            assert!(is_forbidden(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn ordinary_trailer_fields_pass() {
        for name in "grpc-status grpc-message grpc-status-details-bin server-timing etag \
                     content-digest repr-digest digest content-md5 x-checksum x-trace signature"
            .split_whitespace()
        {
            assert!(!is_forbidden(&HeaderName::from_static(name)), "{name}");
        }
    }
}
