//! Which forwarding headers are written, and which are trusted.

use std::io::Write as _;
use std::net::IpAddr;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use mesh_ingress_core::Scheme;

use super::ForwardedField::{self, For, Forwarded, Host, Port, Proto, RealIp};
use super::{EmittedFields, element};
use crate::client::ClientFields;
use crate::header_presence::FieldSet;
use crate::names::{
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_FORWARDED_SERVER,
    X_REAL_IP,
};
use crate::{Client, HeaderPresence, InvalidSetting, RequestHost, TrustedPeers, Via, list};

/// Which forwarding headers upstreams get, and from which peers they are trusted.
///
/// Any client can send `X-Forwarded-For: 127.0.0.1`. So by default no peer is trusted: its fields are
/// replaced by what this gateway sees. Behind a load balancer, list its addresses with
/// [`trusted`](ForwardedPolicyBuilder::trusted): its own address is then *appended* to
/// `X-Forwarded-For`, and its values of host, scheme and port are kept.
///
/// | field | written | trusted from a trusted peer |
/// |---|---|---|
/// | `X-Forwarded-For` | yes | yes: appended to |
/// | `X-Forwarded-Host`, `-Proto`, `-Port` | yes | yes: kept |
/// | `X-Real-IP` | yes, [`real_client`](Self::real_client) | no |
/// | `Forwarded` (RFC 7239) | no | no |
/// | `X-Forwarded-Server` | never | always kept |
/// | `Via` (RFC 9110 §7.6.3) | yes, by [`Via`] | always kept: it grants nothing |
///
/// Each can be [written](ForwardedPolicyBuilder::emit) and [believed](ForwardedPolicyBuilder::believe)
/// or not. A field that is neither is removed. Believe only fields that your load balancer itself
/// sets: a field that it passes along unchanged is its client's. (`Forwarded` is off for that reason:
/// most load balancers pass it along.) Other `X-Forwarded-*` fields are handled by
/// [`EdgeHygiene`](crate::EdgeHygiene), so that a layer in between may set `X-Forwarded-Prefix`.
///
/// Header maps are edited in place; memory is allocated only to append to a chain or to write
/// `Forwarded`.
///
/// ```
/// use http::{HeaderMap, HeaderValue, Uri, Version, header::HOST};
/// use mesh_ingress_core::Downstream;
/// use mesh_ingress_headers::{Client, ForwardedPolicy, RequestHost, TrustedPeers};
///
/// let policy = ForwardedPolicy::builder()
///     .trusted(TrustedPeers::parse(["10.0.0.0/8"])?)
///     .build()?;
/// let mut headers = HeaderMap::new();
/// headers.insert(HOST, HeaderValue::from_static("shop.example.com"));
/// headers.insert("x-forwarded-for", HeaderValue::from_static("1.2.3.4, 203.0.113.7"));
/// let host = RequestHost::of(&Uri::from_static("/"), &headers, Version::HTTP_11)?;
/// let load_balancer = Client::new(&Downstream::new("10.0.0.9:40000".parse()?));
///
/// // The client sent 1.2.3.4 itself: only the load balancer's own entry counts.
/// assert_eq!(policy.real_client(&headers, &load_balancer), Some("203.0.113.7".parse()?));
/// policy.apply(&mut headers, &load_balancer, &host);
/// assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 203.0.113.7, 10.0.0.9");
/// assert_eq!(headers["x-real-ip"], "203.0.113.7");
/// assert_eq!(headers["x-forwarded-host"], "shop.example.com");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ForwardedPolicy {
    trusted: TrustedPeers,
    emit: EmittedFields,
    believe: EmittedFields,
    via: Option<Via>,
}

impl ForwardedPolicy {
    /// Begins with the defaults: no peer is trusted; `X-Forwarded-{For,Host,Proto,Port}`,
    /// `X-Real-IP` and `Via` are written.
    #[must_use]
    pub fn builder() -> ForwardedPolicyBuilder {
        ForwardedPolicyBuilder {
            policy: Self::default(),
            via: None,
        }
    }

    /// Whether the peer of this client's connection is trusted.
    #[must_use]
    pub fn is_trusted(&self, client: &Client) -> bool {
        client.ip().is_some_and(|ip| self.trusted.contains(ip))
    }

    /// The trusted peers.
    #[must_use]
    pub fn trusted(&self) -> &TrustedPeers {
        &self.trusted
    }

    /// Which fields are written.
    pub(crate) fn emitted(&self) -> EmittedFields {
        self.emit
    }

