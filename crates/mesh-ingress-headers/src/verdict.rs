//! Whether a response came through the mesh, judged by its fields.
//!
//! # Evidence, and what it proves
//!
//! Response fields prove less than they seem to. Behind an Istio sidecar every response has
//! `server: envoy` and `x-envoy-upstream-service-time`, **also one that bypassed the mesh**
//! through the catch-all virtual host and `PassthroughCluster`; the sidecar overwrites `server`
//! and removes `x-envoy-peer-metadata*` (istio/proxy `peer_metadata/filter.cc`, `discover`) and,
//! if it traces, `x-envoy-decorator-operation`, so that the destination's own marks do not
//! arrive. A response with `server: istio-envoy` did not pass the gateway's own sidecar. This is what
//! each piece of evidence means, the strongest first; the first one found decides.
//!
//! | [`Evidence`] | found | default | sidecar | ambient | Linkerd | because |
//! |---|---|---|---|---|---|---|
//! | [`MeshCluster`](Evidence::MeshCluster) | the [cluster field](VerdictRulesBuilder::cluster_field), `outbound\|…` | meshed | meshed | meshed | meshed | Envoy itself names the cluster it sent the request to |
//! | [`PassthroughCluster`](Evidence::PassthroughCluster) | the cluster field, `PassthroughCluster`, `BlackHoleCluster` | passthrough | passthrough | passthrough | passthrough | the same |
//! | [`LinkerdIdentity`](Evidence::LinkerdIdentity) | `l5d-server-id` | meshed | meshed | meshed | meshed | Linkerd removes the server's value and sets it only for a peer with an authenticated TLS identity (older releases; `linkerd2-proxy`, outbound endpoint stack) |
//! | [`PeerMetadata`](Evidence::PeerMetadata) | `x-envoy-peer-metadata`, `x-envoy-peer-metadata-id` | meshed | meshed | meshed | meshed | the destination's proxy answers with it only if the gateway's proxy has sent it (istio/proxy `peer_metadata/filter.cc`, `inject`) |
//! | [`DestinationProxy`](Evidence::DestinationProxy) | `server: istio-envoy`, or `x-envoy-decorator-operation` without `server: envoy` | unknown | passthrough | meshed | unknown | written by an inbound sidecar or a waypoint, overwritten by an outbound sidecar (istio `proxy_headers.go`: `ServerName`, `OVERWRITE`). Behind a sidecar: the sidecar was bypassed. In ambient: it is the waypoint's. Otherwise it may be from a `PERMISSIVE` pod that accepted cleartext |
//! | [`Envoy`](Evidence::Envoy) | `x-envoy-upstream-service-time` or `x-envoy-attempt-count` | unknown | unknown | unknown | unknown | some Envoy forwarded a response; a sidecar does the same for the mesh and for `PassthroughCluster`. Under `REGISTRY_ONLY` it does not: [`registry_only`](VerdictRulesBuilder::registry_only) |
//! | [`ProxyReply`](Evidence::ProxyReply) | `server: envoy` and none of those; `l5d-proxy-error` | unknown | unknown | unknown | unknown | a local reply of the proxy: no route, blocked, no healthy pod |
//! | [`Linkerd`](Evidence::Linkerd) | any other `l5d-*` | unknown | unknown | unknown | unknown | some Linkerd proxy was on the path, and did not tell whether the peer had an identity |
//! | [`Nothing`](Evidence::Nothing) | none of these | unknown | passthrough | unknown | unknown | a sidecar always leaves `server: envoy` on HTTP; ztunnel and current Linkerd leave nothing |
//!
//! The columns are [`VerdictRules::default`], [`istio_sidecar`](VerdictRules::istio_sidecar),
//! [`istio_ambient`](VerdictRules::istio_ambient) and [`linkerd`](VerdictRules::linkerd). An
//! application can forge all of them but the cluster field.
//!
//! # Proof behind a sidecar
//!
//! Let the gateway's sidecar name the cluster it used, in a field that
//! [`ResponseHygiene`](crate::response::ResponseHygiene) removes again, and name it in
//! [`cluster_field`](VerdictRulesBuilder::cluster_field):
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1alpha3
//! kind: EnvoyFilter
//! metadata: { name: tell-the-cluster }
//! spec:
//!   workloadSelector: { labels: { app: my-gateway } }
//!   configPatches:
//!   - applyTo: ROUTE_CONFIGURATION
//!     match: { context: SIDECAR_OUTBOUND }
//!     patch:
//!       operation: MERGE
//!       value:
//!         response_headers_to_add:
//!         - header: { key: x-istio-cluster, value: "%UPSTREAM_CLUSTER_RAW%" }
//!           append_action: OVERWRITE_IF_EXISTS_OR_ADD
//! ```
//!
//! ```
//! use http::{HeaderMap, HeaderValue};
//! use mesh_ingress_core::Verdict;
//! use mesh_ingress_headers::VerdictRules;
//!
//! let rules = VerdictRules::istio_sidecar()
//!     .to_builder()
//!     .cluster_field("x-istio-cluster")
//!     .build()?;
//! let mut headers = HeaderMap::new();
//! headers.insert("server", HeaderValue::from_static("envoy"));
//! headers.insert("x-envoy-upstream-service-time", HeaderValue::from_static("3"));
//! assert_eq!(rules.judge(&headers), Verdict::Unknown);
//! headers.insert("x-istio-cluster", HeaderValue::from_static("PassthroughCluster"));
//! assert_eq!(rules.judge(&headers), Verdict::Passthrough);
//! # Ok::<(), mesh_ingress_headers::InvalidSetting>(())
//! ```

