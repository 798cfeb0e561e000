//! Which fields a header section has, found in one pass for all rules.

use http::HeaderMap;

use crate::names::{FieldGroup, has_underscore};

/// The fields of a header section that this crate has rules about.
///
/// A proxy looks for thirty names in a message, and nearly all of them are absent. Each lookup costs a
/// hash and a probe; one pass over the fields that are present costs a fraction of that. Functions
/// that end in `_with` take the presence of their section; the others compute it.
///
/// Hidden from the documentation, as are the `_with` functions: a rule skips a field that is not in
/// the presence, so a stale one silently switches rules off. It must be of the same section, made
/// after other code added its last field. Fields removed since do no harm. The facade and the
/// forwarder, which scan each section once, keep to that.
///
/// ```
/// use http::HeaderMap;
/// use mesh_ingress_headers::{HeaderPresence, hop_by_hop};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("connection", "keep-alive".parse()?);
/// let mut presence = HeaderPresence::of(&headers);
/// hop_by_hop::strip_with(&mut headers, &mut presence);
/// assert!(headers.is_empty());
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct HeaderPresence {
    seen: u64,
    bytes: usize,
}

/// A set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldSet(u64);

macro_rules! fields {
    ($($field:ident = $bit:literal;)*) => {
        impl FieldSet {
            $(pub(crate) const $field: Self = Self(1 << $bit);)*
        }
    };
}

fields! {
    CONNECTION = 0;
    KEEP_ALIVE = 1;
    PROXY_CONNECTION = 2;
    TE = 3;
    TRANSFER_ENCODING = 4;
    UPGRADE = 5;
    HTTP2_SETTINGS = 6;
    PROXY_AUTHENTICATE = 7;
    PROXY_AUTHORIZATION = 8;
    PROXY_AUTHENTICATION_INFO = 9;
    HOST = 10;
    CONTENT_LENGTH = 11;
    VIA = 12;
    SERVER = 13;
    ALT_SVC = 14;
    X_REQUEST_ID = 15;
    FORWARDED = 16;
    X_FORWARDED_FOR = 17;
    X_FORWARDED_HOST = 18;
    X_FORWARDED_PORT = 19;
    X_FORWARDED_PROTO = 20;
    X_FORWARDED_SERVER = 21;
    X_REAL_IP = 22;
    UNDERSCORE = 23;
    // A field of any FieldGroup.
    GROUPED = 24;
    MESH = 25;
    // More than one Host line.
    HOST_REPEATED = 26;
    // Response fields that may name a host.
    NAMES = 27;
}

impl FieldSet {
    /// In the order of [`HOP_BY_HOP`](crate::names::HOP_BY_HOP).
    pub(crate) const HOP_BY_HOP: Self = Self((1 << 10) - 1);

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn of(name: &[u8]) -> Self {
        let listed = match name.len() {
            2 if name == b"te" => Self::TE,
            3 if name == b"via" => Self::VIA,
            4 if name == b"host" => Self::HOST,
            4 if name == b"link" => Self::NAMES,
            6 if name == b"server" => Self::SERVER,
            7 if name == b"upgrade" => Self::UPGRADE,
            7 if name == b"refresh" => Self::NAMES,
            7 if name == b"alt-svc" => Self::ALT_SVC,
            8 if name == b"location" => Self::NAMES,
            9 if name == b"forwarded" => Self::FORWARDED.or(Self::GROUPED),
            9 if name == b"x-real-ip" => Self::X_REAL_IP.or(Self::GROUPED),
            10 if name == b"connection" => Self::CONNECTION,
            10 if name == b"keep-alive" => Self::KEEP_ALIVE,
            10 if name == b"set-cookie" => Self::NAMES,
            12 if name == b"x-request-id" => Self::X_REQUEST_ID,
            14 if name == b"content-length" => Self::CONTENT_LENGTH,
            14 if name == b"http2-settings" => Self::HTTP2_SETTINGS,
            15 if name == b"x-forwarded-for" => Self::X_FORWARDED_FOR.or(Self::GROUPED),
            16 if name == b"x-forwarded-host" => Self::X_FORWARDED_HOST.or(Self::GROUPED),
            16 if name == b"x-forwarded-port" => Self::X_FORWARDED_PORT.or(Self::GROUPED),
            16 if name == b"proxy-connection" => Self::PROXY_CONNECTION,
            16 if name == b"content-location" => Self::NAMES,
            17 if name == b"x-forwarded-proto" => Self::X_FORWARDED_PROTO.or(Self::GROUPED),
            17 if name == b"transfer-encoding" => Self::TRANSFER_ENCODING,
            18 if name == b"x-forwarded-server" => Self::X_FORWARDED_SERVER.or(Self::GROUPED),
            18 if name == b"proxy-authenticate" => Self::PROXY_AUTHENTICATE,
            19 if name == b"proxy-authorization" => Self::PROXY_AUTHORIZATION,
            27 if name == b"access-control-allow-origin" => Self::NAMES,
            25 if name == b"proxy-authentication-info" => Self::PROXY_AUTHENTICATION_INFO,
            _ => return Self::of_unlisted(name),
        };
        debug_assert_eq!(
            listed.0 & Self::GROUPED.0 != 0,
            FieldGroup::of(name).is_some()
        );
        listed
    }

