//! The grammar of an authority without user information: `host [":" port]`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in DNS, without the root's dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;

/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// The parts of an authority.
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
            // A zone (`%eth0`) has a meaning on the client's machine only (RFC 6874 §4), and
            // IPvFuture is not in use.
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

/// Tells a name from a dotted quad; `None` for an invalid name.
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
    // Parsers disagree on a last label that is a number: 127.1, 0x7f.1 and 2130706433 are all the
    // loopback address to some. An address has one spelling here; no top-level domain is a number
    // (WHATWG URL, "ends in a number").
    if is_number(last) {
        // A dot after an address is another spelling of it.
        return (name.len() == host.len() && name.parse::<Ipv4Addr>().is_ok()).then_some(Kind::V4);
    }
    Some(Kind::Name)
}

/// The class of each byte of a name and, in the upper half, the classes that must not follow it.
static CLASSES: [u8; 256] = {
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

/// The byte classes of a text.
#[derive(Clone, Copy)]
struct Scan {
    classes: u8,
    /// The classes that follow a byte they must not follow.
    misplaced: u8,
}

impl Scan {
    /// One pass over the bytes, without a branch.
    fn of(text: &str) -> Self {
        let (mut classes, mut misplaced, mut previous) = (0, 0, CLASSES[usize::from(b'.')]);
        for byte in text.bytes() {
            let this = CLASSES[usize::from(byte)];
            classes |= this;
            misplaced |= previous >> 4 & this;
            previous = this;
        }
        // A final dot is allowed: the DNS root.
        if previous & DOT == 0 {
            misplaced |= previous >> 4 & DOT;
        }
        Self { classes, misplaced }
    }
}

/// The name at the beginning of a text, up to the first byte that no name has, usually the colon
/// before a port. `None` unless it consists of labels between dots, each of letters, digits, `-` and
/// `_`, neither beginning nor ending with `-`; a final dot is allowed.
fn name<'t>(text: &'t str, upper_case: &mut bool) -> Option<&'t str> {
    let (mut name, mut scan) = (text, Scan::of(text));
    if scan.classes & OTHER != 0 {
        let is_other = |byte| CLASSES[usize::from(byte)] == OTHER;
        name = text.get(..text.bytes().position(is_other)?)?;
        scan = Scan::of(name);
    }
    if name.is_empty() || scan.misplaced != 0 {
        return None;
    }
    *upper_case = scan.classes & UPPER_CASE != 0;
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
        fn name_agrees_with_the_reference(
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
