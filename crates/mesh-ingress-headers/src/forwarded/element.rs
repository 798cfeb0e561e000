//! Elements of `Forwarded` (RFC 7239 §4) and addresses as proxies write them.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;

use crate::client::ClientFields;
use crate::{RequestHost, list};

/// An element about the client of one request.
pub(super) fn write(known: Option<&ClientFields>, host: &RequestHost) -> Option<HeaderValue> {
    let begin = known.map_or("for=unknown;host=", |known| known.element());
    let host = host.as_str();
    let mut element = Vec::with_capacity(begin.len() + host.len() + 2);
    element.extend_from_slice(begin.as_bytes());
    // A port's colon and the brackets of an IPv6 address are no token characters. Nothing in a host
    // needs an escape.
    let quote = host.contains([':', '[']);
    element.extend(quote.then_some(b'"'));
    element.extend_from_slice(host.as_bytes());
    element.extend(quote.then_some(b'"'));
    HeaderValue::try_from(element).ok()
}

/// The elements of a line: split at commas outside quotes, trimmed, empty ones skipped.
///
/// A line with an unclosed quote is split at every comma, so that a client cannot hide the element
/// that a proxy appended.
pub(super) fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut line_end = Quotes::default();
    for &b in line {
        line_end.step(b);
    }
    let mut quotes = Quotes::default();
    line.split(move |&b| {
        let quoted = quotes.step(b) && !line_end.open;
        !quoted && b == b','
    })
    .map(list::trim)
    .filter(|element| !element.is_empty())
}

/// The address in an element's `for` parameter; `None` for `unknown`, `_hidden` and anything else.
pub(super) fn for_address(element: &[u8]) -> Option<IpAddr> {
    let value = split_unquoted(element, b';').find_map(|pair| {
        let (name, value) = split_once(list::trim(pair), b'=')?;
        name.eq_ignore_ascii_case(b"for").then_some(value)
    })?;
    // A quoted value with an escape parses as no address, which is right: no address needs one.
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    address(value)
}

/// An address as found in a chain: `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:1234`.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| bracketed().map(IpAddr::V6))
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .map(|ip| ip.to_canonical())
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|&b| b == at)?;
    Some((text.get(..position)?, text.get(position + 1..)?))
}

/// Splits outside quoted strings. An unclosed one extends to the end.
fn split_unquoted(text: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    let mut quotes = Quotes::default();
    text.split(move |&b| !quotes.step(b) && b == at)
}

/// The state of a scan over quoted strings (RFC 9110 §5.6.4).
#[derive(Clone, Copy, Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Advances by one byte. Returns whether the scan is inside quotes.
    fn step(&mut self, b: u8) -> bool {
        if self.escaped {
            self.escaped = false;
        } else if self.open && b == b'\\' {
            self.escaped = true;
        } else if b == b'"' {
            self.open = !self.open;
        }
        self.open
    }
}
