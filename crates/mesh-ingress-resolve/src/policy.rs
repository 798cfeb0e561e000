//! Which addresses an answer may hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Addresses that no Service has: a name that points there is a mistake or an attack.
const REFUSED_V4: [Ipv4Net; 8] = [
    // "This network" (RFC 1122 §3.2.1.3); Linux connects 0.0.0.0 to itself.
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    // Loopback (RFC 1122 §3.2.1.3).
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local (RFC 3927), which holds the metadata services of most clouds.
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    // Multicast (RFC 5771).
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    // Limited broadcast (RFC 919 §7). The rest of class E is in use: Istio gives out 240.240.0.0/16.
    Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32),
    // The metadata services of Alibaba Cloud, Oracle Cloud and Azure.
    Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 200), 32),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 192), 32),
    Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32),
];

const REFUSED_V6: [Ipv6Net; 6] = [
    // Unspecified and loopback (RFC 4291 §2.5.2, §2.5.3).
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128),
    Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128),
    // Link-local (RFC 4291 §2.5.6).
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    // Multicast (RFC 4291 §2.7).
    Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    // The metadata services of AWS and Google Cloud.
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
];

/// Which addresses a DNS answer may hold.
///
/// Without a policy, a user who can write a DNS record or a Service of type ExternalName could point
/// a public route at the gateway's own loopback or at the cloud's metadata service. Refused unless
/// [allowed](Self::allow):
///
/// * unspecified, loopback, link-local, multicast and broadcast addresses of both families;
/// * the metadata services of the large clouds (169.254.169.254 and others);
/// * IPv6 forms that carry one of these as IPv4: mapped and compatible (RFC 4291 §2.5.5), NAT64
///   (RFC 6052), 6to4 (RFC 3056).
///
/// All else is accepted: private ranges, public ones (clusters do use them for Services) and
/// 240.240.0.0/16, which Istio allocates from.
///
/// Bad addresses are dropped from an answer and counted; an answer with none left fails with
/// `destination_ip_prohibited`. The gateway connects to the address that was checked, without
/// resolving the name a second time.
///
/// Of several rules [`deny`](Self::deny) is the strongest, then [`allow`](Self::allow), then the
/// refusals above, then [`only`](Self::only).
///
/// ```
/// use mesh_ingress_resolve::AddressPolicy;
///
/// let policy = AddressPolicy::default();
/// assert!(policy.accepts("10.96.0.7".parse()?));
/// assert!(!policy.accepts("169.254.169.254".parse()?));
/// assert!(!policy.accepts("::ffff:127.0.0.1".parse()?));
///
/// // The Services of this cluster, and nothing else.
/// let strict = AddressPolicy::default().only(["10.96.0.0/12".parse()?]);
/// assert!(!strict.accepts("203.0.113.1".parse()?));
///
/// // A test with fakes on this host.
/// let local = AddressPolicy::default().allow("127.0.0.0/8".parse()?);
/// assert!(local.accepts("127.0.0.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
    only: Option<Vec<IpNet>>,
}

impl AddressPolicy {
    /// Accepts a range, even if it is one of those refused by default.
    #[must_use]
    pub fn allow(mut self, range: IpNet) -> Self {
        self.allow.push(range);
        self
    }

    /// Accepts nothing outside these ranges, except what is [allowed](Self::allow). Does not open
    /// what is refused by default. A family that has no range here is not asked for.
    #[must_use]
    pub fn only(mut self, ranges: impl IntoIterator<Item = IpNet>) -> Self {
        self.only.get_or_insert_default().extend(ranges);
        self
    }

    /// Refuses a range, whatever else is said about it.
    #[must_use]
    pub fn deny(mut self, range: IpNet) -> Self {
        self.deny.push(range);
        self
    }

    /// Whether an answer may hold the address.
    #[must_use]
    pub fn accepts(&self, address: IpAddr) -> bool {
        let carried = carried_v4(address);
        let within = |ranges: &[IpNet]| {
            ranges.iter().any(|range| {
                range.contains(&address)
                    || carried.is_some_and(|v4| range.contains(&IpAddr::V4(v4)))
            })
        };
        if within(&self.deny) {
            return false;
        }
        if within(&self.allow) {
            return true;
        }
        let refused = match address {
            IpAddr::V4(v4) => is_refused_v4(v4),
            IpAddr::V6(v6) => {
                REFUSED_V6.iter().any(|range| range.contains(&v6))
                    || carried.is_some_and(is_refused_v4)
            }
        };
        !refused && self.only.as_deref().is_none_or(within)
    }

