//! The address of an upstream, and how to connect to it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::Tls;

/// The protocol spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http1,
    /// HTTP/2, which gRPC needs: in cleartext with prior knowledge (RFC 9113 §3.3), over TLS by ALPN,
    /// with no other protocol accepted.
    Http2,
    /// The protocol of the client: HTTP/2 for requests received over HTTP/2 and for gRPC, HTTP/1.1 for
    /// all others. For Services that accept both on one port.
    SameAsClient,
    /// The protocol that the upstream selects by ALPN (RFC 7301), HTTP/2 preferred. HTTP/1.1 without
    /// TLS.
    Alpn,
}

impl Protocol {
    /// `http1`, `h2c`, `auto` or `alpn`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "h2c",
            Self::SameAsClient => "auto",
            Self::Alpn => "alpn",
        }
    }
}

/// The upstream of a request: an extension set by the resolver's layer and read by the forwarder.
///
/// Holds the addresses of one Service in the order to try them (several only for a dual-stack
/// ClusterIP) behind one reference count, so that a DNS snapshot hands it out without allocating.
/// Two upstreams with the same addresses, protocol and [`Tls`] are equal, and share connections.
///
/// ```
/// use mesh_ingress_core::{Protocol, Upstream};
///
/// let web = Upstream::new("10.96.0.7:80".parse()?).protocol(Protocol::Http2);
/// assert_eq!(web.addr().port(), 80);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    addresses: Arc<[SocketAddr]>,
    protocol: Protocol,
    tls: Option<Arc<Tls>>,
}

impl Upstream {
    /// One address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            addresses: Arc::from([address]),
            protocol: Protocol::default(),
            tls: None,
        }
    }

    /// Several addresses of one upstream, in the order to try them; `None` if there are none.
    #[must_use]
    pub fn from_addresses(addresses: impl Into<Arc<[SocketAddr]>>) -> Option<Self> {
        let addresses = addresses.into();
        (!addresses.is_empty()).then_some(Self {
            addresses,
            protocol: Protocol::default(),
            tls: None,
        })
    }

    /// Sets the protocol to speak; HTTP/1.1 unless set.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sets the TLS options; cleartext unless set. Pass an `Arc` to share them between upstreams.
    #[must_use]
    pub fn tls(mut self, tls: impl Into<Arc<Tls>>) -> Self {
        self.tls = Some(tls.into());
        self
    }

    /// The address to try first.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        // Both constructors ensure that there is one.
        self.addresses[0]
    }

    /// All addresses, in the order to try them; never empty.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The protocol to speak.
    #[must_use]
    pub fn http_protocol(&self) -> Protocol {
        self.protocol
    }

    /// The TLS options; `None` is cleartext.
    #[must_use]
    pub fn tls_options(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_differ_by_addresses_protocol_and_tls() {
        let plain = Upstream::new(([10, 96, 0, 7], 80).into());
        let tls = |name: &str| plain.clone().tls(Tls::default().with_server_name(name));
        let different = [
            plain.clone(),
            Upstream::new(([10, 96, 0, 7], 81).into()),
            plain.clone().protocol(Protocol::Http2),
            tls("a"),
            tls("b"),
            tls("a").protocol(Protocol::Alpn),
            plain
                .clone()
                .tls(Tls::default().with_profile("p").with_server_name("a")),
        ];
        for (i, one) in different.iter().enumerate() {
            for (j, other) in different.iter().enumerate() {
                assert_eq!(one == other, i == j, "{one:?} {other:?}");
            }
        }
        assert_eq!(tls("a"), tls("A"));
    }
}
