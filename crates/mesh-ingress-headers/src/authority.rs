//! The grammar of an authority without user information: `host [":" port]`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in DNS, without the root's dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// What a text that is an authority consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Bytes of the host as written; a literal's brackets count.
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
            let host = name(text, &mut upper_case)?;
            (host.len(), kind(host)?)
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

/// Whether what may be a name is one, or a dotted quad.
fn kind(host: &str) -> Option<Kind> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_NAME {
        return None;
    }
    if name.len() > MAX_LABEL && name.split('.').any(|label| label.len() > MAX_LABEL) {
        return None;
    }
    let last = match name.bytes().rposition(|byte| byte == b'.') {
        Some(dot) => name.get(dot + 1..)?,
        None => name,
    };
    // A last label that is a number makes readers disagree: 127.1, 0x7f.1 and 2130706433 are all
    // the loopback address to some. An address has one spelling here; no top-level domain is a
    // number (WHATWG URL, "ends in a number").
    if is_number(last) {
        // A dot after an address is another spelling of it.
        return (name.len() == host.len() && name.parse::<Ipv4Addr>().is_ok()).then_some(Kind::V4);
    }
    Some(Kind::Name)
}

/// An byte of a name: what it is, and in the upper half what must not follow it.
static BYTES: [u8; 256] = {
    let mut bytes = [OTHER; 256];
    let mut byte = 0;
    while byte < bytes.len() {
        bytes[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => 0,
            b'A'..=b'Z' => UPPER_CASE,
            // No label is empty, and none begins or ends with a `-`.
            b'.' => DOT | (DOT | HYPHEN) << 4,
            b'-' => HYPHEN | DOT << 4,
            _ => OTHER,
        };
        byte += 1;
    }
    bytes
};

const DOT: u8 = 1;
const HYPHEN: u8 = 2;
const UPPER_CASE: u8 = 4;
const OTHER: u8 = 8;

/// What the bytes of a text are.
#[derive(Clone, Copy)]
struct Seen {
    what: u8,
    /// Of these, what stands where it must not.
    misplaced: u8,
}

impl Seen {
    /// One look at each byte, and nothing to decide at any.
    fn of(text: &str) -> Self {
        let (mut what, mut misplaced, mut before) = (0, 0, BYTES[usize::from(b'.')]);
        for byte in text.bytes() {
            let this = BYTES[usize::from(byte)];
            what |= this;
            misplaced |= before >> 4 & this;
            before = this;
        }
        // The root's dot may be the last.
        if before & DOT == 0 {
            misplaced |= before >> 4 & DOT;
        }
        Self { what, misplaced }
    }
}

/// What a text begins with, up to what cannot be in a name, which is the colon before a port as a
/// rule. `None` unless that is labels between dots, each of letters, digits, `-` and `_`, and with
/// neither end a `-`; the root's dot may follow the last.
fn name<'t>(text: &'t str, upper_case: &mut bool) -> Option<&'t str> {
    let (mut name, mut seen) = (text, Seen::of(text));
    if seen.what & OTHER != 0 {
        let is_other = |byte| BYTES[usize::from(byte)] == OTHER;
        name = text.get(..text.bytes().position(is_other)?)?;
        seen = Seen::of(name);
    }
    if name.is_empty() || seen.misplaced != 0 {
        return None;
    }
    *upper_case = seen.what & UPPER_CASE != 0;
    Some(name)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_is_labels_between_dots(
            text in "[a-cXZ09_.:!-]{0,12}|([a-z-]{60,66}\\.){0,2}[a-z]{62,65}\\.?|\\PC{0,8}",
        ) {
            let in_names = |byte: char| byte.is_ascii_alphanumeric() || "-_.".contains(byte);
            let host = text.split(|byte| !in_names(byte)).next().unwrap_or_default();
            let labels = host.strip_suffix('.').unwrap_or(host).split('.');
            let is_label = |label: &str| {
                !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
            };
            let good = labels.clone().all(is_label);
            let mut upper_case = false;
            prop_assert_eq!(name(&text, &mut upper_case), good.then_some(host));
            prop_assert_eq!(upper_case, good && host.bytes().any(|b| b.is_ascii_uppercase()));
            if good && !labels.clone().next_back().is_some_and(is_number) {
                let fits = labels.clone().all(|label| label.len() <= MAX_LABEL);
                prop_assert_eq!(kind(host), fits.then_some(Kind::Name));
            }
        }
    }
}