    /// Whether any address of a family could be accepted.
    #[cfg(feature = "hickory")]
    pub(crate) fn may_accept_v4(&self) -> bool {
        self.may_accept(|range| matches!(range, IpNet::V4(_)))
    }

    /// Whether any address of a family could be accepted.
    #[cfg(feature = "hickory")]
    pub(crate) fn may_accept_v6(&self) -> bool {
        self.may_accept(|range| matches!(range, IpNet::V6(_)))
    }

    #[cfg(feature = "hickory")]
    fn may_accept(&self, family: impl Fn(&IpNet) -> bool) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.iter().chain(&self.allow).any(family))
    }
}

fn is_refused_v4(address: Ipv4Addr) -> bool {
    REFUSED_V4.iter().any(|range| range.contains(&address))
}

/// The IPv4 address that an IPv6 address stands for.
fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let [a, b, c, d, e, f, high, low] = v6.segments();
    let of = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match [a, b, c, d, e, f] {
        // Mapped, compatible, NAT64.
        [0, 0, 0, 0, 0, 0xffff | 0] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(of(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(policy: &AddressPolicy, address: &str) -> bool {
        policy.accepts(address.parse().unwrap())
    }

    fn net(range: &str) -> IpNet {
        range.parse().unwrap()
    }

    #[test]
    fn refused_by_default() {
        let policy = AddressPolicy::default();
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::127.0.0.1",
            "::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!accepts(&policy, bad), "{bad}");
        }
    }

    #[test]
    fn accepted_by_default() {
        let policy = AddressPolicy::default();
        for good in [
            "10.96.0.1",
            "172.20.0.10",
            "192.168.1.1",
            "100.64.0.1",
            "240.240.0.1",
            "240.240.255.255",
            "34.118.224.1",
            "203.0.113.1",
            "fd00::1",
            "2001:db8::1",
            "2001:2::1",
            "::ffff:10.96.0.1",
            "64:ff9b::203.0.113.1",
        ] {
            assert!(accepts(&policy, good), "{good}");
        }
    }

    #[test]
    fn only_restricts_and_does_not_open() {
        let policy = AddressPolicy::default().only([net("10.96.0.0/12"), net("0.0.0.0/0")]);
        assert!(accepts(&policy, "203.0.113.1"));
        assert!(!accepts(&policy, "127.0.0.1"));
        assert!(!accepts(&policy, "fd00::1"));
        let policy = AddressPolicy::default().only([net("10.96.0.0/12")]);
        assert!(accepts(&policy, "10.96.0.1"));
        assert!(accepts(&policy, "::ffff:10.96.0.1"));
        assert!(!accepts(&policy, "10.0.0.1"));
        let nothing = AddressPolicy::default().only([]);
        assert!(!accepts(&nothing, "10.96.0.1"));
    }

    #[test]
    fn allow_opens_and_deny_closes() {
        let policy = AddressPolicy::default()
            .only([net("10.96.0.0/12")])
            .allow(net("127.0.0.1/32"))
            .deny(net("10.96.0.1/32"));
        assert!(accepts(&policy, "127.0.0.1"));
        assert!(accepts(&policy, "::ffff:127.0.0.1"));
        assert!(!accepts(&policy, "127.0.0.2"));
        assert!(!accepts(&policy, "10.96.0.1"));
        assert!(!accepts(&policy, "::ffff:10.96.0.1"));
        let denied = policy.deny(net("127.0.0.0/8"));
        assert!(!accepts(&denied, "127.0.0.1"));
    }

    #[cfg(feature = "hickory")]
    #[test]
    fn a_family_that_cannot_be_accepted() {
        let any = AddressPolicy::default();
        assert!(any.may_accept_v4() && any.may_accept_v6());
        let v4 = AddressPolicy::default().only([net("10.96.0.0/12")]);
        assert!(v4.may_accept_v4() && !v4.may_accept_v6());
        let both = v4.allow(net("::1/128"));
        assert!(both.may_accept_v6());
    }
}
