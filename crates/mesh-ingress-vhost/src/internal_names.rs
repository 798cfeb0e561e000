//! References to internal names, and their public replacements.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use mesh_ingress_core::{Scheme, Vhost};

use crate::identity::split_port;

/// The internal names of an upstream, and the public identity that replaces them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InternalNames<'a> {
    pub(crate) vhost: &'a Vhost,
    pub(crate) addresses: &'a [SocketAddr],
    pub(crate) scheme: Scheme,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

/// The scheme and authority of a URI reference to an internal name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InternalReference {
    /// From the scheme (or the `//`) to the end of the authority.
    pub(crate) range: Range<usize>,
    /// Its scheme; `None` for `//host`, which takes the client's.
    scheme: Option<Scheme>,
}

impl InternalNames<'_> {
    /// Whether a host is internal: the vhost's, ignoring case and a root dot, or a dialled address.
    pub(crate) fn has(&self, host: &str) -> bool {
        if without_root_dot(host)
            .eq_ignore_ascii_case(without_root_dot(self.vhost.authority().host()))
        {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let Ok(ip) = bare.unwrap_or(host).parse::<IpAddr>() else {
            return false;
        };
        let is = |address: &SocketAddr| address.ip().to_canonical() == ip.to_canonical();
        self.addresses.iter().any(is)
    }

    /// Whether a cookie's domain covers the vhost, or is a dialled address, and does not cover the
    /// public host as well.
    pub(crate) fn has_domain(&self, domain: &str) -> bool {
        let domain = without_root_dot(domain.strip_prefix('.').unwrap_or(domain));
        if domain.is_empty() || covers(domain, self.host) {
            return false;
        }
        covers(domain, self.vhost.authority().host()) || self.has(domain)
    }

    /// Parses the URI reference in this range of `value`; `None` if its host is not internal.
    pub(crate) fn find(&self, value: &[u8], range: Range<usize>) -> Option<InternalReference> {
        let start = range.start;
        let reference = value.get(range)?;
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
        // Internal user information is not valid outside, so it is removed with the host.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, a)| a);
        let (host, _) = split_port(authority)?;
        self.has(host).then(|| InternalReference {
            range: start..start + skipped + length,
            scheme,
        })
    }

    /// Writes the public replacement of `found`.
    pub(crate) fn write(&self, found: &InternalReference, out: &mut Vec<u8>) {
        // The hop to the upstream is cleartext, so an upstream that redirects to https does so on
        // purpose. Restoring http there would make a redirect loop.
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
        // The client's port belongs to its scheme only.
        let port = self.port.filter(|_| scheme == self.scheme);
        if let Some(port) = port.filter(|port| *port != scheme.default_port()) {
            out.push(b':');
            out.extend_from_slice(port.to_string().as_bytes());
        }
    }
}

fn without_root_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// RFC 6265 §5.1.3, without its exception for addresses.
fn covers(domain: &str, host: &str) -> bool {
    let host = without_root_dot(host);
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
