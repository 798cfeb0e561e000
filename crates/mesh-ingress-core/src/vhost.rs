//! The value of `Host` and `:authority` for an upstream.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::Authority;

use crate::ParseError;

/// The name an upstream is addressed by: the value of HTTP/1 `Host` and HTTP/2 `:authority`.
///
/// Both forms are built once, so that setting them costs a request a reference count. Derived from a
/// service by [`ServiceRef::vhost`](crate::ServiceRef::vhost); parsed from text for an override:
///
/// ```
/// use mesh_ingress_core::Vhost;
///
/// let other: Vhost = "reviews.prod.svc.cluster.local:9080".parse()?;
/// assert_eq!(other.authority().port_u16(), Some(9080));
/// assert!("user@reviews".parse::<Vhost>().is_err());
/// # Ok::<(), mesh_ingress_core::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Vhost {
    /// First, because every request reads it, and only those to HTTP/2 read the other.
    value: HeaderValue,
    authority: Authority,
}

impl Vhost {
    /// The text as it goes on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.authority.as_str()
    }

    /// For the authority of a URI, which is where HTTP/2 takes `:authority` from.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// For the `Host` header.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.value
    }

    /// From a service's name, which is known to be labels and dots.
    pub(crate) fn of_service(fqdn: &str) -> Self {
        // Labels and dots are valid in both forms. If they ever were not, the mesh would refuse this
        // vhost, which matches nothing; the process goes on.
        Self::from_text(fqdn).unwrap_or_else(|_| Self {
            authority: Authority::from_static("invalid"),
            value: HeaderValue::from_static("invalid"),
        })
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = shared(text.as_bytes());
        let value = HeaderValue::from_maybe_shared(text.clone()).map_err(|e| e.to_string())?;
        let authority = Authority::from_maybe_shared(text).map_err(|e| e.to_string())?;
        Ok(Self { authority, value })
    }
}

/// The bytes of a text in one allocation with their reference count. A request touches both, and with
/// a thousand vhosts each access is a cache miss.
fn shared(text: &[u8]) -> Bytes {
    // With the count these are as large as one cache line, and two.
    match (InlineText::<55>::new(text), InlineText::<119>::new(text)) {
        (Some(text), _) => Bytes::from_owner(text),
        (None, Some(text)) => Bytes::from_owner(text),
        (None, None) => Bytes::copy_from_slice(text),
    }
}

/// A text of up to `N` bytes, at most 255.
struct InlineText<const N: usize> {
    len: u8,
    text: [u8; N],
}

impl<const N: usize> InlineText<N> {
    fn new(text: &[u8]) -> Option<Self> {
        let mut inline = Self {
            len: u8::try_from(text.len()).ok()?,
            text: [0; N],
        };
        inline.text.get_mut(..text.len())?.copy_from_slice(text);
        Some(inline)
    }
}

impl<const N: usize> AsRef<[u8]> for InlineText<N> {
    fn as_ref(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl FromStr for Vhost {
    type Err = ParseError;

    /// Host names of letters, digits, `-`, `_` and `.`, IPv4 and bracketed IPv6 literals, each
    /// with an optional port.
    fn from_str(input: &str) -> Result<Self, ParseError> {
        let error = |reason: &str| ParseError::new("virtual host", input, reason);
        if input.is_empty() {
            return Err(error("it is empty"));
        }
        let vhost = Self::from_text(input)
            .map_err(|_| error("expected a host name with an optional port"))?;
        let host = vhost.authority.host();
        let literal = host.starts_with('[');
        if host.is_empty() || input.contains('@') {
            return Err(error("expected a host name, without user information"));
        }
        if !literal
            && let Some(c) = host
                .chars()
                .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
        {
            return Err(error(&format!("{c:?} does not belong in a host name")));
        }
        let port = &input[host.len()..];
        if !port.is_empty() && vhost.authority.port_u16().is_none_or(|port| port == 0) {
            return Err(error("the port is not a number between 1 and 65535"));
        }
        Ok(vhost)
    }
}

impl fmt::Display for Vhost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Vhost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vhost").field(&self.as_str()).finish()
    }
}

/// Which `Host` / `:authority` a backend gets (ingress-nginx: `upstream-vhost`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VhostPolicy {
    /// The service's own name, `name.namespace.svc.<domain>`, which every mesh accepts.
    #[default]
    Derived,
    /// This name instead.
    Override(Vhost),
    /// The client's own. Safe where the mesh routes by ClusterIP (Istio ambient, unnamed
    /// ports, no mesh); under an Istio sidecar with a named HTTP port it leaves the mesh.
    Preserve,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_are_kept_whole() {
        for length in [1, 54, 55, 56, 118, 119, 120, 253, 254, 255, 256, 1000] {
            let name = "a".repeat(length);
            let vhost: Vhost = name.parse().unwrap();
            assert_eq!(vhost.as_str(), name);
            assert_eq!(vhost.header_value(), &name);
        }
    }

    #[test]
    fn hosts_and_ports_parse() {
        for good in ["a", "a.b:1", "10.0.0.1", "[::1]:80", "a_b.c"] {
            assert_eq!(good.parse::<Vhost>().unwrap().as_str(), good);
        }
        for bad in [
            "", ":80", "a:", "a:0", "a:65536", "a:b", "u@a", "a/b", "a b", "a?b", "$host", "[::1",
            "a,b", "a\r\nb", "[::1]x",
        ] {
            assert!(bad.parse::<Vhost>().is_err(), "{bad:?}");
        }
    }
}
