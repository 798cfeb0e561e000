//! Settings: address families, headless Services, ExternalName Services.

use crate::Balance;

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IpFamilies {
    /// A only: one question fewer, for clusters that are known to have IPv4.
    V4,
    /// AAAA only.
    V6,
    /// A and AAAA, asked together: the default, because it is right in every cluster: single-stack
    /// of either family and dual-stack. The second question does not delay requests.
    ///
    /// IPv6 is tried first (RFC 6724 §2.1, RFC 8305 §4). If one answer is there and the other takes
    /// more than 50 ms longer, requests go on with the one (RFC 8305 §3). If the question for one
    /// family fails, the addresses of that family stay as they were.
    #[default]
    Both,
}

/// The policy for a name that has several addresses in one family: a headless Service
/// (`clusterIP: None`), whose addresses are those of its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Headless {
    /// The target fails, and says why: traffic to pod addresses goes around what a mesh does for
    /// the Service, and should not do so unnoticed.
    #[default]
    Refuse,
    /// Requests are spread over the addresses. Those that fail to connect are left alone for 10 s,
    /// longer if they keep failing.
    Spread(Balance),
}

/// The policy for a name that is an alias (CNAME) of another: a Service of type ExternalName.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExternalNames {
    /// The target fails, and says where the alias points. An alias leads out of
    /// the cluster: with it, a user who may create Services could point a public route anywhere.
    #[default]
    Refuse,
    /// Aliases are followed, over at most eight steps, as long as each points to one of these
    /// domains or below: `example.com` stands for itself and `db.example.com`. The port must be
    /// given by number, since an alias has none. Host names outside the cluster are not in the
    /// mesh's registry of Services; see to it that the mesh knows them (Istio: a ServiceEntry).
    Follow(Vec<String>),
}

impl ExternalNames {
    /// Follows aliases into these domains.
    pub fn follow(domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Follow(domains.into_iter().map(Into::into).collect())
    }
}
