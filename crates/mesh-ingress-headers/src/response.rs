//! Response fields that must not reach the client.

use http::header::{ALT_SVC, HeaderMap, HeaderName, SERVER};
use http::{HeaderValue, StatusCode};

use crate::header_presence::FieldSet;
use crate::hop_by_hop::{self, ConnectionOptions};
use crate::name_patterns::NamePatterns;
use crate::names::{FieldGroup, remove_matching};
use crate::{HeaderPresence, InvalidSetting};

/// How `Server` is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerPolicy {
    /// Removed if a sidecar wrote it (`envoy`, `istio-envoy`): Istio overwrites the application's
    /// value, so the field tells a client nothing but the mesh.
    #[default]
    HideMesh,
    /// Removed, always.
    Hide,
    /// Kept.
    Keep,
}

/// Removes response fields that are not for clients.
///
/// Istio's sidecars put the pod's name, namespace, labels and service account into
/// `X-Envoy-Peer-Metadata`, and Linkerd's their errors into `L5d-*`. By default [`FieldGroup::Mesh`]
/// and a sidecar's `Server` are removed; `Alt-Svc` and all others stay. Hop-by-hop fields are always
/// removed ([`hop_by_hop::strip`]), `Proxy-Authenticate` among them.
///
/// Read the fields you need yourself (for the mesh's verdict, say) before.
#[derive(Clone, Debug)]
pub struct ResponseHygiene {
    mesh: bool,
    server: ServerPolicy,
    alt_svc: bool,
    custom: NamePatterns,
}

impl ResponseHygiene {
    const DEFAULT: Self = Self {
        mesh: true,
        server: ServerPolicy::HideMesh,
        alt_svc: false,
        custom: NamePatterns::new(),
    };

    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> ResponseHygieneBuilder {
        ResponseHygieneBuilder(Self::DEFAULT)
    }

    /// Removes the fields, and returns the connection options of the response.
    ///
    /// A 101 names its new protocol in a hop-by-hop field: it keeps `Upgrade`, and gets a
    /// `Connection` that names it (RFC 9110 §7.8).
    pub fn apply(&self, status: StatusCode, headers: &mut HeaderMap) -> ConnectionOptions {
        self.apply_with(status, headers, &mut HeaderPresence::of(headers))
    }

    /// [`apply`](Self::apply) for a section with this [`HeaderPresence`]. Hidden: see there.
    #[doc(hidden)]
    pub fn apply_with(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        presence: &mut HeaderPresence,
    ) -> ConnectionOptions {
        let options = hop_by_hop::strip_with(headers, presence);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            options.write_upgrade(headers);
        }
        let listed = FieldSet::MESH.or(FieldSet::ALT_SVC);
        if presence.has(listed) || !self.custom.is_empty() {
            remove_matching(headers, |name| self.hides(name));
        }
        if !presence.has(FieldSet::SERVER) {
            return options;
        }
        let server = match self.server {
            ServerPolicy::Hide => true,
            ServerPolicy::HideMesh => headers.get(SERVER).is_some_and(is_sidecar),
            ServerPolicy::Keep => false,
        };
        if server {
            headers.remove(SERVER);
        }
        options
    }

    fn hides(&self, name: &HeaderName) -> bool {
        let text = name.as_str().as_bytes();
        (self.mesh && FieldGroup::of(text) == Some(FieldGroup::Mesh))
            || (self.alt_svc && *name == ALT_SVC)
            || self.custom.contains(text)
    }
}

impl Default for ResponseHygiene {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Settings of [`ResponseHygiene`].
#[derive(Clone, Debug)]
pub struct ResponseHygieneBuilder(ResponseHygiene);

impl ResponseHygieneBuilder {
    /// Whether `X-Envoy-*`, `X-Istio-*`, `L5d-*` and `X-Kuma-*` are removed. Default on.
    #[must_use]
    pub fn hide_mesh(mut self, on: bool) -> Self {
        self.0.mesh = on;
        self
    }

    /// How `Server` is treated. Default [`ServerPolicy::HideMesh`].
    #[must_use]
    pub fn server(mut self, policy: ServerPolicy) -> Self {
        self.0.server = policy;
        self
    }

    /// Whether `Alt-Svc` is removed: it sends clients to an address of the upstream's choice, past
    /// this gateway. Default off, because it may also advertise this gateway.
    #[must_use]
    pub fn hide_alt_svc(mut self, on: bool) -> Self {
        self.0.alt_svc = on;
        self
    }

    /// A field to remove; a `*` at the end stands for any rest, as in `x-acme-*`. Any
    /// case. May be called several times.
    #[must_use]
    pub fn hide(mut self, name: &str) -> Self {
        self.0.custom.push(name);
        self
    }

