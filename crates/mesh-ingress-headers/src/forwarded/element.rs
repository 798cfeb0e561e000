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
    // A port's colon and an IPv6 address' brackets are not of a token. There is nothing in a host
    // that needs an escape.
    let quote = host.contains([':', '[']);
    element.extend(quote.then_some(b'"'));
    element.extend_from_slice(host.as_bytes());
    element.extend(quote.then_some(b'"'));
    HeaderValue::try_from(element).ok()
}

/// The elements of a line: split at commas outside of quotes, trimmed, empty ones skipped.
///
/// A line whose last quote is left open is split at every comma: a client that opens one must not
/// swallow the element that the proxy after it has added.
pub(super) fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut whole = Quotes::default();
    for &b in line {
        whole.step(b);
    }
    let mut quotes = Quotes::default();
    line.split(move |&b| {
        let quoted = quotes.step(b) && !whole.open;
        !quoted && b == b','
    })
    .map(list::trim)
    .filter(|element| !element.is_empty())
}

/// The address in an element's `for` parameter; `None` for `unknown`, `_hidden` and what is none.
pub(super) fn for_address(element: &[u8]) -> Option<IpAddr> {
    let value = split_unquoted(element, b';').find_map(|pair| {
        let (name, value) = split_once(list::trim(pair), b'=')?;
        name.eq_ignore_ascii_case(b"for").then_some(value)
    })?;
    // An escape inside of the quotes makes it no address, which is right: none needs one.
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

/// Splits outside of quoted strings. One that does not end takes the rest.
fn split_unquoted(text: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    let mut quotes = Quotes::default();
    text.split(move |&b| !quotes.step(b) && b == at)
}

/// Where in a text of quoted strings (RFC 9110 §5.6.4) one is.
#[derive(Clone, Copy, Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Goes on by an byte; whether it is inside of quotes.
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
