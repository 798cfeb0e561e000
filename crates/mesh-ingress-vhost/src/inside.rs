//! The names of the inside, and what takes their place.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use mesh_ingress_core::{Scheme, Vhost};

use crate::identity::split_port;

/// What must not be told to a client, beside what it is to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) vhost: &'a Vhost,
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) scheme: Scheme,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

/// The beginning of a URI that names the inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// From the scheme (or the `//`) to the end of the authority.
    pub(crate) at: Range<usize>,
    /// The scheme it names; `None` for `//host`, which means the client's.
    scheme: Option<Scheme>,
}

impl Names<'_> {
    /// Whether a host is one of the inside: the vhost's in any case and with or without the dot
    /// of the root, or the address that was dialled.
    pub(crate) fn has(&self, host: &str) -> bool {
        if undotted(host).eq_ignore_ascii_case(undotted(self.vhost.authority().host())) {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let Ok(ip) = bare.unwrap_or(host).parse::<IpAddr>() else {
            return false;
        };
        let is = |address: &SocketAddr| address.ip().to_canonical() == ip.to_canonical();
        self.addresses.iter().any(is)
    }

    /// Whether a cookie's domain covers the vhost, or is an address that was dialled, and does
    /// not cover the public host as well.
    pub(crate) fn has_domain(&self, domain: &str) -> bool {
        let domain = undotted(domain.strip_prefix('.').unwrap_or(domain));
        if domain.is_empty() || covers(domain, self.host) {
            return false;
        }
        covers(domain, self.vhost.authority().host()) || self.has(domain)
    }

    /// Looks at the URI reference that is this part of `value`.
    pub(crate) fn find(&self, value: &[u8], at: Range<usize>) -> Option<Found> {
        let start = at.start;
        let reference = value.get(at)?;
        let (scheme, skipped) = if reference.starts_with(b"//") {
            (None, 2)
        } else if starts_with_ignore_case(reference, b"http://") {
            (Some(Scheme::Http), 7)
        } else if starts_with_ignore_case(reference, b"https://") {
            (Some(Scheme::Https), 8)
        } else {
            return None;
        };
        let rest = reference.get(skipped..)?;
        let ends = |b: &u8| matches!(b, b'/' | b'?' | b'#');
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let authority = std::str::from_utf8(rest.get(..length)?).ok()?;
        // What was a login inside is none outside, so it goes with the host.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, a)| a);
        let (host, _) = split_port(authority)?;
        self.has(host).then(|| Found {
            at: start..start + skipped + length,
            scheme,
        })
    }

    /// Writes what takes the place of `found`.
    pub(crate) fn write(&self, found: &Found, out: &mut Vec<u8>) {
        // The hop to the upstream is cleartext. An upstream that says https nevertheless sends
        // the client there on purpose, and http instead would make that a redirect loop.
        let scheme = match found.scheme {
            Some(Scheme::Https) => Scheme::Https,
            _ => self.scheme,
        };
        if found.scheme.is_some() {
            out.extend_from_slice(scheme.as_str().as_bytes());
            out.push(b':');
        }
        out.extend_from_slice(b"//");
        out.extend_from_slice(self.host.as_bytes());
        // The port of the one scheme says nothing about the other's.
        let port = self.port.filter(|_| scheme == self.scheme);
        if let Some(port) = port.filter(|port| *port != scheme.default_port()) {
            out.push(b':');
            out.extend_from_slice(port.to_string().as_bytes());
        }
    }
}

fn undotted(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// RFC 6265 §5.1.3, without its exception for addresses.
fn covers(domain: &str, host: &str) -> bool {
    let host = undotted(host);
    let Some(at) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let Some((before, end)) = host.split_at_checked(at) else {
        return false;
    };
    end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
}

pub(crate) fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
