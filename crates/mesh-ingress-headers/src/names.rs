//! Field names with a meaning for a proxy.

use http::HeaderName;
use http::header::{self, HeaderMap};

macro_rules! names {
    ($($konst:ident = $text:literal;)*) => {
        $(pub(crate) static $konst: HeaderName = HeaderName::from_static($text);)*
    };
}

names! {
    HTTP2_SETTINGS = "http2-settings";
    KEEP_ALIVE = "keep-alive";
    PROXY_AUTHENTICATION_INFO = "proxy-authentication-info";
    PROXY_CONNECTION = "proxy-connection";
    X_FORWARDED_FOR = "x-forwarded-for";
    X_FORWARDED_HOST = "x-forwarded-host";
    X_FORWARDED_PORT = "x-forwarded-port";
    X_FORWARDED_PROTO = "x-forwarded-proto";
    X_FORWARDED_SERVER = "x-forwarded-server";
    X_REAL_IP = "x-real-ip";
    X_REQUEST_ID = "x-request-id";
}

/// Fields that belong to one connection, with or without being named in `Connection`
/// (RFC 9110 §7.6.1, §11.7; RFC 9113 §8.2.2). `Trailer` is not one of them.
pub(crate) static HOP_BY_HOP: [&HeaderName; 10] = [
    &header::CONNECTION,
    &KEEP_ALIVE,
    &PROXY_CONNECTION,
    &header::TE,
    &header::TRANSFER_ENCODING,
    &header::UPGRADE,
    &HTTP2_SETTINGS,
    &header::PROXY_AUTHENTICATE,
    &header::PROXY_AUTHORIZATION,
    &PROXY_AUTHENTICATION_INFO,
];

/// The groups of spoofable fields, each with a rule of its own at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldGroup {
    /// The client's address and the original request: `Forwarded`, `X-Forwarded-*`,
    /// `X-Real-IP`, `True-Client-IP`, `X-Original-URL`, `Front-End-Https` and the like.
    Forwarding,
    /// The client's identity, as a proxy in front would have authenticated it:
    /// `X-Forwarded-Client-Cert`, `SSL-Client-*`, `X-SSL-*`, `X-Auth-Request-*`, `X-Forwarded-User`,
    /// `X-Remote-*`, `Remote-User`, `X-WebAuth-*` and their like.
    Identity,
    /// Control fields of service meshes: `X-Envoy-*`, `X-Istio-*`, `L5d-*`, `X-Kuma-*`.
    Mesh,
    /// `X-HTTP-Method-Override` and its two variants: they replace the method that the gateway's rules
    /// were applied to.
    MethodOverride,
    /// `Proxy`, which CGI programs take for their own `HTTP_PROXY` setting (CVE-2016-5385).
    Proxy,
}

impl FieldGroup {
    /// Every group.
    pub const ALL: &'static [Self] = &[
        Self::Forwarding,
        Self::Identity,
        Self::Mesh,
        Self::MethodOverride,
        Self::Proxy,
    ];

    /// The group of a field by its lower-case name; `None` for fields that anyone may send.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        // The first byte spares nearly every name the comparisons.
        match name.first()? {
            b'x' => Self::of_x(name),
            b'f' => matches!(
                name,
                b"forwarded" | b"front-end-https" | b"fastly-client-ip"
            )
            .then_some(Self::Forwarding),
            b'c' => (name == b"cf-connecting-ip").then_some(Self::Forwarding),
            b't' => (name == b"true-client-ip").then_some(Self::Forwarding),
            b'l' => name.starts_with(b"l5d-").then_some(Self::Mesh),
            b'p' => (name == b"proxy").then_some(Self::Proxy),
            b'r' => (name == b"remote-user").then_some(Self::Identity),
            b's' => name.starts_with(b"ssl-client-").then_some(Self::Identity),
            _ => None,
        }
    }

    fn of_x(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(b"x-")?;
        if let Some(forwarded) = rest.strip_prefix(b"forwarded-") {
            return Some(match forwarded {
                b"client-cert"
                | b"user"
                | b"email"
                | b"groups"
                | b"access-token"
                | b"preferred-username" => Self::Identity,
                _ if forwarded.starts_with(b"tls-client-cert") => Self::Identity,
                _ => Self::Forwarding,
            });
        }
        let begins = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| rest.starts_with(prefix));
        match rest {
            b"real-ip" | b"client-ip" | b"cluster-client-ip" | b"proxyuser-ip" | b"scheme"
            | b"url-scheme" | b"host" | b"rewrite-url" | b"forwarded" => Some(Self::Forwarding),
            b"http-method-override" | b"http-method" | b"method-override" => {
                Some(Self::MethodOverride)
            }
            b"spiffe-id" => Some(Self::Identity),
            _ if begins(&[b"envoy-", b"istio-", b"kuma-"]) => Some(Self::Mesh),
            _ if begins(&[b"original-"]) => Some(Self::Forwarding),
            _ if begins(&[
                b"ssl-",
                b"client-cert",
                b"client-dn",
                b"client-verify",
                b"auth-request-",
                b"remote-",
                b"webauth-",
            ]) =>
            {
                Some(Self::Identity)
            }
            _ => None,
        }
    }
}

