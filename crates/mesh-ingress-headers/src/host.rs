//! The host a request is for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{Uri, Version};

use crate::authority::{self, Kind};
use crate::{InvalidRequest, RequestRule};

/// The public authority of a request: what the client wants to talk to, before any rewriting.
///
/// It is the authority of the request target, or else `Host`. There is exactly one, and it is a
/// host name of letters, digits, `-` and `_`, an IPv4 address or an IPv6 address in brackets, with
/// an optional port from 1 to 65535. All else is refused: an authority that two parties read as two
/// hosts lets a request bypass the rules of one of them.
///
/// Cloning costs a reference count or two.
///
/// ```
/// use http::{HeaderMap, HeaderValue, Uri, Version, header::HOST};
/// use mesh_ingress_headers::RequestHost;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(HOST, HeaderValue::from_static("Shop.Example.com.:8080"));
/// let host = RequestHost::of(&Uri::from_static("/cart"), &headers, Version::HTTP_11)?;
/// assert_eq!(host.value(), "Shop.Example.com.:8080");
/// assert_eq!(host.host(), "Shop.Example.com.");
/// assert_eq!(host.canonical_host(), "shop.example.com");
/// assert_eq!(host.port(), Some(8080));
/// # Ok::<(), mesh_ingress_headers::InvalidRequest>(())
/// ```
#[derive(Clone)]
pub struct RequestHost {
    value: HeaderValue,
    host_len: usize,
    port: Option<u16>,
    canonical: Canonical,
}

#[derive(Clone)]
enum Canonical {
    /// A prefix of the value, unchanged.
    Prefix(usize),
    Other(Arc<str>),
}

impl RequestHost {
    /// Finds the authority of a request.
    ///
    /// | request | authority | RFC |
    /// |---|---|---|
    /// | HTTP/1.1, target `/path` or `*` | the one `Host` | 9112 §3.2 |
    /// | HTTP/1, target `http://host/path` | the target's; `Host` is ignored | 9112 §3.2.2 |
    /// | HTTP/1.0 | as HTTP/1.1, but `Host` may be absent if the target has one | 9112 §3.2.2 |
    /// | HTTP/2 and HTTP/3 | `:authority`, else `Host`; both only if they are the same | 9113 §8.3.1 |
    ///
    /// # Errors
    /// All of them are answered with 400. [`RequestRule::HostMissing`] (HTTP/1.1) and
    /// [`RequestRule::AuthorityUnknown`] (HTTP/1.0, HTTP/2) mean that there is no authority; a server
    /// of a single site may use its name instead for the latter. [`RequestRule::HostRepeated`],
    /// [`RequestRule::HostInvalid`], [`RequestRule::HostConflict`] and [`RequestRule::UserInfo`]
    /// mean that it is malformed or ambiguous.
    pub fn of(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Self, InvalidRequest> {
        let mut lines = headers.get_all(HOST).iter();
        let field = lines.next();
        if lines.next().is_some() {
            return Err(RequestRule::HostRepeated.into());
        }
        // An invalid Host is refused even where the target wins.
        let field = field.map(Self::of_field).transpose()?;
        let target = uri
            .authority()
            .map(|authority| Self::from_authority(authority.as_str()))
            .transpose()?;
        match version {
            Version::HTTP_11 => {
                let field = field.ok_or(RequestRule::HostMissing)?;
                Ok(target.unwrap_or(field))
            }
            Version::HTTP_09 | Version::HTTP_10 => {
                target.or(field).ok_or(RequestRule::AuthorityUnknown.into())
            }
            _ => match (target, field) {
                (Some(target), Some(field)) if !target.is_same(&field, uri.scheme()) => {
                    Err(RequestRule::HostConflict.into())
                }
                (Some(authority), _) | (None, Some(authority)) => Ok(authority),
                (None, None) => Err(RequestRule::AuthorityUnknown.into()),
            },
        }
    }

    /// The authority in a `Host` field (RFC 9112 §3.2). Only correct if it is the only one and the
    /// target has no authority, which [`of`](Self::of) checks. Hidden for that reason.
    ///
    /// # Errors
    /// [`RequestRule::HostInvalid`].
    #[doc(hidden)]
    pub fn of_field(host: &HeaderValue) -> Result<Self, InvalidRequest> {
        let text = str::from_utf8(host.as_bytes()).map_err(|_| RequestRule::HostInvalid)?;
        Self::build(host.clone(), text)
    }

    /// The authority as the client wrote it: for `X-Forwarded-Host`, or to preserve it.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// [`value`](Self::value), without a reference count.
    #[must_use]
    pub fn into_value(self) -> HeaderValue {
        self.value
    }

    /// A copy in memory of its own. A value read from a connection shares the read buffer, and would
    /// keep all of it alive for as long as it is kept.
    #[must_use]
    pub fn detached(&self) -> Self {
        // The copy of a valid value is valid.
        let value = HeaderValue::from_bytes(self.value.as_bytes());
        Self {
            value: value.unwrap_or_else(|_| self.value.clone()),
            ..self.clone()
        }
    }

    /// The whole authority as text, as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was parsed as ASCII.
        str::from_utf8(self.value.as_bytes()).unwrap_or_default()
    }

