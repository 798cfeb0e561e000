//! The action of a route.

use http::StatusCode;
use mesh_ingress_core::{ParseError, Scheme};

use crate::host::{HostRule, WildcardScope};

/// The action for a request that a route matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Forwards it to one of the route's backends.
    #[default]
    Forward,
    /// Answers with a redirect; the route needs no backend.
    Redirect(Redirect),
    /// Answers with this status; the route needs no backend. For paths that are closed on purpose and
    /// must not fall through to a broader route.
    Respond(StatusCode),
}

/// A redirect, as with ingress-nginx's `ssl-redirect` and `permanent-redirect` and the Gateway API's
/// `RequestRedirect` filter.
///
/// Made of parts, where an unset part stays the client's, or of [one whole URI](Self::to_uri).
///
/// ```
/// use http::StatusCode;
/// use mesh_ingress_core::Scheme;
/// use mesh_ingress_route::Redirect;
///
/// // As ingress-nginx does it: 308 keeps the method and the body of the request.
/// let to_https = Redirect::new(StatusCode::PERMANENT_REDIRECT).scheme(Scheme::Https);
/// assert_eq!(
///     to_https.location(Scheme::Http, "shop.example.com:80", "/cart?id=7"),
///     "https://shop.example.com/cart?id=7",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redirect {
    /// The status; 3xx.
    pub status: StatusCode,
    /// The scheme of the new location.
    pub scheme: Option<Scheme>,
    /// The host of the new location, without port.
    pub host: Option<Box<str>>,
    /// The port of the new location. Unset, it is the client's if scheme and host stay, otherwise the
    /// default of the scheme.
    pub port: Option<u16>,
    /// The path of the new location, in place of the whole path. The query stays, unless the text
    /// has one of its own.
    pub path: Option<Box<str>>,
    /// The whole new location; the other parts are then ignored.
    pub uri: Option<Box<str>>,
}

impl Redirect {
    /// A redirect to the requested location: set at least one of the parts.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            scheme: None,
            host: None,
            port: None,
            path: None,
            uri: None,
        }
    }

    /// A redirect to one URI, independent of the requested path and query.
    ///
    /// ```
    /// use http::StatusCode;
    /// use mesh_ingress_core::Scheme;
    /// use mesh_ingress_route::Redirect;
    ///
    /// let moved = Redirect::to_uri(StatusCode::MOVED_PERMANENTLY, "https://new.example/start");
    /// let location = moved.location(Scheme::Http, "old.example", "/deep?q=1");
    /// assert_eq!(location, "https://new.example/start");
    /// ```
    #[must_use]
    pub fn to_uri(status: StatusCode, uri: impl Into<Box<str>>) -> Self {
        Self {
            uri: Some(uri.into()),
            ..Self::new(status)
        }
    }

    /// Sets the scheme.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// Sets the host, without port.
    #[must_use]
    pub fn host(mut self, host: impl Into<Box<str>>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the path.
    #[must_use]
    pub fn path(mut self, path: impl Into<Box<str>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The value of `Location` for a request: an absolute URI (RFC 9110 §10.2.2).
    ///
    /// `authority` is the client's `Host`, `path_and_query` the target as it was sent.
    #[must_use]
    pub fn location(&self, scheme: Scheme, authority: &str, path_and_query: &str) -> String {
        if let Some(uri) = &self.uri {
            return uri.as_ref().to_owned();
        }
        let (client_host, client_port) = split_port(authority);
        let to_scheme = self.scheme.unwrap_or(scheme);
        let host = self.host.as_deref().unwrap_or(client_host);
        let stays = to_scheme == scheme && self.host.is_none();
        let port = match self.port {
            Some(port) => Some(port),
            None if stays => client_port,
            None => None,
        };
        let port = match port {
            Some(port) if port != to_scheme.default_port() => format!(":{port}"),
            _ => String::new(),
        };
        let (client_path, client_query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let path = self.path.as_deref().unwrap_or(client_path);
        let (mark, query) = match client_query {
            Some(query) if !path.contains('?') => ("?", query),
            _ => ("", ""),
        };
        format!("{}://{host}{port}{path}{mark}{query}", to_scheme.as_str())
    }

    fn check(&self) -> Result<(), ParseError> {
        let status = self.status.as_str();
        // RFC 9110 §15.4: the statuses with a `Location`.
        if !matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            let reason = "it is not one of 301, 302, 303, 307, 308";
            return Err(ParseError::new("redirect status", status, reason));
        }
        if let Some(uri) = &self.uri {
            return check_text("redirect URI", uri);
        }
        if let Some(host) = &self.host
            && !matches!(
                HostRule::parse(host, WildcardScope::OneLabel)?,
                HostRule::Exact(_)
            )
        {
            let reason = "it has a wildcard, expected the name of one host";
            return Err(ParseError::new("redirect host", host, reason));
        }
        if self.port == Some(0) {
            let reason = "it is not between 1 and 65535";
            return Err(ParseError::new("redirect port", "0", reason));
        }
        if let Some(path) = &self.path {
            if !path.starts_with('/') {
                let reason = "it does not begin with '/'";
                return Err(ParseError::new("redirect path", path, reason));
            }
            return check_text("redirect path", path);
        }
        Ok(())
    }
}

impl Action {
    pub(crate) fn check(&self) -> Result<(), ParseError> {
        match self {
            Self::Forward => Ok(()),
            Self::Redirect(redirect) => redirect.check(),
            Self::Respond(status) if status.is_informational() => {
                let reason = "it is not a final status (RFC 9110 §15.2)";
                Err(ParseError::new("response status", status.as_str(), reason))
            }
            Self::Respond(_) => Ok(()),
        }
    }
}

/// `Location` must be a valid header value and a URI.
fn check_text(what: &'static str, text: &str) -> Result<(), ParseError> {
    if text.is_empty() {
        return Err(ParseError::new(what, text, "it is empty"));
    }
    match text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        Some((at, c)) => {
            let reason = format!("{c:?} at position {} must be percent-encoded", at + 1);
            Err(ParseError::new(what, text, reason))
        }
        None => Ok(()),
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        // A colon before the bracket belongs to an IPv6 literal.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_parts_stay_the_clients() {
        let location = |redirect: &Redirect, authority: &str, target: &str| {
            redirect.location(Scheme::Http, authority, target)
        };
        let plain = Redirect::new(StatusCode::FOUND);
        assert_eq!(
            location(&plain.clone().path("/new"), "a.example:8080", "/old?x=1"),
            "http://a.example:8080/new?x=1"
        );
        assert_eq!(
            location(&plain.clone().path("/new?y=2"), "a.example", "/old?x=1"),
            "http://a.example/new?y=2"
        );
        assert_eq!(
            location(&plain.clone().host("b.example"), "a.example:8080", "/%2F?"),
            "http://b.example/%2F?"
        );
        assert_eq!(
            location(&plain.clone().scheme(Scheme::Https), "[::1]:8080", "/"),
            "https://[::1]/"
        );
        assert_eq!(
            location(&plain.clone().port(443).scheme(Scheme::Https), "[::1]", "/"),
            "https://[::1]/"
        );
        assert_eq!(
            location(&plain.port(8443).scheme(Scheme::Https), "a.example", "/"),
            "https://a.example:8443/"
        );
    }
}
