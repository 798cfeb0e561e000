//! Field sections: parsed without a copy, and written.

use std::cell::Cell;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, DATE, ETAG, HOST, InvalidHeaderName,
    SERVER, SET_COOKIE, USER_AGENT, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::Malformed;

/// Fields that are parsed without an allocation. To initialise room for the maximum would cost more than
/// to parse a typical head.
pub(crate) const INLINE_FIELDS: usize = 32;

/// Room for the fields that a gateway adds, and for a response with more fields than the request: a map that
/// grows inserts all its fields again.
const EXTRA_FIELDS: usize = 6;

/// Bounds of a header or trailer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, with the start line.
    pub bytes: usize,
    /// Number of fields.
    pub fields: usize,
}

/// Where a field is in a head.
#[derive(Clone, Copy, Default)]
pub(crate) struct Span {
    name: (usize, usize),
    value: (usize, usize),
}

/// The range of `part` in `whole`. An empty part may lie elsewhere.
pub(crate) fn within(whole: &[u8], part: &[u8]) -> (usize, usize) {
    match part.len() {
        0 => (0, 0),
        length => {
            let start = part.as_ptr().addr() - whole.as_ptr().addr();
            (start, start + length)
        }
    }
}

/// Records the ranges of the fields that were found in `whole`.
pub(crate) fn record(whole: &[u8], found: &[httparse::Header<'_>], spans: &mut [Span]) {
    for (field, span) in found.iter().zip(spans) {
        span.name = within(whole, field.name.as_bytes());
        span.value = within(whole, field.value);
    }
}

thread_local! {
    /// A buffer for the heads of requests, one behind the other.
    static HEADS: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Capacity of that buffer.
const HEADS_CAPACITY: usize = 8 * 1024;

/// Copies the head of a request. It is kept until the response comes, and meanwhile the read buffer is used
/// for other bytes.
pub(crate) fn copy_head(head: &[u8]) -> Bytes {
    if head.len() > HEADS_CAPACITY / 4 {
        return Bytes::copy_from_slice(head);
    }
    let heads = HEADS.try_with(Cell::take).ok().flatten();
    let mut heads = heads.unwrap_or_else(|| BytesMut::with_capacity(HEADS_CAPACITY));
    if heads.capacity() < head.len() {
        heads.reserve(HEADS_CAPACITY);
    }
    heads.extend_from_slice(head);
    let kept = heads.split().freeze();
    // The thread-local is gone while the thread ends.
    let _ = HEADS.try_with(|room| room.set(Some(heads)));
    kept
}

/// Adds the fields to a map, sharing their bytes, and calls `show` with each.
///
/// A `Connection: keep-alive` is only shown: it must not be forwarded (RFC 9110 §7.6.1), names no other
/// field, and many clients send it always.
pub(crate) fn collect(
    bytes: &Bytes,
    spans: &[Span],
    headers: &mut HeaderMap,
    mut show: impl FnMut(&HeaderName, &[u8]),
) -> Result<(), Malformed> {
    let too_large = |_| Malformed::HeadTooLarge;
    let fields = spans.len().saturating_add(EXTRA_FIELDS);
    headers.try_reserve(fields).map_err(too_large)?;
    for span in spans {
        let name = name(&bytes[span.name.0..span.name.1]);
        let name = name.map_err(|error| Malformed::Head(error.into()))?;
        let (start, end) = span.value;
        let value = &bytes[start..end];
        show(&name, value);
        if name == CONNECTION && (value == KEEP_ALIVE || value.eq_ignore_ascii_case(KEEP_ALIVE)) {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice(start..end));
        let value = value.map_err(|error| Malformed::Head(error.into()))?;
        headers.try_append(name, value).map_err(too_large)?;
    }
    Ok(())
}

/// Parses a field name. The most common ones are compared first: lower-casing a name and looking it up
/// among all known ones costs several times as much.
#[inline]
fn name(bytes: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    Ok(match bytes.len() {
        4 => match bytes {
            b"Host" | b"host" => HOST,
            b"Date" | b"date" => DATE,
            b"ETag" | b"etag" => ETAG,
            b"Vary" | b"vary" => VARY,
            _ => return HeaderName::from_bytes(bytes),
        },
        6 => match bytes {
            b"Server" | b"server" => SERVER,
            b"Accept" | b"accept" => ACCEPT,
            b"Cookie" | b"cookie" => COOKIE,
            _ => return HeaderName::from_bytes(bytes),
        },
        10 => match bytes {
            b"Connection" | b"connection" => CONNECTION,
            b"User-Agent" | b"user-agent" => USER_AGENT,
            b"Set-Cookie" | b"set-cookie" => SET_COOKIE,
            _ => return HeaderName::from_bytes(bytes),
        },
        12 if matches!(bytes, b"Content-Type" | b"content-type") => CONTENT_TYPE,
        14 if matches!(bytes, b"Content-Length" | b"content-length") => CONTENT_LENGTH,
        _ => return HeaderName::from_bytes(bytes),
    })
}

const KEEP_ALIVE: &[u8] = b"keep-alive";

/// The connection options `close` and `keep-alive` (RFC 9112 §9.3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Persistence {
    closes: bool,
    keep_alive: bool,
}

impl Persistence {
    /// An option on any field line counts.
    #[inline]
    pub(crate) fn observe(&mut self, value: &[u8]) {
        match value {
            // The most common value, compared as a whole.
            KEEP_ALIVE => self.keep_alive = true,
            b"close" => self.closes = true,
            _ => {
                self.closes |= has_token(value, b"close");
                self.keep_alive |= has_token(value, KEEP_ALIVE);
            }
        }
    }

    pub(crate) fn keep_alive(self, version: Version) -> bool {
        (self.keep_alive || version == Version::HTTP_11) && !self.closes
    }
}

/// Whether a comma-separated list contains a token, in any case.
pub(crate) fn has_token(value: &[u8], token: &[u8]) -> bool {
    let mut tokens = value.split(|&byte| byte == b',');
    tokens.any(|word| word.trim_ascii().eq_ignore_ascii_case(token))
}

/// Writes the size line of a chunk (RFC 9112 §7.1).
pub(crate) fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    // Writing to memory does not fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// Writes field lines.
pub(crate) fn write(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        write_field(out, name.as_str(), value.as_bytes());
    }
}

pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const NAMES: [&str; 14] = [
        "Host",
        "Date",
        "ETag",
        "Vary",
        "Server",
        "Accept",
        "Cookie",
        "Connection",
        "User-Agent",
        "Set-Cookie",
        "Content-Type",
        "Content-Length",
        "X-Other",
        "",
    ];

    proptest! {
        #[test]
        fn names_are_parsed_as_by_the_http_crate(
            text in select(&NAMES[..]),
            small: bool,
            other in any::<Option<(prop::sample::Index, u8)>>(),
        ) {
            let mut bytes = text.as_bytes().to_vec();
            if small {
                bytes.make_ascii_lowercase();
            }
            if let Some((at, byte)) = other.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let (ours, theirs) = (name(&bytes), HeaderName::from_bytes(&bytes));
            prop_assert_eq!(ours.ok(), theirs.ok());
        }
    }
}