use std::fmt;

use http::header::{HeaderMap, HeaderName, SERVER};
use mesh_ingress_core::Verdict;

use crate::header_presence::FieldSet;
use crate::{HeaderPresence, InvalidSetting};

/// The verdict on a response by its fields, with [`VerdictRules::default`], for an unknown data plane.
/// Nothing is allocated.
#[must_use]
pub fn of(headers: &HeaderMap) -> Verdict {
    VerdictRules::DEFAULT.judge(headers)
}

macro_rules! evidence {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A piece of evidence in a response. See the [module](self) for what it proves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Evidence {
            $($(#[$doc])* $variant,)*
        }

        impl Evidence {
            /// Every piece of evidence, the strongest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in lower case, for logs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

evidence! {
    /// The cluster field names a cluster of the mesh.
    MeshCluster = "mesh_cluster";
    /// The cluster field names the cluster for destinations unknown to the mesh.
    PassthroughCluster = "passthrough_cluster";
    /// Linkerd has authenticated the destination.
    LinkerdIdentity = "linkerd_identity";
    /// Two Istio proxies have exchanged their identities.
    PeerMetadata = "peer_metadata";
    /// A proxy at the destination, and none at the gateway.
    DestinationProxy = "destination_proxy";
    /// Some Envoy forwarded a response of its upstream.
    Envoy = "envoy";
    /// A proxy's local reply.
    ProxyReply = "proxy_reply";
    /// Some Linkerd proxy was on the path.
    Linkerd = "linkerd";
    /// No proxy left a mark.
    Nothing = "nothing";
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The verdict for each [`Evidence`].
///
/// One pass over the names of the fields; nothing is allocated. Judge a response before
/// [`ResponseHygiene`](crate::response::ResponseHygiene) removes the evidence.
#[derive(Clone, Debug)]
pub struct VerdictRules {
    verdicts: [Verdict; Evidence::ALL.len()],
    cluster_field: Option<HeaderName>,
}

impl VerdictRules {
    const DEFAULT: Self = {
        use Verdict::{Meshed, Passthrough, Unknown};
        Self {
            // In the order of the evidence.
            verdicts: [
                Meshed,
                Passthrough,
                Meshed,
                Meshed,
                Unknown,
                Unknown,
                Unknown,
                Unknown,
                Unknown,
            ],
            cluster_field: None,
        }
    };

    /// For a gateway behind an Istio sidecar, and targets whose ports are named `http…` or
    /// `grpc…`.
    ///
    /// The sidecar must mark its responses, which is Istio's default: where
    /// `proxyHeaders.server` and `proxyHeaders.envoyDebugHeaders` are both disabled, set
    /// [`Evidence::Nothing`] to [`Verdict::Unknown`].
    #[must_use]
    pub fn istio_sidecar() -> Self {
        let mut rules = Self::DEFAULT;
        rules.set(Evidence::DestinationProxy, Verdict::Passthrough);
        rules.set(Evidence::Nothing, Verdict::Passthrough);
        rules
    }

    /// For a gateway in Istio's ambient mode, and targets that have waypoints and no sidecars.
    #[must_use]
    pub fn istio_ambient() -> Self {
        let mut rules = Self::DEFAULT;
        rules.set(Evidence::DestinationProxy, Verdict::Meshed);
        rules
    }

    /// For a gateway behind Linkerd's proxy: the defaults, because current proxies leave no mark on a
    /// response that they only forward.
    #[must_use]
    pub fn linkerd() -> Self {
        Self::DEFAULT
    }

    /// Begins with [`VerdictRules::default`].
    #[must_use]
    pub fn builder() -> VerdictRulesBuilder {
        Self::DEFAULT.to_builder()
    }

    /// Begins with these rules.
    #[must_use]
    pub fn to_builder(&self) -> VerdictRulesBuilder {
        VerdictRulesBuilder {
            rules: self.clone(),
            cluster_field: None,
        }
    }

    /// The verdict on a response by its fields.
    #[must_use]
    pub fn judge(&self, headers: &HeaderMap) -> Verdict {
        self.verdict(self.evidence(headers))
    }

    /// [`judge`](Self::judge) for a section with this [`HeaderPresence`]. Hidden: see there.
    #[doc(hidden)]
    #[must_use]
    pub fn judge_with(&self, headers: &HeaderMap, presence: &HeaderPresence) -> Verdict {
        let marked =
            presence.has(FieldSet::MESH.or(FieldSet::SERVER)) || self.cluster_field.is_some();
        if !marked {
            return self.verdict(Evidence::Nothing);
        }
        if !presence.has(FieldSet::MESH) && self.cluster_field.is_none() {
            return self.verdict(by_server(None, server(headers)));
        }
        self.judge(headers)
    }

    /// The verdict for a piece of evidence.
    #[must_use]
    pub fn verdict(&self, evidence: Evidence) -> Verdict {
        let verdict = self.verdicts.get(evidence as usize);
        verdict.copied().unwrap_or_default()
    }

    /// The strongest evidence in the fields of a response.
    #[must_use]
    pub fn evidence(&self, headers: &HeaderMap) -> Evidence {
        if let Some(evidence) = self.cluster(headers) {
            return evidence;
        }
        let server = server(headers);
        let strongest = headers
            .keys()
            .filter_map(|name| mark(name.as_str(), server))
            .min_by_key(|evidence| *evidence as usize);
        by_server(strongest, server)
    }

    fn cluster(&self, headers: &HeaderMap) -> Option<Evidence> {
        let mut lines = headers.get_all(self.cluster_field.as_ref()?).iter();
        let cluster = lines.next()?.as_bytes();
        // Of two lines one is not the sidecar's, and it is unknown which.
        if lines.next().is_some() {
            return None;
        }
        match cluster {
            b"PassthroughCluster" | b"BlackHoleCluster" => Some(Evidence::PassthroughCluster),
            _ if cluster.starts_with(b"outbound|") => Some(Evidence::MeshCluster),
            _ => None,
        }
    }

    fn set(&mut self, evidence: Evidence, verdict: Verdict) {
        if let Some(current) = self.verdicts.get_mut(evidence as usize) {
            *current = verdict;
        }
    }
}

impl Default for VerdictRules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The value of `Server`.
fn server(headers: &HeaderMap) -> &[u8] {
    headers.get(SERVER).map_or(b"", |server| server.as_bytes())
}

/// Combines the strongest mark with the value of `Server`.
fn by_server(strongest: Option<Evidence>, server: &[u8]) -> Evidence {
    match (strongest, server) {
        (Some(Evidence::LinkerdIdentity), _) => Evidence::LinkerdIdentity,
        (Some(Evidence::PeerMetadata), _) => Evidence::PeerMetadata,
        (_, b"istio-envoy") => Evidence::DestinationProxy,
        (None, b"envoy") => Evidence::ProxyReply,
        (found, _) => found.unwrap_or(Evidence::Nothing),
    }
}

/// The evidence in the name of a field.
fn mark(name: &str, server: &[u8]) -> Option<Evidence> {
    if let Some(rest) = name.strip_prefix("x-envoy-") {
        return match rest {
            "peer-metadata" | "peer-metadata-id" => Some(Evidence::PeerMetadata),
            // An outbound Envoy that does not trace leaves it, but overwrites `server`.
            "decorator-operation" if server != b"envoy" => Some(Evidence::DestinationProxy),
            "upstream-service-time" | "attempt-count" => Some(Evidence::Envoy),
            _ => None,
        };
    }
    match name.strip_prefix("l5d-")? {
        "server-id" => Some(Evidence::LinkerdIdentity),
        "proxy-error" => Some(Evidence::ProxyReply),
        _ => Some(Evidence::Linkerd),
    }
}

/// Settings of [`VerdictRules`].
#[derive(Clone, Debug)]
pub struct VerdictRulesBuilder {
    rules: VerdictRules,
    cluster_field: Option<String>,
}

impl VerdictRulesBuilder {
    /// Sets the verdict for a piece of evidence. Defaults: see the [module](self).
    #[must_use]
    pub fn when(mut self, evidence: Evidence, verdict: Verdict) -> Self {
        self.rules.set(evidence, verdict);
        self
    }

    /// For a mesh with the outbound policy `REGISTRY_ONLY`: judges [`Evidence::Envoy`] as
    /// [`Verdict::Meshed`]. The sidecar then answers requests to unknown destinations itself, so a
    /// forwarded response came through the mesh.
    #[must_use]
    pub fn registry_only(self) -> Self {
        self.when(Evidence::Envoy, Verdict::Meshed)
    }

    /// The response field in which the gateway's own sidecar writes `%UPSTREAM_CLUSTER_RAW%`. None by
    /// default: Istio needs an `EnvoyFilter` for it, see the [module](self). It must overwrite the
    /// field; a response with two of them is judged by its other fields.
    #[must_use]
    pub fn cluster_field(mut self, name: &str) -> Self {
        self.cluster_field = Some(name.to_owned());
        self
    }

    /// The rules.
    ///
    /// # Errors
    /// When the cluster field is no field name.
    pub fn build(mut self) -> Result<VerdictRules, InvalidSetting> {
        if let Some(name) = self.cluster_field {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                InvalidSetting::new("cluster_field", format!("{name:?} is no field name"))
            })?;
            self.rules.cluster_field = Some(parsed);
        }
        Ok(self.rules)
    }
}

#[cfg(test)]
mod tests;
