//! The settings of the resolver, checked once.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_net::proto::rr::Name;
use mesh_ingress_core::{ClusterDomain, ParseError};
use thiserror::Error;

use super::client::Client;
use super::servers::Servers;
use super::state::Stats;
use super::{ClusterDns, ExternalNames, Headless, IpFamilies};
use crate::AddressPolicy;
use crate::watch::DEFAULT_RESOLVE_TIMEOUT;

/// Where the system keeps its name servers.
const SYSTEM_RESOLV_CONF: &str = "/etc/resolv.conf";
/// The lowest setting of the shortest TTL: a good answer is not asked for more often than this.
const LEAST_TTL: Duration = Duration::from_secs(1);

/// Sets up a [`ClusterDns`]. Made by [`ClusterDns::builder`].
///
/// ```
/// use std::time::Duration;
/// use mesh_ingress_resolve::{AddressPolicy, Balance, ClusterDns, Headless, IpFamilies};
///
/// let dns = ClusterDns::builder()
///     .nameserver("10.96.0.10:53".parse()?)
///     .domain("cluster.local".parse()?)
///     .address_policy(AddressPolicy::default().only(["10.96.0.0/12".parse()?]))
///     .ip_families(IpFamilies::V4)
///     .headless(Headless::Spread(Balance::LeastOutstanding))
///     .max_stale(Duration::from_secs(300))
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is resolved until it is built"]
pub struct ClusterDnsBuilder {
    nameservers: Vec<SocketAddr>,
    resolv_conf: Option<PathBuf>,
    domain: ClusterDomain,
    policy: AddressPolicy,
    families: IpFamilies,
    headless: Headless,
    external_names: ExternalNames,
    min_ttl: Duration,
    max_ttl: Duration,
    max_stale: Duration,
    resolve_timeout: Duration,
    query_timeout: Duration,
}

/// Why a [`ClusterDns`] could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The file with the name servers cannot be read.
    #[error("cannot read the name servers from {}", path.display())]
    ResolvConf {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file names no name server.
    #[error("{} has no usable nameserver line", path.display())]
    NoNameserver {
        /// Which file.
        path: PathBuf,
    },
    /// Name servers were given by address and by file: it is not clear which to ask.
    #[error("both nameserver and resolv_conf are set: set one of them")]
    TwoSources,
    /// A domain of [`ExternalNames::Follow`] is none.
    #[error("a domain that aliases may point to is not valid")]
    ExternalName(#[from] ParseError),
    /// A setting is out of its range.
    #[error("{setting} is {value:?}, expected {expected}")]
    OutOfRange {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        value: Duration,
        /// The range it may have.
        expected: &'static str,
    },
}

/// The settings, as checked by the builder.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) domain: ClusterDomain,
    pub(super) policy: AddressPolicy,
    pub(super) families: IpFamilies,
    pub(super) headless: Headless,
    /// The domains that aliases may point to.
    pub(super) external: Vec<Name>,
    pub(super) min_ttl: Duration,
    pub(super) max_ttl: Duration,
    pub(super) max_stale: Duration,
    pub(super) resolve_timeout: Duration,
}

impl Default for ClusterDnsBuilder {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            resolv_conf: None,
            domain: ClusterDomain::default(),
            policy: AddressPolicy::default(),
            families: IpFamilies::default(),
            headless: Headless::default(),
            external_names: ExternalNames::default(),
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(60),
            max_stale: Duration::from_secs(600),
            resolve_timeout: DEFAULT_RESOLVE_TIMEOUT,
            query_timeout: Duration::from_secs(1),
        }
    }
}

impl ClusterDnsBuilder {
    /// Adds a name server, over UDP and TCP. Several are asked in this order until one answers, and
    /// the one that did is asked first from then on. Default: those of `/etc/resolv.conf`.
    pub fn nameserver(mut self, address: SocketAddr) -> Self {
        self.nameservers.push(address);
        self
    }

    /// Takes the name servers from this file instead of `/etc/resolv.conf`. It is read again when
    /// it changes; if it is gone or empty then, the servers stay as they were. Only its
    /// `nameserver` lines are used; `[address]:port` is understood, as on OpenBSD.
    pub fn resolv_conf(mut self, path: impl Into<PathBuf>) -> Self {
        self.resolv_conf = Some(path.into());
        self
    }

    /// Sets the zone of the cluster. Default: `cluster.local`.
    pub fn domain(mut self, domain: ClusterDomain) -> Self {
        self.domain = domain;
        self
    }

    /// Sets which addresses an answer may hold. Default: all but loopback, link-local, metadata
    /// services and the like, see [`AddressPolicy`].
    pub fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets which families are asked for. Default: [`IpFamilies::Both`]. A family that the address
    /// policy cannot accept is not asked for in any case.
    pub fn ip_families(mut self, families: IpFamilies) -> Self {
        self.families = families;
        self
    }

