//! Fields that end at this hop (RFC 9110 §7.6.1).
//!
//! A proxy that forwards hop-by-hop fields lets a client control the upstream connection: requests
//! have been smuggled that way, and `Connection: X-Forwarded-For` once deleted the field that a proxy
//! had just added (CVE-2024-45410). [`strip`] removes, in a request or a response:
//!
//! * every field that any `Connection` line names — except those meant for all recipients, see
//!   below;
//! * `Connection`, `Keep-Alive`, `Proxy-Connection`, `TE`, `Transfer-Encoding`, `Upgrade`,
//!   `HTTP2-Settings`, `Proxy-Authenticate`, `Proxy-Authorization` and
//!   `Proxy-Authentication-Info`, named or not.
//!
//! `Trailer` stays: it describes the message, and without it no trailers are forwarded.
//!
//! # Protected fields
//!
//! RFC 9110 §7.6.1 forbids naming a field in `Connection` that is meant for all recipients of the
//! content. Such a nomination is ignored, so that a client cannot hide a field from the upstream's
//! rules: `Host`, `Authorization`, `Cookie`, `Set-Cookie`, `WWW-Authenticate`, `Content-*`,
//! `Access-Control-*`, `Sec-*`, `If-*`, `Via`, `Date`, `Age`, `Expires`, `Cache-Control`, `Pragma`,
//! `ETag`, `Last-Modified`, `Vary`, `Location`, `Origin`, `Referer`, `Range`, `Expect`,
//! `Max-Forwards`, `Trailer`, `X-Request-ID`, `traceparent`, `tracestate`, `b3`, `X-B3-*`,
//! `Strict-Transport-Security`, `X-Frame-Options`, `X-Content-Type-Options`, and all that the
//! [edge rules](crate::EdgeHygiene) know: `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Envoy-*`,
//! `L5d-*` and so on. Those are removed by trust, never by nomination.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE};

use crate::header_presence::FieldSet;
use crate::names::{HOP_BY_HOP, is_protected};
use crate::{HeaderPresence, list};

/// The connection options of a message, which [`strip`] removes from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// The protocols of `Upgrade`, if `Connection` named it; several lines are joined. Only
    /// HTTP/1.1 has upgrades: ignore it for HTTP/1.0 (RFC 9110 §7.8).
    pub upgrade: Option<HeaderValue>,
    /// Whether `TE` listed `trailers` with a weight other than 0: the sender accepts trailers, as gRPC
    /// requires.
    pub te_trailers: bool,
    /// Whether `Connection` listed `close`.
    pub close: bool,
}

impl ConnectionOptions {
    /// Writes the options for the HTTP/1.1 connection to the other side: `Upgrade` and `TE: trailers`,
    /// if the message had them, and the `Connection` that must name them (RFC 9110 §7.8, §10.1.4).
    pub fn write_http1(&self, headers: &mut HeaderMap) {
        self.write_upgrade(headers);
        if self.te_trailers {
            let both = self.upgrade.is_some();
            let connection = if both { "te, upgrade" } else { "te" };
            headers.insert(CONNECTION, HeaderValue::from_static(connection));
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }

    /// Writes the options for HTTP/2, which has no `Connection`: `TE: trailers`, if the message had it
    /// (RFC 9113 §8.2.2).
    pub fn write_http2(&self, headers: &mut HeaderMap) {
        if self.te_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }

    /// Writes `Upgrade` alone, if the message had it.
    pub(crate) fn write_upgrade(&self, headers: &mut HeaderMap) {
        if let Some(protocols) = &self.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocols.clone());
        }
    }
}