    /// This gateway's entry in `Via`; `None` if that is off. Separate from [`apply`](Self::apply),
    /// because it needs the version and can find a loop.
    #[must_use]
    pub fn via(&self) -> Option<&Via> {
        self.via.as_ref()
    }

    /// The address of the client: that of the peer, unless the peer is trusted; then the last
    /// address in `X-Forwarded-For` (or in `Forwarded`, if only that is believed) that is not a
    /// trusted peer's itself. An entry that is no address ends the search, with the address after it.
    /// `None` if the peer is not known.
    #[must_use]
    pub fn real_client(&self, headers: &HeaderMap, client: &Client) -> Option<IpAddr> {
        let peer = client.ip()?;
        if !self.trusted.contains(peer) {
            return Some(peer);
        }
        if self.believe.has(For) {
            let lines = headers.get_all(&X_FORWARDED_FOR).iter().rev();
            let chain = lines.flat_map(|line| list::members(line.as_bytes()).rev());
            return Some(self.first_untrusted(peer, chain.map(element::address)));
        }
        if self.believe.has(Forwarded) {
            let lines = headers.get_all(FORWARDED).iter();
            let elements = lines.flat_map(|line| element::elements(line.as_bytes()));
            let chain: Vec<_> = elements.map(element::for_address).collect();
            return Some(self.first_untrusted(peer, chain.into_iter().rev()));
        }
        Some(peer)
    }

    /// The scheme the client used: the peer's, or a trusted peer's `X-Forwarded-Proto`.
    /// `None` if the peer is not known.
    #[must_use]
    pub fn real_scheme(&self, headers: &HeaderMap, client: &Client) -> Option<Scheme> {
        let scheme = client.scheme()?;
        if !self.believe.has(Proto) || !self.is_trusted(client) {
            return Some(scheme);
        }
        // The peer itself added the last one.
        let last = headers.get_all(&X_FORWARDED_PROTO).iter().next_back();
        match last.and_then(|line| list::members(line.as_bytes()).next_back()) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
            _ => Some(scheme),
        }
    }

    /// Writes the fields of a request that came from `client` for `host`.
    pub fn apply(&self, headers: &mut HeaderMap, client: &Client, host: &RequestHost) {
        let presence = HeaderPresence::of(headers);
        self.apply_with(headers, &presence, client, host);
    }

    /// [`apply`](Self::apply) for a section with this [`HeaderPresence`]. Hidden: see there.
    #[doc(hidden)]
    pub fn apply_with(
        &self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        client: &Client,
        host: &RequestHost,
    ) {
        let trusted = self.is_trusted(client);
        let known = client.known();
        // Read before `X-Forwarded-For` is edited below.
        let real_ip = self.real_ip_value(headers, client);
        let mut keep_or_set = |field, listed, name: &'static HeaderName, value: Option<_>| {
            let present = presence.has(listed);
            if trusted && self.believe.has(field) && present && headers.contains_key(name) {
                return;
            }
            match value {
                Some(value) if self.emit.has(field) => {
                    headers.insert(name, value);
                }
                _ if present => {
                    headers.remove(name);
                }
                _ => {}
            }
        };
        keep_or_set(
            Host,
            FieldSet::X_FORWARDED_HOST,
            &X_FORWARDED_HOST,
            Some(host.value().clone()),
        );
        keep_or_set(
            Proto,
            FieldSet::X_FORWARDED_PROTO,
            &X_FORWARDED_PROTO,
            known.map(|client| client.proto.clone()),
        );
        keep_or_set(
            Port,
            FieldSet::X_FORWARDED_PORT,
            &X_FORWARDED_PORT,
            known.map(|client| client.port.clone()),
        );
        keep_or_set(RealIp, FieldSet::X_REAL_IP, &X_REAL_IP, real_ip);
        self.apply_for(headers, presence, known, trusted);
        self.apply_forwarded(headers, presence, known, trusted, host);
        if !trusted && presence.has(FieldSet::X_FORWARDED_SERVER) {
            headers.remove(&X_FORWARDED_SERVER);
        }
    }

    fn real_ip_value(&self, headers: &HeaderMap, client: &Client) -> Option<HeaderValue> {
        if !self.emit.has(RealIp) {
            return None;
        }
        let known = client.known()?;
        let ip = self.real_client(headers, client)?;
        if ip == known.ip {
            return Some(known.address.clone());
        }
        // An IPv4-mapped address has the longest text.
        let mut text = [0; "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len()];
        let mut free = &mut text[..];
        write!(free, "{ip}").ok()?;
        let left = free.len();
        let written = text.get(..text.len() - left)?;
        HeaderValue::from_bytes(written).ok()
    }

    fn apply_for(
        &self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        known: Option<&ClientFields>,
        trusted: bool,
    ) {
        let present = presence.has(FieldSet::X_FORWARDED_FOR);
        let believed = trusted && self.believe.has(For);
        if present && !believed {
            headers.remove(&X_FORWARDED_FOR);
        }
        if let Some(known) = known.filter(|_| self.emit.has(For)) {
            if present && believed {
                extend(headers, &X_FORWARDED_FOR, &known.address);
            } else {
                headers.insert(&X_FORWARDED_FOR, known.address.clone());
            }
        }
    }

    fn apply_forwarded(
        &self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        known: Option<&ClientFields>,
        trusted: bool,
        host: &RequestHost,
    ) {
        let believed = trusted && self.believe.has(Forwarded);
        if presence.has(FieldSet::FORWARDED) && !believed {
            headers.remove(FORWARDED);
        }
        if self.emit.has(Forwarded)
            && let Some(element) = element::write(known, host)
        {
            extend(headers, &FORWARDED, &element);
        }
    }

    /// Follows a chain from the nearest address on, as long as each is a trusted peer's.
    fn first_untrusted(&self, peer: IpAddr, chain: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut last = peer;
        for address in chain {
            let Some(address) = address else { break };
            last = address;
            if !self.trusted.contains(address) {
                break;
            }
        }
        last
    }
}