    /// Sets what to do with headless Services. Default: [`Headless::Refuse`].
    pub fn headless(mut self, headless: Headless) -> Self {
        self.headless = headless;
        self
    }

    /// Sets what to do with Services of type ExternalName. Default: [`ExternalNames::Refuse`].
    pub fn external_names(mut self, external_names: ExternalNames) -> Self {
        self.external_names = external_names;
        self
    }

    /// Sets for how long an answer is used at least, whatever its TTL: at least 1 s. Default: 5 s.
    pub fn min_ttl(mut self, min_ttl: Duration) -> Self {
        self.min_ttl = min_ttl;
        self
    }

    /// Sets for how long an answer is used at most before it is asked for again, whatever its TTL:
    /// not below `min_ttl`, at most a day. Default: 60 s.
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// Sets for how long after its TTL an answer is used on while no name server gives a new one:
    /// at most a week; zero for not at all. Default: 10 min.
    pub fn max_stale(mut self, max_stale: Duration) -> Self {
        self.max_stale = max_stale;
        self
    }

    /// Sets how long the first requests of a target wait for its first answer: more than zero, at
    /// most a minute. A failure that is known earlier ends the wait. Default: 2 s.
    pub fn resolve_timeout(mut self, resolve_timeout: Duration) -> Self {
        self.resolve_timeout = resolve_timeout;
        self
    }

    /// Sets how long one name server has to answer one question, repetitions and TCP included, until
    /// the next is asked: more than zero, at most a minute. Default: 1 s, so that a second server has
    /// its chance within the resolve timeout. Lost datagrams are repeated after a third of a second.
    pub fn query_timeout(mut self, query_timeout: Duration) -> Self {
        self.query_timeout = query_timeout;
        self
    }

    /// Checks the settings and reads the name servers. Asks nothing yet and needs no runtime.
    ///
    /// # Errors
    /// When a setting is out of its range, or there is no name server.
    pub fn build(self) -> Result<ClusterDns, BuildError> {
        self.check_ranges()?;
        let external = match &self.external_names {
            ExternalNames::Refuse => Vec::new(),
            ExternalNames::Follow(domains) => domains
                .iter()
                .map(|domain| alias_domain(domain))
                .collect::<Result<_, _>>()?,
        };
        let families = self.families();
        let servers = match (self.resolv_conf, self.nameservers) {
            (Some(_), nameservers) if !nameservers.is_empty() => {
                return Err(BuildError::TwoSources);
            }
            (Some(path), _) => Servers::from_file(path)?,
            (None, nameservers) if nameservers.is_empty() => {
                Servers::from_file(SYSTEM_RESOLV_CONF.into())?
            }
            (None, nameservers) => Servers::new(nameservers),
        };
        let stats = Arc::new(Stats::default());
        let client = Client::new(servers, self.query_timeout, Arc::clone(&stats));
        let settings = Settings {
            domain: self.domain,
            policy: self.policy,
            families,
            headless: self.headless,
            external,
            min_ttl: self.min_ttl,
            max_ttl: self.max_ttl,
            max_stale: self.max_stale,
            resolve_timeout: self.resolve_timeout,
        };
        Ok(ClusterDns::from_parts(settings, client, stats))
    }

    fn check_ranges(&self) -> Result<(), BuildError> {
        const MINUTE: Duration = Duration::from_secs(60);
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let check = |setting, value, right, expected| {
            if right {
                return Ok(());
            }
            Err(BuildError::OutOfRange {
                setting,
                value,
                expected,
            })
        };
        let timeout = |setting, value: Duration| {
            let right = !value.is_zero() && value <= MINUTE;
            check(setting, value, right, "more than zero and at most a minute")
        };
        check(
            "min_ttl",
            self.min_ttl,
            self.min_ttl >= LEAST_TTL,
            "at least a second",
        )?;
        check(
            "max_ttl",
            self.max_ttl,
            self.max_ttl >= self.min_ttl && self.max_ttl <= DAY,
            "at least min_ttl and at most a day",
        )?;
        check(
            "max_stale",
            self.max_stale,
            self.max_stale <= 7 * DAY,
            "at most a week",
        )?;
        timeout("resolve_timeout", self.resolve_timeout)?;
        timeout("query_timeout", self.query_timeout)
    }

    fn families(&self) -> IpFamilies {
        match self.families {
            IpFamilies::Both if !self.policy.may_accept_v6() => IpFamilies::V4,
            IpFamilies::Both if !self.policy.may_accept_v4() => IpFamilies::V6,
            families => families,
        }
    }
}

fn alias_domain(domain: &str) -> Result<Name, ParseError> {
    // The rules for a cluster's domain are those for any other.
    let checked: ClusterDomain = domain
        .parse()
        .map_err(|error: ParseError| ParseError::new("domain", domain, error.reason()))?;
    Name::from_ascii(format!("{checked}."))
        .map_err(|error| ParseError::new("domain", domain, error))
}