/// Whether a field is meant for every recipient of the message, so that nominating it in
/// `Connection` is against RFC 9110 §7.6.1 and would only hide it from a rule further on.
pub(crate) fn is_protected(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    if FieldGroup::of(name).is_some() {
        return true;
    }
    let begins = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    matches!(
        name,
        b"host"
            | b"authorization"
            | b"cookie"
            | b"set-cookie"
            | b"www-authenticate"
            | b"via"
            | b"date"
            | b"age"
            | b"expires"
            | b"cache-control"
            | b"pragma"
            | b"etag"
            | b"last-modified"
            | b"vary"
            | b"location"
            | b"origin"
            | b"referer"
            | b"range"
            | b"expect"
            | b"max-forwards"
            | b"trailer"
            | b"x-request-id"
            | b"traceparent"
            | b"tracestate"
            | b"b3"
            | b"strict-transport-security"
            | b"x-frame-options"
            | b"x-content-type-options"
    ) || begins(&[b"content-", b"access-control-", b"sec-", b"if-", b"x-b3-"])
}

/// Fields for framing, routing or authentication, and hop-by-hop fields: those that must not return
/// under a look-alike name.
pub(crate) fn is_structural(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name)
        || matches!(
            name.as_str(),
            "host" | "content-length" | "trailer" | "authorization" | "cookie" | "via"
        )
}

/// Removes every field with a name that `matches`, all its lines. Allocates only if there is one.
pub(crate) fn remove_matching(headers: &mut HeaderMap, matches: impl Fn(&HeaderName) -> bool) {
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| matches(name))
        .cloned()
        .collect();
    for name in found {
        headers.remove(name);
    }
}

/// Whether a name has a `_` in it, eight bytes at a time.
pub(crate) fn has_underscore(name: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    let (words, rest) = name.as_chunks();
    let in_words = words.iter().any(|word| {
        // A `_` is zero here. A borrow only reaches bytes above one.
        let word = u64::from_le_bytes(*word) ^ (EACH * u64::from(b'_'));
        word.wrapping_sub(EACH) & !word & (EACH * 0x80) != 0
    });
    in_words || rest.contains(&b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spoofable_field_has_its_group() {
        for (group, names) in [
            (
                FieldGroup::Forwarding,
                "x-forwarded-for x-real-ip x-client-ip true-client-ip cf-connecting-ip \
                 fastly-client-ip x-cluster-client-ip forwarded x-proxyuser-ip \
                 x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-server \
                 x-forwarded-prefix x-forwarded-scheme x-forwarded-ssl x-forwarded-uri \
                 x-forwarded-method x-forwarded-path x-forwarded-network x-scheme x-url-scheme \
                 front-end-https x-original-url x-original-uri x-original-method \
                 x-original-host x-original-forwarded-for x-rewrite-url x-host",
            ),
            (
                FieldGroup::Identity,
                "x-forwarded-client-cert x-forwarded-tls-client-cert \
                 x-forwarded-tls-client-cert-info ssl-client-cert ssl-client-verify \
                 ssl-client-subject-dn ssl-client-issuer-dn x-ssl-cert x-client-cert \
                 x-spiffe-id x-auth-request-user x-forwarded-user x-forwarded-email \
                 x-forwarded-groups x-forwarded-access-token x-forwarded-preferred-username \
                 x-remote-user x-remote-group x-remote-extra-scopes remote-user x-webauth-user",
            ),
            (
                FieldGroup::Mesh,
                "x-envoy-retry-on x-envoy-external-address x-envoy-peer-metadata-id \
                 x-istio-attributes l5d-dst-override l5d-client-id x-kuma-tags",
            ),
            (
                FieldGroup::MethodOverride,
                "x-http-method-override x-http-method x-method-override",
            ),
            (FieldGroup::Proxy, "proxy"),
        ] {
            for name in names.split_whitespace() {
                assert_eq!(FieldGroup::of(name.as_bytes()), Some(group), "{name}");
            }
        }
        for name in "x accept x-api-key x-requested-with proxy-x forwarded-by host l5 ssl-client \
                     traceparent b3 x-request-id x-envoy x-originals content-type"
            .split_whitespace()
        {
            assert_eq!(FieldGroup::of(name.as_bytes()), None, "{name}");
        }
    }
}