    /// The host as the client wrote it, without port; an IPv6 address has its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.as_str().get(..self.host_len).unwrap_or_default()
    }

    /// The host for matching: lower-case, without a trailing dot, an IPv6 address in brackets and
    /// in its shortest form (RFC 5952).
    #[must_use]
    pub fn canonical_host(&self) -> &str {
        match &self.canonical {
            Canonical::Prefix(len) => self.as_str().get(..*len).unwrap_or_default(),
            Canonical::Other(host) => host,
        }
    }

    /// The port, if the client wrote one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    fn from_authority(text: &str) -> Result<Self, InvalidRequest> {
        if text.contains('@') {
            return Err(RequestRule::UserInfo.into());
        }
        let value = HeaderValue::from_str(text).map_err(|_| RequestRule::HostInvalid)?;
        Self::build(value, text)
    }

    fn build(value: HeaderValue, text: &str) -> Result<Self, InvalidRequest> {
        let parts = authority::parse(text).ok_or(RequestRule::HostInvalid)?;
        let host = text.get(..parts.host_len).ok_or(RequestRule::HostInvalid)?;
        let canonical = match parts.kind {
            Kind::V4 => Canonical::Prefix(host.len()),
            Kind::V6(address) => Canonical::Other(format!("[{address}]").into()),
            Kind::Name => {
                let name = host.strip_suffix('.').unwrap_or(host);
                if parts.upper_case {
                    Canonical::Other(name.to_ascii_lowercase().into())
                } else {
                    Canonical::Prefix(name.len())
                }
            }
        };
        Ok(Self {
            value,
            host_len: parts.host_len,
            port: parts.port,
            canonical,
        })
    }

    /// Whether both name the same server, after the normalisation of RFC 3986 §6.2.
    fn is_same(&self, other: &Self, scheme: Option<&Scheme>) -> bool {
        let default = match scheme {
            Some(scheme) if *scheme == Scheme::HTTP => Some(80),
            Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
            _ => None,
        };
        self.canonical_host() == other.canonical_host()
            && self.port.or(default) == other.port.or(default)
    }
}

impl FromStr for RequestHost {
    type Err = InvalidRequest;

    /// Parses `host [":" port]`, for a site's own name.
    fn from_str(text: &str) -> Result<Self, InvalidRequest> {
        Self::from_authority(text)
    }
}

/// Two are equal if they have the same bytes.
impl PartialEq for RequestHost {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for RequestHost {}

impl fmt::Display for RequestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestHost").field(&self.as_str()).finish()
    }
}