/// Removes the hop-by-hop fields, and returns the options that the next connection may need.
///
/// Reads every `Connection` line and all its members, ignoring case, also in values that are not
/// UTF-8. It is idempotent. Allocates only if `Connection` names a field that is present and not on
/// the fixed list.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use mesh_ingress_headers::hop_by_hop;
///
/// let mut headers = HeaderMap::new();
/// for (name, value) in [
///     ("connection", "close"),
///     ("connection", "X-Internal, ,Authorization"),
///     ("x-internal", "1"),
///     ("authorization", "Bearer t"),
///     ("te", "trailers, deflate;q=0.5"),
/// ] {
///     headers.append(name, HeaderValue::from_static(value));
/// }
/// let options = hop_by_hop::strip(&mut headers);
/// assert!(options.close && options.te_trailers);
/// assert_eq!(headers.len(), 1);
/// assert!(headers.contains_key("authorization"), "cannot be nominated away");
/// ```
pub fn strip(headers: &mut HeaderMap) -> ConnectionOptions {
    strip_with(headers, &mut HeaderPresence::of(headers))
}

/// [`strip`] for a section with this [`HeaderPresence`], which is updated. Hidden: see there.
#[doc(hidden)]
pub fn strip_with(headers: &mut HeaderMap, presence: &mut HeaderPresence) -> ConnectionOptions {
    if !presence.has(FieldSet::HOP_BY_HOP) {
        return ConnectionOptions::default();
    }
    let mut options = ConnectionOptions {
        te_trailers: presence.has(FieldSet::TE) && accepts_trailers(headers),
        ..ConnectionOptions::default()
    };
    let mut nominated = Vec::new();
    let mut upgrade = false;
    // All lines, before any is removed: `HeaderMap::remove` returns the first one only.
    for value in headers.get_all(CONNECTION) {
        // The most common value, which names no field.
        if value == "keep-alive" {
            continue;
        }
        for option in list::members(value.as_bytes()) {
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                upgrade = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive")
                && let Some(name) = present(headers, option)
                && !HOP_BY_HOP.contains(&&name)
                && !is_protected(&name)
            {
                nominated.push(name);
            }
        }
    }
    if upgrade {
        options.upgrade = joined(headers, &UPGRADE);
    }
    for name in nominated {
        headers.remove(name);
    }
    for (number, name) in (0..).zip(HOP_BY_HOP) {
        if presence.has_hop_by_hop(number) {
            headers.remove(name);
        }
    }
    presence.forget(FieldSet::HOP_BY_HOP);
    options
}

/// The field named by `option`, if the message has it.
fn present(headers: &HeaderMap, option: &[u8]) -> Option<HeaderName> {
    let option = std::str::from_utf8(option).ok()?;
    // Looking up by text does not allocate; a `HeaderName` is made for a present field only.
    headers
        .contains_key(option)
        .then(|| HeaderName::from_bytes(option.as_bytes()).ok())?
}

/// RFC 9110 §10.1.4.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| list::members(value.as_bytes()))
        .any(|member| {
            let mut parts = member.split(|&b| b == b';').map(list::trim);
            parts
                .next()
                .is_some_and(|coding| coding.eq_ignore_ascii_case(b"trailers"))
                && !parts.any(is_zero_weight)
        })
}

/// `q=0`, `q=0.`, `q=0.000`: "not acceptable" (RFC 9110 §12.4.2).
fn is_zero_weight(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', weight @ ..] => {
            !weight.is_empty() && weight.iter().all(|b| matches!(b, b'0' | b'.'))
        }
        _ => false,
    }
}