    /// The rules.
    ///
    /// # Errors
    /// When a name given to [`hide`](Self::hide) is no field name, or only `*`.
    pub fn build(self) -> Result<ResponseHygiene, InvalidSetting> {
        self.0.custom.check("hide")?;
        Ok(self.0)
    }
}

/// [`ResponseHygiene::apply`] with the defaults.
///
/// ```
/// use http::{HeaderMap, HeaderValue, StatusCode};
/// use mesh_ingress_headers::response;
///
/// let mut headers = HeaderMap::new();
/// for (name, value) in [
///     ("x-envoy-peer-metadata-id", "sidecar~10.0.0.7~web-5d6f~default"),
///     ("server", "istio-envoy"),
///     ("connection", "close"),
///     ("content-type", "text/html"),
/// ] {
///     headers.insert(name, HeaderValue::from_static(value));
/// }
/// assert!(response::scrub(StatusCode::OK, &mut headers).close);
/// assert_eq!(headers.keys().collect::<Vec<_>>(), ["content-type"]);
/// ```
pub fn scrub(status: StatusCode, headers: &mut HeaderMap) -> ConnectionOptions {
    ResponseHygiene::DEFAULT.apply(status, headers)
}

fn is_sidecar(server: &HeaderValue) -> bool {
    server == "envoy" || server == "istio-envoy"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(
        rules: &ResponseHygiene,
        status: StatusCode,
        fields: &[(&'static str, &'static str)],
    ) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        rules.apply(status, &mut headers);
        let fields = headers.iter();
        let mut left: Vec<_> = fields
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort_unstable();
        left
    }

    const MESH: &[(&str, &str)] = &[
        ("x-envoy-upstream-service-time", "3"),
        ("x-envoy-peer-metadata", "CiAK"),
        ("x-envoy-decorator-operation", "web.default:80/*"),
        ("l5d-server-id", "web.default.serviceaccount"),
        ("x-istio-attributes", "x"),
        ("server", "istio-envoy"),
        ("proxy-authenticate", "Basic"),
        ("keep-alive", "timeout=4"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("alt-svc", "h3=\":443\""),
        ("x-acme-node", "7"),
    ];

    #[test]
    fn fields_of_the_mesh_are_removed() {
        assert_eq!(
            scrubbed(&ResponseHygiene::default(), StatusCode::OK, MESH),
            [
                "alt-svc: h3=\":443\"",
                "set-cookie: a=1",
                "set-cookie: b=2",
                "x-acme-node: 7"
            ],
        );
    }

    #[test]
    fn each_rule_can_be_set() {
        let rules = ResponseHygiene::builder()
            .hide_mesh(false)
            .server(ServerPolicy::Keep)
            .hide_alt_svc(true)
            .hide("X-Acme-*")
            .build()
            .unwrap();
        assert_eq!(
            scrubbed(&rules, StatusCode::OK, MESH),
            [
                "l5d-server-id: web.default.serviceaccount",
                "server: istio-envoy",
                "set-cookie: a=1",
                "set-cookie: b=2",
                "x-envoy-decorator-operation: web.default:80/*",
                "x-envoy-peer-metadata: CiAK",
                "x-envoy-upstream-service-time: 3",
                "x-istio-attributes: x",
            ],
        );
        assert!(ResponseHygiene::builder().hide("*").build().is_err());
        assert!(ResponseHygiene::builder().hide("a b").build().is_err());
    }

    #[test]
    fn server_of_an_application_is_kept_by_default() {
        let rules = ResponseHygiene::default();
        let kept = scrubbed(&rules, StatusCode::OK, &[("server", "nginx")]);
        assert_eq!(kept, ["server: nginx"]);
        let rules = ResponseHygiene::builder()
            .server(ServerPolicy::Hide)
            .build()
            .unwrap();
        assert!(scrubbed(&rules, StatusCode::OK, &[("server", "nginx")]).is_empty());
    }

    #[test]
    fn rfc9110_7_8_101_keeps_upgrade_and_no_other_hop_by_hop_field() {
        let switching = &[
            ("connection", "Upgrade, X-Hop"),
            ("upgrade", "websocket"),
            ("x-hop", "1"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ];
        let rules = ResponseHygiene::default();
        assert_eq!(
            scrubbed(&rules, StatusCode::SWITCHING_PROTOCOLS, switching),
            [
                "connection: upgrade",
                "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                "upgrade: websocket",
            ],
        );
        assert_eq!(
            scrubbed(&rules, StatusCode::OK, switching),
            ["sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
        );
    }
}