    fn of_unlisted(name: &[u8]) -> Self {
        let group = match FieldGroup::of(name) {
            None => Self(0),
            Some(FieldGroup::Mesh) => Self::GROUPED.or(Self::MESH),
            Some(_) => Self::GROUPED,
        };
        if has_underscore(name) {
            group.or(Self::UNDERSCORE)
        } else {
            group
        }
    }
}

impl HeaderPresence {
    /// Scans all fields.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut seen = 0;
        let mut bytes = 0_usize;
        for (name, value) in headers {
            let name = name.as_str().as_bytes();
            bytes = bytes.saturating_add(name.len() + value.len() + 4);
            let field = FieldSet::of(name).0;
            if seen & field & FieldSet::HOST.0 != 0 {
                seen |= FieldSet::HOST_REPEATED.0;
            }
            seen |= field;
        }
        Self { seen, bytes }
    }

    /// The size of the section in HTTP/1: names, values, and four bytes for colon, space, CR and LF of
    /// each line. (RFC 9113 §6.5.2 counts the same with 32 bytes a line.)
    #[must_use]
    pub fn section_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is a response field that may name a host: `Location`, `Content-Location`,
    /// `Set-Cookie`, `Link`, `Refresh` or `Access-Control-Allow-Origin`. After a Host rewrite the
    /// public name is restored in them.
    #[must_use]
    pub fn may_name_hosts(&self) -> bool {
        self.has(FieldSet::NAMES)
    }

    /// Whether there is more than one `Host` line.
    #[must_use]
    pub fn repeats_host(&self) -> bool {
        self.has(FieldSet::HOST_REPEATED)
    }

    /// Whether any of these fields was present.
    pub(crate) fn has(&self, fields: FieldSet) -> bool {
        self.seen & fields.0 != 0
    }

    /// Forgets fields that have been removed.
    pub(crate) fn forget(&mut self, fields: FieldSet) {
        self.seen &= !fields.0;
    }

    /// Whether the hop-by-hop field with this number was present.
    pub(crate) fn has_hop_by_hop(&self, number: u32) -> bool {
        self.seen & FieldSet::HOP_BY_HOP.0 & 1_u64.unbounded_shl(number) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::HOP_BY_HOP;
    use http::{HeaderName, HeaderValue};

    fn presence(names: &[&str]) -> HeaderPresence {
        let mut headers = HeaderMap::new();
        for name in names {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_static("v"));
        }
        HeaderPresence::of(&headers)
    }

    #[test]
    fn hop_by_hop_fields_are_numbered_as_they_are_listed() {
        for (number, name) in (0..).zip(HOP_BY_HOP) {
            let presence = presence(&["accept", name.as_str()]);
            assert!(presence.has(FieldSet::HOP_BY_HOP), "{name}");
            for other in 0..10 {
                assert_eq!(presence.has_hop_by_hop(other), other == number, "{name}");
            }
        }
        assert!(!presence(&["accept", "trailer"]).has(FieldSet::HOP_BY_HOP));
    }

    #[test]
    fn present_fields_are_found() {
        for (name, field) in [
            ("host", FieldSet::HOST),
            ("via", FieldSet::VIA),
            ("server", FieldSet::SERVER),
            ("alt-svc", FieldSet::ALT_SVC),
            ("content-length", FieldSet::CONTENT_LENGTH),
            ("x-request-id", FieldSet::X_REQUEST_ID),
            ("forwarded", FieldSet::FORWARDED),
            ("x-forwarded-for", FieldSet::X_FORWARDED_FOR),
            ("x-forwarded-host", FieldSet::X_FORWARDED_HOST),
            ("x-forwarded-port", FieldSet::X_FORWARDED_PORT),
            ("x-forwarded-proto", FieldSet::X_FORWARDED_PROTO),
            ("x-forwarded-server", FieldSet::X_FORWARDED_SERVER),
            ("x-real-ip", FieldSet::X_REAL_IP),
            ("location", FieldSet::NAMES),
            ("content-location", FieldSet::NAMES),
            ("set-cookie", FieldSet::NAMES),
            ("link", FieldSet::NAMES),
            ("refresh", FieldSet::NAMES),
            ("access-control-allow-origin", FieldSet::NAMES),
            ("a_b", FieldSet::UNDERSCORE),
            ("x-envoy_b", FieldSet::UNDERSCORE),
            ("x-envoy-a", FieldSet::MESH),
            ("l5d-a", FieldSet::MESH),
            ("x-forwarded-prefix", FieldSet::GROUPED),
            ("x-envoy-a", FieldSet::GROUPED),
            ("proxy", FieldSet::GROUPED),
        ] {
            assert!(presence(&["accept", name]).has(field), "{name}");
            let other = FieldSet(!field.0);
            let more = presence(&["accept"]).has(other);
            assert!(!more, "{name}");
        }
        assert!(!presence(&["host"]).has(FieldSet::HOST_REPEATED));
        assert!(presence(&["host", "accept", "host"]).has(FieldSet::HOST_REPEATED));
    }

    #[test]
    fn all_lines_count_towards_the_size() {
        assert_eq!(presence(&[]).section_bytes(), 0);
        assert_eq!(
            presence(&["ab", "cde"]).section_bytes(),
            2 + 3 + 2 * (1 + 4)
        );
    }
}
