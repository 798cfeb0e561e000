//! TLS options of an upstream.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Vhost;

/// TLS towards an upstream: the profile to use and the server name to expect.
///
/// Part of the identity of an [`Upstream`](crate::Upstream): requests share connections only with the
/// same profile and server name. The profile's settings (roots, client certificate) are in the
/// forwarder.
///
/// A mesh rarely needs it: the sidecar or the node's proxy encrypts, and routes by the HTTP it can
/// read. TLS to the upstream hides that from it.
///
/// The default is the default profile without a server name.
///
/// # The server name
///
/// It is sent as SNI (RFC 6066 §3) and is the name the certificate must be valid for
/// (RFC 9110 §4.3.4). Usually it is the vhost: set it with [`for_vhost`](Self::for_vhost), or with
/// [`or_vhost`](Self::or_vhost) where a name may be set already. The forwarder does not derive it from
/// a request: many requests share a connection, and the `Host` of one must not decide which server is
/// trusted for the others. Without a name it refuses to connect.
///
/// ```
/// use mesh_ingress_core::{Tls, Upstream, Vhost};
///
/// let vhost: Vhost = "pay.default.svc.cluster.local:8443".parse()?;
/// let pay = Upstream::new(([10, 96, 0, 9], 8443).into()).tls(Tls::for_vhost(&vhost));
/// let tls = pay.tls_options().unwrap();
/// assert_eq!(tls.server_name(), Some("pay.default.svc.cluster.local"));
/// assert_eq!(tls.profile(), "default");
///
/// let legacy = Tls::default().with_profile("legacy").with_server_name("pay.example.com");
/// assert_eq!(legacy.or_vhost(&vhost).server_name(), Some("pay.example.com"));
/// # Ok::<(), mesh_ingress_core::ParseError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// `None` is "default": the usual profile costs no reference count.
    profile: Option<Arc<str>>,
    server_name: Option<Arc<str>>,
}

impl Tls {
    /// The name of the default profile: `default`.
    pub const DEFAULT_PROFILE: &'static str = "default";

    /// The default profile, and the vhost's host as the server name.
    #[must_use]
    pub fn for_vhost(vhost: &Vhost) -> Self {
        Self::default().or_vhost(vhost)
    }

    /// Sets the profile, by the name it has in the forwarder.
    #[must_use]
    pub fn with_profile(mut self, profile: impl AsRef<str>) -> Self {
        let profile = profile.as_ref();
        // The default profile has one representation, so that equal upstreams compare equal.
        self.profile = (profile != Self::DEFAULT_PROFILE).then(|| Arc::from(profile));
        self
    }

    /// Sets the server name: a DNS name without a port, or an IP address without brackets (then no
    /// SNI is sent, RFC 6066 §3). Case and a trailing dot are dropped.
    ///
    /// It is not checked here: connecting with an invalid name fails.
    #[must_use]
    pub fn with_server_name(mut self, name: impl AsRef<str>) -> Self {
        let name = name.as_ref();
        let name = name.strip_suffix('.').unwrap_or(name);
        self.server_name = Some(name.to_ascii_lowercase().into());
        self
    }

    /// Sets the server name to the vhost's host, unless one is set already.
    #[must_use]
    pub fn or_vhost(self, vhost: &Vhost) -> Self {
        if self.server_name.is_some() {
            return self;
        }
        let host = vhost.authority().host();
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        match literal.unwrap_or(host).parse::<IpAddr>() {
            // The canonical text of the address.
            Ok(address) => self.with_server_name(address.to_string()),
            Err(_) => self.with_server_name(host),
        }
    }

    /// The name of the profile.
    #[must_use]
    pub fn profile(&self) -> &str {
        self.profile.as_deref().unwrap_or(Self::DEFAULT_PROFILE)
    }

    /// The server name to expect; lower-case, without a trailing dot.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vhost: &str) -> Tls {
        Tls::for_vhost(&vhost.parse().unwrap())
    }

    #[test]
    fn server_name_is_the_vhost_without_its_port() {
        for (vhost, name) in [
            (
                "web.default.svc.cluster.local",
                "web.default.svc.cluster.local",
            ),
            ("Web.Default.SVC:8443", "web.default.svc"),
            (
                "web.default.svc.cluster.local.:8443",
                "web.default.svc.cluster.local",
            ),
            ("10.0.0.1:443", "10.0.0.1"),
            ("[::1]:443", "::1"),
            ("[0:0::0:1]", "::1"),
        ] {
            assert_eq!(of(vhost).server_name(), Some(name), "{vhost}");
        }
    }

    #[test]
    fn or_vhost_keeps_an_explicit_name() {
        let set = Tls::default().with_server_name("a.example.");
        assert_eq!(set.server_name(), Some("a.example"));
        assert_eq!(set.clone().or_vhost(&"b.example".parse().unwrap()), set);
    }

    #[test]
    fn default_profile_has_one_representation() {
        assert_eq!(Tls::default().with_profile("default"), Tls::default());
        assert_ne!(Tls::default().with_profile("other"), Tls::default());
        assert_eq!(Tls::default().with_profile("other").profile(), "other");
    }
}
