//! Fields that untrusted clients may not send into the mesh.

mod request_id;

use http::header::{HeaderMap, HeaderName};

pub use self::request_id::{RequestId, RequestIdPolicy};
use crate::header_presence::FieldSet;
use crate::name_patterns::NamePatterns;
use crate::names::{FieldGroup, has_underscore, is_structural, remove_matching};
use crate::{HeaderPresence, InvalidRequest, InvalidSetting, RequestRule};

/// The peers from which a field is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peers {
    /// No peer: the field passes.
    None,
    /// All untrusted peers.
    Untrusted,
    /// All peers.
    All,
}

impl Peers {
    fn includes(self, trusted: bool) -> bool {
        match self {
            Self::None => false,
            Self::Untrusted => !trusted,
            Self::All => true,
        }
    }
}

/// How fields with a `_` in their name are treated.
///
/// CGI, WSGI, PHP and their like turn `-` into `_`, so that `X_Forwarded_For` becomes what
/// `X-Forwarded-For` should be; nginx and Envoy at the edge refuse or drop such names, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnderscorePolicy {
    /// Drop the field of any peer: proxies in front seldom check such names.
    #[default]
    Drop,
    /// Keep it, unless with `-` in place of `_` it would be a field that this peer may not send,
    /// or one that frames or routes the message.
    Keep,
    /// Refuse the request with 400.
    Reject,
}

/// Removes request fields that would steer the mesh or claim an identity.
///
/// A sidecar trusts its gateway: it would obey `X-Envoy-Upstream-Rq-Timeout-Ms`, `X-Envoy-Retry-On` or
/// `L5d-Dst-Override` of a client, and applications would believe its `X-Forwarded-Client-Cert` or
/// `Remote-User`. Neither ingress-nginx nor a plain reverse proxy removes them.
///
/// | fields | removed by default from |
/// |---|---|
/// | [`FieldGroup::Forwarding`] | untrusted peers |
/// | [`FieldGroup::Identity`] | untrusted peers |
/// | [`FieldGroup::Mesh`] | untrusted peers |
/// | [`FieldGroup::Proxy`] | all peers |
/// | [`FieldGroup::MethodOverride`] | no peer |
/// | names with `_` | all peers: [dropped](UnderscorePolicy::Drop) |
///
/// **Trust in a peer's `X-Forwarded-For` is not trust in its other fields.** A cloud load balancer adds
/// its own fields and passes all others along. Behind one, set
/// [`refuse(FieldGroup::Mesh, Peers::All)`](EdgeHygieneBuilder::refuse) and the same for
/// [`FieldGroup::Identity`].
///
/// `X-Request-ID` follows its [`RequestIdPolicy`]; afterwards the request has one, unless the policy is
/// [`Ignore`](RequestIdPolicy::Ignore). `traceparent`, `tracestate`, `baggage`, `b3` and `X-B3-*`
/// pass: they describe the call chain and grant nothing.
///
/// One pass over the names; memory is allocated only if something is removed, and for a new
/// request id.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use mesh_ingress_headers::EdgeHygiene;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("x-envoy-max-retries", HeaderValue::from_static("99"));
/// headers.insert("x_forwarded_for", HeaderValue::from_static("127.0.0.1"));
/// headers.insert("traceparent", HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
/// EdgeHygiene::default().apply(&mut headers, false)?;
/// assert_eq!(headers.len(), 2);
/// assert!(headers.contains_key("traceparent"));
/// assert_eq!(headers["x-request-id"].len(), 36);
/// # Ok::<(), mesh_ingress_headers::InvalidRequest>(())
/// ```
#[derive(Clone, Debug)]
pub struct EdgeHygiene {
    forwarding: Peers,
    identity: Peers,
    mesh: Peers,
    method_override: Peers,
    proxy: Peers,
    underscores: UnderscorePolicy,
    request_id: RequestIdPolicy,
    custom: NamePatterns,
}

impl EdgeHygiene {
    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> EdgeHygieneBuilder {
        EdgeHygieneBuilder(Self::default())
    }

    /// Removes the fields that the peer, which is `trusted` or not, may not send.
    ///
    /// # Errors
    /// When a name has a `_` and the policy is [`UnderscorePolicy::Reject`].
    pub fn apply(&self, headers: &mut HeaderMap, trusted: bool) -> Result<(), InvalidRequest> {
        let presence = HeaderPresence::of(headers);
        self.apply_with(headers, &presence, trusted)
    }

    /// [`apply`](Self::apply) for a section with this [`HeaderPresence`]. Hidden: see there.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    #[doc(hidden)]
    pub fn apply_with(
        &self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        trusted: bool,
    ) -> Result<(), InvalidRequest> {
        if let Some(id) = self.clean_with(headers, presence, trusted)? {
            id.insert_into(headers);
        }
        Ok(())
    }

