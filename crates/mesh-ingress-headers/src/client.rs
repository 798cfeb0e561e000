//! The client of a connection, with what is to be said about it said once.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use mesh_ingress_core::{Downstream, Scheme};

/// A [`Downstream`] with its header values formatted.
///
/// Make one when a connection is accepted and put it in the extensions of its requests (or hand it
/// to [`ForwardedPolicy::apply`](crate::ForwardedPolicy::apply)): then no request formats an address. Cloning costs
/// a reference count.
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
pub struct Client(Option<Arc<Known>>);

#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) ip: IpAddr,
    pub(crate) scheme: Scheme,
    /// The address alone: a member of `X-Forwarded-For`, and `X-Real-IP`.
    pub(crate) address: HeaderValue,
    pub(crate) proto: HeaderValue,
    pub(crate) port: HeaderValue,
    /// `for=…;proto=…;host=`: an element of `Forwarded` up to what only the request knows.
    pub(crate) element: String,
}

impl Client {
    /// What is known of the peer of a connection.
    #[must_use]
    pub fn new(downstream: &Downstream) -> Self {
        let ip = downstream.peer.ip().to_canonical();
        let scheme = downstream.scheme;
        let mut address = String::new();
        let mut element = String::new();
        // Writing into a String cannot fail.
        let _ = write!(address, "{ip}");
        let _ = match ip {
            IpAddr::V4(ip) => write!(element, "for={ip};"),
            // RFC 7239 §6: an IPv6 address is bracketed, and so must be quoted.
            IpAddr::V6(ip) => write!(element, "for=\"[{ip}]\";"),
        };
        let _ = write!(element, "proto={};host=", scheme.as_str());
        let port = downstream.listener_port.unwrap_or(scheme.default_port());
        // An address is hexadecimal digits, dots and colons: always a valid value.
        let Ok(address) = HeaderValue::try_from(address) else {
            return Self::unknown();
        };
        Self(Some(Arc::new(Known {
            ip,
            scheme,
            address,
            proto: HeaderValue::from_static(scheme.as_str()),
            port: HeaderValue::from(port),
            element,
        })))
    }

    /// A client of whom nothing is known, and so nothing is claimed: it is not trusted, and no
    /// address, scheme or port is sent on.
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

    pub(crate) fn known(&self) -> Option<&Known> {
        self.0.as_deref()
    }
}

impl From<&Downstream> for Client {
    fn from(downstream: &Downstream) -> Self {
        Self::new(downstream)
    }
}
