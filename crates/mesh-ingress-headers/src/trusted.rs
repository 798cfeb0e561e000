//! Peers whose forwarding headers are trusted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use mesh_ingress_core::ParseError;

/// The peers whose forwarding headers are trusted: load balancers and proxies in front.
///
/// Default: none. `0.0.0.0/0`, the default of ingress-nginx, trusts every client to choose its own
/// address; list the addresses of the proxies in front instead.
///
/// IPv4 addresses written as IPv6 (`::ffff:10.0.0.1`, as a dual-stack listener reports them) match
/// IPv4 networks. Cloning costs a reference count.
///
/// ```
/// use mesh_ingress_headers::TrustedPeers;
///
/// let trusted = TrustedPeers::parse(["10.0.0.0/8", "2001:db8::1"])?;
/// assert!(trusted.contains("10.1.2.3".parse()?));
/// assert!(trusted.contains("::ffff:10.1.2.3".parse()?));
/// assert!(!trusted.contains("192.0.2.1".parse()?));
/// assert!(TrustedPeers::parse(["10.0.0.0/33"]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedPeers(Arc<[IpNet]>);

impl TrustedPeers {
    /// No peer: the default.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new([]))
    }

    /// The peers inside any of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().map(canonical).collect())
    }

    /// The same, from text: networks (`10.0.0.0/8`) and single addresses (`192.0.2.7`).
    ///
    /// # Errors
    /// When a text is neither a network nor an address.
    pub fn parse<I>(networks: I) -> Result<Self, ParseError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        networks
            .into_iter()
            .map(|text| network(text.as_ref()).map(canonical))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the peer at this address is trusted.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

impl Default for TrustedPeers {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for TrustedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

fn network(text: &str) -> Result<IpNet, ParseError> {
    let error = || {
        ParseError::new(
            "network",
            text,
            "expected an address with an optional prefix length, such as 10.0.0.0/8",
        )
    };
    if text.contains('/') {
        return text.parse().map_err(|_| error());
    }
    text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error())
}

/// A network of IPv4-mapped addresses is the IPv4 network it maps.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => {
            let v4: Option<Ipv4Addr> = v6.addr().to_ipv4_mapped();
            v4.and_then(|addr| Ipv4Net::new(addr, v6.prefix_len() - MAPPED).ok())
                .map_or(network, IpNet::V4)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_in_both_families() {
        let trusted = TrustedPeers::parse([
            "10.0.0.0/8",
            "192.0.2.7",
            "fd00::/8",
            "::ffff:172.16.0.0/108",
        ])
        .unwrap();
        for inside in [
            "10.255.0.1",
            "::ffff:10.0.0.1",
            "192.0.2.7",
            "fd12::1",
            "172.31.0.1",
            "::ffff:172.31.0.1",
        ] {
            assert!(trusted.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "11.0.0.1",
            "192.0.2.8",
            "fe80::1",
            "172.32.0.1",
            "::10.0.0.1",
        ] {
            assert!(!trusted.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!TrustedPeers::none().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn error_quotes_the_text_that_is_no_network() {
        for bad in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.1:80",
            "*",
            "/8",
        ] {
            let error = TrustedPeers::parse([bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
