//! The grammar of an authority without user information: `host [":" port]`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in DNS, without the root's dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// What a text that is an authority consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Octets of the host as written; a literal's brackets count.
    pub(crate) host_len: usize,
    pub(crate) kind: Kind,
    pub(crate) port: Option<u16>,
    /// The host is a name that has upper-case letters.
    pub(crate) upper_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Name,
    V4,
    V6(Ipv6Addr),
}

/// `None` unless the text is a host name, an IPv4 address or an IPv6 address in brackets, with an
/// optional port from 1 to 65535.
pub(crate) fn parse(text: &str) -> Option<Parts> {
    let mut upper_case = false;
    let (host_len, kind) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, _) = rest.split_once(']')?;
            // A zone (`%eth0`) means something on the client's machine only (RFC 6874 §4), and
            // nobody speaks IPvFuture.
            let address: Ipv6Addr = address_text(address)?.parse().ok()?;
            (text.find(']')? + 1, Kind::V6(address))
        }
        None => {
            let len = text.bytes().position(|b| b == b':');
            let host = len.map_or(Some(text), |len| text.get(..len))?;
            (host.len(), name_kind(host, &mut upper_case)?)
        }
    };
    let port = match text.get(host_len..)? {
        "" => None,
        rest => Some(port(rest.strip_prefix(':')?)?),
    };
    Some(Parts {
        host_len,
        kind,
        port,
        upper_case,
    })
}

fn address_text(text: &str) -> Option<&str> {
    text.bytes()
        .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        .then_some(text)
}

/// A name of letters, digits, `-` and `_`, or a dotted quad.
fn name_kind(host: &str, upper_case: &mut bool) -> Option<Kind> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_NAME {
        return None;
    }
    let last = last_label(name, upper_case)?;
    // A last label that is a number makes readers disagree: 127.1, 0x7f.1 and 2130706433 are all
    // the loopback address to some. An address has one spelling here; no top-level domain is a
    // number (WHATWG URL, "ends in a number").
    if is_number(last) {
        // A dot after an address is another spelling of it.
        return (name.len() == host.len() && name.parse::<Ipv4Addr>().is_ok()).then_some(Kind::V4);
    }
    Some(Kind::Name)
}

/// The last of the labels between dots; `None` unless each is one: letters, digits, `-` and `_`,
/// with neither end a `-`.
fn last_label<'n>(name: &'n str, upper_case: &mut bool) -> Option<&'n str> {
    let mut start = 0;
    // What a label must not begin with, nor end with.
    let mut before = b'-';
    for (at, b) in name.bytes().enumerate() {
        match b {
            b'.' if before != b'-' && at - start <= MAX_LABEL => {
                start = at + 1;
                before = b'-';
                continue;
            }
            b'-' if at > start => {}
            b'a'..=b'z' | b'0'..=b'9' | b'_' => {}
            b'A'..=b'Z' => *upper_case = true,
            _ => return None,
        }
        before = b;
    }
    (before != b'-' && name.len() - start <= MAX_LABEL)
        .then(|| name.get(start..))
        .flatten()
}

fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// One spelling a port: no sign, no leading zero, not empty.
fn port(digits: &str) -> Option<u16> {
    if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
