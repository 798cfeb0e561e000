//! A field, read as what it is.

use bytes::Bytes;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method};

/// A field of a request. Clones share their bytes: what a table has is read once.
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
    /// A `:path` without spaces or control characters that is no path of RFC 3986 all the same.
    OddPath,
    /// `:protocol` (RFC 8441 §4)
    Protocol(HeaderValue),
    /// Any that is not for the frame of the message.
    Regular(HeaderName, HeaderValue),
    /// One that no request may have, and why (RFC 9113 §8.2, §8.3).
    Malformed(&'static str),
}

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Regular(HeaderName),
    /// Not in HTTP/2; and how long it is.
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
            [b':', ..] => malformed("a pseudo-field that nobody knows"),
            // RFC 9113 §8.2.1
            _ if bytes.iter().any(u8::is_ascii_uppercase) => malformed("a name in upper case"),
            _ => match HeaderName::from_bytes(bytes) {
                Ok(name) => match name {
                    // RFC 9113 §8.2.2
                    CONNECTION | TRANSFER_ENCODING | UPGRADE => {
                        malformed("a field of the connection, which HTTP/2 has none of")
                    }
                    name if matches!(name.as_str(), "keep-alive" | "proxy-connection") => {
                        malformed("a field of the connection, which HTTP/2 has none of")
                    }
                    name => Self::Regular(name),
                },
                Err(_) => malformed("a name that is none"),
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
                Err(_) => Field::Malformed("a method that is none"),
            },
            Self::Scheme => match &value[..] {
                b"http" => Field::Scheme(Scheme::HTTP),
                b"https" => Field::Scheme(Scheme::HTTPS),
                _ => Field::Malformed("a scheme that is not of HTTP"),
            },
            Self::Authority => match Authority::from_maybe_shared(value) {
                Ok(authority) => Field::Authority(authority),
                Err(_) => Field::Malformed("an authority that is none"),
            },
            Self::Path => path(value),
            Self::Protocol => match HeaderValue::from_maybe_shared(value) {
                Ok(protocol) if protocol.to_str().is_ok() => Field::Protocol(protocol),
                _ => Field::Malformed("a protocol that is none"),
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
        _ => return Field::Malformed("a path without its slash"),
    }
    if !value.iter().all(visible) {
        return Field::Malformed("a path with spaces or control characters");
    }
    // What is behind it would be dropped without a word.
    if value.contains(&b'#') {
        return Field::OddPath;
    }
    match PathAndQuery::from_maybe_shared(value) {
        Ok(path) => Field::Path(path),
        Err(_) => Field::OddPath,
    }
}

fn regular(name: &HeaderName, value: Bytes) -> Field {
    // RFC 9113 §8.2.1
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = &value[..] {
        return Field::Malformed("a value with white space around it");
    }
    // RFC 9113 §8.2.2
    if *name == TE && !value.eq_ignore_ascii_case(b"trailers") {
        return Field::Malformed("a TE of anything but trailers");
    }
    match HeaderValue::from_maybe_shared(value) {
        Ok(value) => Field::Regular(name.clone(), value),
        Err(_) => Field::Malformed("a value with control characters"),
    }
}