    /// [`apply_with`](Self::apply_with), but a generated `X-Request-ID` is returned instead of inserted.
    /// The caller adds it with
    /// [`PreparedFields::set_request_id`](crate::PreparedFields::set_request_id), which needs neither
    /// the map nor an allocation, or with [`RequestId::insert_into`]. `None` if the request keeps its
    /// id, or gets none. Hidden: see [`HeaderPresence`].
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    #[doc(hidden)]
    pub fn clean_with(
        &self,
        headers: &mut HeaderMap,
        presence: &HeaderPresence,
        trusted: bool,
    ) -> Result<Option<RequestId>, InvalidRequest> {
        if self.underscores == UnderscorePolicy::Reject && presence.has(FieldSet::UNDERSCORE) {
            return Err(RequestRule::Underscore.into());
        }
        let checked = FieldSet::GROUPED.or(FieldSet::UNDERSCORE);
        if presence.has(checked) || !self.custom.is_empty() {
            remove_matching(headers, |name| self.refuses(name, trusted));
        }
        Ok(self.request_id.replace(headers, presence, trusted))
    }

    fn refuses(&self, name: &HeaderName, trusted: bool) -> bool {
        if has_underscore(name.as_str().as_bytes()) {
            return match self.underscores {
                UnderscorePolicy::Keep => self.refuses_look_alike(name, trusted),
                UnderscorePolicy::Drop | UnderscorePolicy::Reject => true,
            };
        }
        self.refuses_text(name.as_str().as_bytes(), trusted)
    }

    fn refuses_text(&self, name: &[u8], trusted: bool) -> bool {
        let peers = match FieldGroup::of(name) {
            Some(FieldGroup::Forwarding) => self.forwarding,
            Some(FieldGroup::Identity) => self.identity,
            Some(FieldGroup::Mesh) => self.mesh,
            Some(FieldGroup::MethodOverride) => self.method_override,
            Some(FieldGroup::Proxy) => self.proxy,
            None => Peers::None,
        };
        peers.includes(trusted) || (!trusted && self.custom.contains(name))
    }

    fn refuses_look_alike(&self, name: &HeaderName, trusted: bool) -> bool {
        let dashed = name.as_str().replace('_', "-");
        self.refuses_text(dashed.as_bytes(), trusted)
            || HeaderName::from_bytes(dashed.as_bytes()).is_ok_and(|dashed| is_structural(&dashed))
    }
}

impl Default for EdgeHygiene {
    fn default() -> Self {
        Self {
            forwarding: Peers::Untrusted,
            identity: Peers::Untrusted,
            mesh: Peers::Untrusted,
            method_override: Peers::None,
            proxy: Peers::All,
            underscores: UnderscorePolicy::default(),
            request_id: RequestIdPolicy::default(),
            custom: NamePatterns::new(),
        }
    }
}

/// Settings of [`EdgeHygiene`].
#[derive(Clone, Debug)]
pub struct EdgeHygieneBuilder(EdgeHygiene);

impl EdgeHygieneBuilder {
    /// The peers from which the fields of a group are removed. Defaults: see [`EdgeHygiene`].
    #[must_use]
    pub fn refuse(mut self, group: FieldGroup, from: Peers) -> Self {
        let setting = match group {
            FieldGroup::Forwarding => &mut self.0.forwarding,
            FieldGroup::Identity => &mut self.0.identity,
            FieldGroup::Mesh => &mut self.0.mesh,
            FieldGroup::MethodOverride => &mut self.0.method_override,
            FieldGroup::Proxy => &mut self.0.proxy,
        };
        *setting = from;
        self
    }

    /// A field that only trusted peers may send; a `*` at the end stands for any rest,
    /// as in `x-acme-internal-*`. Any case. May be called several times.
    #[must_use]
    pub fn refuse_untrusted(mut self, name: &str) -> Self {
        self.0.custom.push(name);
        self
    }

    /// How names with a `_` are treated. Default [`UnderscorePolicy::Drop`].
    #[must_use]
    pub fn underscores(mut self, policy: UnderscorePolicy) -> Self {
        self.0.underscores = policy;
        self
    }

    /// How `X-Request-ID` is treated. Default [`RequestIdPolicy::KeepUuid`].
    #[must_use]
    pub fn request_id(mut self, policy: RequestIdPolicy) -> Self {
        self.0.request_id = policy;
        self
    }

    /// The rules.
    ///
    /// # Errors
    /// When a name given to [`refuse_untrusted`](Self::refuse_untrusted) is no field name, or only `*`.
    pub fn build(self) -> Result<EdgeHygiene, InvalidSetting> {
        self.0.custom.check("refuse_untrusted")?;
        Ok(self.0)
    }
}
