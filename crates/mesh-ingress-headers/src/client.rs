//! The client of a connection, with its header values formatted once.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use mesh_ingress_core::{Downstream, Scheme};

/// A [`Downstream`] with its header values formatted.
///
/// Make one when a connection is accepted and put it in the extensions of its requests (or hand it
/// to [`ForwardedPolicy::apply`](crate::ForwardedPolicy::apply)), so that no request formats an
/// address. Cloning costs a reference count.
///
/// ```
/// use mesh_ingress_core::{Downstream, Scheme};
/// use mesh_ingress_headers::Client;
///
/// let peer = Downstream::new("[::ffff:203.0.113.7]:51000".parse()?).scheme(Scheme::Https);
/// let client = Client::new(&peer);
/// // An IPv4 client of a dual-stack listener is an IPv4 client.
/// assert_eq!(client.ip(), Some("203.0.113.7".parse()?));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client(Option<Arc<ClientFields>>);

#[derive(Debug)]
pub(crate) struct ClientFields {
    pub(crate) ip: IpAddr,
    pub(crate) scheme: Scheme,
    /// The address alone: a member of `X-Forwarded-For`, and `X-Real-IP`.
    pub(crate) address: HeaderValue,
    pub(crate) proto: HeaderValue,
    pub(crate) port: HeaderValue,
    /// `for=…;proto=…;host=`: an element of `Forwarded` up to the host, which differs per request.
    element: OnceLock<String>,
}

impl ClientFields {
    /// The start of an element of `Forwarded`: `for=…;proto=…;host=`. Formatted on first use, because
    /// most gateways do not send it.
    pub(crate) fn element(&self) -> &str {
        self.element.get_or_init(|| {
            let (ip, proto) = (self.ip, self.scheme.as_str());
            match ip {
                IpAddr::V4(ip) => format!("for={ip};proto={proto};host="),
                // RFC 7239 §6: an IPv6 address is bracketed, and so must be quoted.
                IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={proto};host="),
            }
        })
    }
}

/// An address as text. IPv4 is formatted by hand: with one request per connection, the standard
/// library's formatting takes a tenth of the request's time.
fn address_value(ip: IpAddr) -> Result<HeaderValue, InvalidHeaderValue> {
    let IpAddr::V4(ip) = ip else {
        return HeaderValue::try_from(ip.to_string());
    };
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for byte in ip.octets() {
        if !text.is_empty() {
            text.push(b'.');
        }
        if byte >= 100 {
            text.push(b'0' + byte / 100);
        }
        if byte >= 10 {
            text.push(b'0' + byte / 10 % 10);
        }
        text.push(b'0' + byte % 10);
    }
    HeaderValue::try_from(text)
}

impl Client {
    /// Formats the peer of a connection.
    #[must_use]
    pub fn new(downstream: &Downstream) -> Self {
        let ip = downstream.peer.ip().to_canonical();
        let scheme = downstream.scheme;
        let port = downstream.listener_port.unwrap_or(scheme.default_port());
        // An address is hexadecimal digits, dots and colons: always a valid value.
        let Ok(address) = address_value(ip) else {
            return Self::unknown();
        };
        Self(Some(Arc::new(ClientFields {
            ip,
            scheme,
            address,
            proto: HeaderValue::from_static(scheme.as_str()),
            port: HeaderValue::from(port),
            element: OnceLock::new(),
        })))
    }

    /// An unknown client: it is not trusted, and no address, scheme or port is sent for it.
    #[must_use]
    pub fn unknown() -> Self {
        Self(None)
    }

    /// The address of the peer, IPv4 where it is one; `None` if it is not known.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.as_ref().map(|known| known.ip)
    }

    /// The scheme the peer used towards this gateway; `None` if it is not known.
    #[must_use]
    pub fn scheme(&self) -> Option<Scheme> {
        self.0.as_ref().map(|known| known.scheme)
    }

    pub(crate) fn known(&self) -> Option<&ClientFields> {
        self.0.as_deref()
    }
}

impl From<&Downstream> for Client {
    fn from(downstream: &Downstream) -> Self {
        Self::new(downstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_formatted_as_the_standard_library_does() {
        for byte in 0..=u8::MAX {
            let ip = IpAddr::from([byte, 10, 100, byte]);
            assert_eq!(address_value(ip).unwrap(), ip.to_string());
        }
        let ip: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(address_value(ip).unwrap(), "2001:db8::7");
    }
}