/// All lines of a list field as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(first.clone());
    }
    let mut all = first.as_bytes().to_vec();
    for value in rest {
        all.extend_from_slice(b", ");
        all.extend_from_slice(value.as_bytes());
    }
    HeaderValue::try_from(all).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn each_field_of_the_list_is_removed_alone() {
        for name in HOP_BY_HOP {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            strip(&mut headers);
            assert!(headers.is_empty(), "{name}");
        }
    }

    fn left(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn rfc9110_7_6_1_every_connection_line_counts() {
        // Many proxies miss the second line.
        let mut headers = map(&[
            ("connection", b"close"),
            ("connection", b"x-a"),
            ("connection", b""),
            ("connection", b" , ,X-B\t,,x-c , keep-alive,"),
            ("x-a", b"1"),
            ("x-b", b"1"),
            ("x-b", b"2"),
            ("x-c", b"1"),
            ("x-d", b"1"),
        ]);
        assert!(strip(&mut headers).close);
        assert_eq!(left(&headers), ["x-d"]);
    }

    #[test]
    fn rfc9110_7_6_1_connection_value_need_not_be_utf8() {
        let mut headers = map(&[("connection", b"\xff\xfe, x-a"), ("x-a", b"1")]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn fields_of_the_fixed_list_are_removed_without_being_named() {
        let mut headers = map(&[
            ("keep-alive", b"timeout=5"),
            ("proxy-connection", b"keep-alive"),
            ("te", b"gzip"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"h2c"),
            ("http2-settings", b"AAMAAABkAAQCAAAAAAIAAAAA"),
            ("proxy-authenticate", b"Basic"),
            ("proxy-authorization", b"Basic eA=="),
            ("proxy-authentication-info", b"x"),
            ("trailer", b"grpc-status"),
        ]);
        let options = strip(&mut headers);
        assert_eq!(options, ConnectionOptions::default());
        assert_eq!(left(&headers), ["trailer"]);
    }

    #[test]
    fn protected_fields_cannot_be_nominated_away() {
        for name in [
            "host",
            "content-length",
            "content-type",
            "authorization",
            "cookie",
            "set-cookie",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-anything",
            "x-real-ip",
            "via",
            "date",
            "cache-control",
            "trailer",
            "origin",
            "sec-websocket-key",
            "access-control-allow-origin",
            "traceparent",
            "x-request-id",
            "x-envoy-external-address",
            "l5d-client-id",
        ] {
            let mut headers = map(&[("connection", name.as_bytes()), (name, b"v")]);
            strip(&mut headers);
            assert_eq!(left(&headers), [name]);
        }
    }

    #[test]
    fn rfc9110_7_8_upgrade_counts_only_if_connection_names_it() {
        let mut headers = map(&[("upgrade", b"websocket")]);
        assert_eq!(strip(&mut headers).upgrade, None);
        let mut headers = map(&[
            ("connection", b"keep-alive, Upgrade"),
            ("upgrade", b"websocket"),
        ]);
        assert_eq!(strip(&mut headers).upgrade.unwrap(), "websocket");
        assert!(headers.is_empty());
        let mut headers = map(&[
            ("connection", b"upgrade"),
            ("upgrade", b"h2c"),
            ("upgrade", b"websocket"),
        ]);
        assert_eq!(strip(&mut headers).upgrade.unwrap(), "h2c, websocket");
        let mut headers = map(&[("connection", b"upgrade")]);
        assert_eq!(strip(&mut headers).upgrade, None);
    }

    #[test]
    fn rfc9110_10_1_4_te_trailers() {
        for (te, expected) in [
            (&b"trailers"[..], true),
            (b"Trailers", true),
            (b"gzip, trailers", true),
            (b"trailers;q=1", true),
            (b"trailers ; q=0.5", true),
            (b"trailers;q=0", false),
            (b"trailers;q=0.000", false),
            (b"trailers; Q=0.0", false),
            (b"trailersx", false),
            (b"gzip", false),
            (b"", false),
            (b"\xff, trailers", true),
        ] {
            let mut headers = map(&[("te", te)]);
            assert_eq!(strip(&mut headers).te_trailers, expected, "{te:?}");
        }
        let mut headers = map(&[("te", b"gzip"), ("te", b"trailers")]);
        assert!(strip(&mut headers).te_trailers);
    }

    #[test]
    fn connection_options_that_are_no_field_names_are_ignored() {
        let long = vec![b'a'; 70_000];
        for option in [&b":authority"[..], b"x a", b"\"x-a\"", b"(", &long] {
            let mut headers = map(&[("connection", option), ("x-a", b"1")]);
            strip(&mut headers);
            assert_eq!(left(&headers), ["x-a"]);
        }
    }

    #[test]
    fn repeated_fields_stay_repeated() {
        let mut headers = map(&[
            ("set-cookie", b"a=1"),
            ("connection", b"close"),
            ("set-cookie", b"b=2"),
        ]);
        strip(&mut headers);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }
}