/// Joins all lines of a list field, and appends `member`.
fn extend(headers: &mut HeaderMap, name: &HeaderName, member: &HeaderValue) {
    let lines = || {
        let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        lines.filter(|line| !list::trim(line).is_empty())
    };
    let before: usize = lines().map(|line| line.len() + 2).sum();
    if before == 0 {
        headers.insert(name, member.clone());
        return;
    }
    let mut chain = Vec::with_capacity(before + member.len());
    for line in lines() {
        chain.extend_from_slice(line);
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(member.as_bytes());
    // Valid values joined with commas are a valid value.
    let value = HeaderValue::try_from(chain).unwrap_or_else(|_| member.clone());
    headers.insert(name, value);
}

impl Default for ForwardedPolicy {
    fn default() -> Self {
        Self {
            trusted: TrustedPeers::none(),
            emit: EmittedFields::of(&[For, Host, Proto, Port, RealIp]),
            believe: EmittedFields::of(&[For, Host, Proto, Port]),
            via: Some(Via::default()),
        }
    }
}

/// Settings of [`ForwardedPolicy`].
#[derive(Clone, Debug)]
pub struct ForwardedPolicyBuilder {
    policy: ForwardedPolicy,
    via: Option<String>,
}

impl ForwardedPolicyBuilder {
    /// The peers to trust. Default: [none](TrustedPeers::none).
    #[must_use]
    pub fn trusted(mut self, peers: TrustedPeers) -> Self {
        self.policy.trusted = peers;
        self
    }

    /// Whether to write a field. Default: all but [`ForwardedField::Forwarded`].
    #[must_use]
    pub fn emit(mut self, field: ForwardedField, on: bool) -> Self {
        self.policy.emit.set(field, on);
        self
    }

    /// Whether to believe a field of a trusted peer. Default: all but
    /// [`ForwardedField::RealIp`] and [`ForwardedField::Forwarded`].
    #[must_use]
    pub fn believe(mut self, field: ForwardedField, on: bool) -> Self {
        self.policy.believe.set(field, on);
        self
    }

    /// The name of this gateway in `Via`; the same for all its replicas, and no other gateway's.
    /// Default: [one generated for this process](Via::default).
    #[must_use]
    pub fn via(mut self, pseudonym: impl Into<String>) -> Self {
        self.via = Some(pseudonym.into());
        self
    }

    /// Leaves `Via` as it is; loops are then not detected.
    #[must_use]
    pub fn without_via(mut self) -> Self {
        self.via = None;
        self.policy.via = None;
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// When the name for `Via` is not a token (RFC 9110 §5.6.2) or host with port.
    pub fn build(mut self) -> Result<ForwardedPolicy, InvalidSetting> {
        if let Some(pseudonym) = self.via {
            self.policy.via = Some(Via::new(&pseudonym)?);
        }
        Ok(self.policy)
    }
}
