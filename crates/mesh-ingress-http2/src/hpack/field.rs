//! Typed fields.

use bytes::Bytes;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method};

/// A field of a request. Clones share their bytes, so that a field in the table is parsed once.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// `:method`
    Method(Method),
    /// `:scheme`
    Scheme(Scheme),
    /// `:authority`
    Authority(Authority),
    /// `:path`
    Path(PathAndQuery),
    /// A `:path` without spaces or control characters that is not valid in RFC 3986.
    InvalidPath,
    /// `:protocol` (RFC 8441 §4)
    Protocol(HeaderValue),
    /// A regular field.
    Regular(HeaderName, HeaderValue),
    /// A field that makes a request malformed, and why (RFC 9113 §8.2, §8.3).
    Malformed(&'static str),
}

/// The name of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Regular(HeaderName),
    /// A malformed name: the reason, and its length.
    Malformed(&'static str, usize),
}

impl Name {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let malformed = |why| Self::Malformed(why, bytes.len());
        match bytes {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":protocol" => Self::Protocol,
            b":status" => malformed("`:status` is for responses"),
            [b':', ..] => malformed("an unknown pseudo-header field"),
            // RFC 9113 §8.2.1
            _ if bytes.iter().any(u8::is_ascii_uppercase) => malformed("a name in upper case"),
            _ => match HeaderName::from_bytes(bytes) {
                Ok(name) => match name {
                    // RFC 9113 §8.2.2
                    CONNECTION | TRANSFER_ENCODING | UPGRADE => {
                        malformed("a connection-specific field")
                    }
                    name if matches!(name.as_str(), "keep-alive" | "proxy-connection") => {
                        malformed("a connection-specific field")
                    }
                    name => Self::Regular(name),
                },
                Err(_) => malformed("an invalid name"),
            },
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Method => ":method".len(),
            Self::Scheme => ":scheme".len(),
            Self::Authority => ":authority".len(),
            Self::Path => ":path".len(),
            Self::Protocol => ":protocol".len(),
            Self::Regular(name) => name.as_str().len(),
            Self::Malformed(_, length) => *length,
        }
    }

    /// The field of this name with a value.
    pub(super) fn with(&self, value: Bytes) -> Field {
        match self {
            Self::Method => match Method::from_bytes(&value) {
                Ok(method) => Field::Method(method),
                Err(_) => Field::Malformed("an invalid method"),
            },
            Self::Scheme => match &value[..] {
                b"http" => Field::Scheme(Scheme::HTTP),
                b"https" => Field::Scheme(Scheme::HTTPS),
                _ => Field::Malformed("a scheme other than http and https"),
            },
            Self::Authority => match Authority::from_maybe_shared(value) {
                Ok(authority) => Field::Authority(authority),
                Err(_) => Field::Malformed("an invalid authority"),
            },
            Self::Path => path(value),
            Self::Protocol => match HeaderValue::from_maybe_shared(value) {
                Ok(protocol) if protocol.to_str().is_ok() => Field::Protocol(protocol),
                _ => Field::Malformed("an invalid protocol"),
            },
            Self::Regular(name) => regular(name, value),
            Self::Malformed(why, _) => Field::Malformed(why),
        }
    }
}

/// RFC 9113 §8.3.1
fn path(value: Bytes) -> Field {
    let visible = |byte: &u8| !matches!(byte, 0..=b' ' | 0x7f);
    match value.first() {
        Some(b'/') => {}
        Some(b'*') if value.len() == 1 => {}
        _ => return Field::Malformed("a path that does not begin with a slash"),
    }
    if !value.iter().all(visible) {
        return Field::Malformed("a path with spaces or control characters");
    }
    // The `http` crate would silently drop the fragment.
    if value.contains(&b'#') {
        return Field::InvalidPath;
    }
    match PathAndQuery::from_maybe_shared(value) {
        Ok(path) => Field::Path(path),
        Err(_) => Field::InvalidPath,
    }
}

fn regular(name: &HeaderName, value: Bytes) -> Field {
    // RFC 9113 §8.2.1
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = &value[..] {
        return Field::Malformed("a value with leading or trailing whitespace");
    }
    // RFC 9113 §8.2.2
    if *name == TE && !value.eq_ignore_ascii_case(b"trailers") {
        return Field::Malformed("a TE other than trailers");
    }
    match HeaderValue::from_maybe_shared(value) {
        Ok(value) => Field::Regular(name.clone(), value),
        Err(_) => Field::Malformed("a value with control characters"),
    }
}
