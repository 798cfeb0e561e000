//! The public identity: the scheme, host and port a client used.

use http::header::HOST;
use http::uri::Authority;
use http::{Extensions, HeaderMap, HeaderValue, Uri};

use mesh_ingress_core::{Downstream, Scheme};

/// The scheme, host and port a client used, to be restored in the response.
///
/// Made per request, before [`rewrite_host`](crate::rewrite_host) replaces them. It holds the text as
/// received; nothing is parsed or formatted unless a response needs it.
///
/// ```
/// use http::HeaderValue;
/// use mesh_ingress_core::Scheme;
/// use mesh_ingress_vhost::PublicIdentity;
///
/// let host = HeaderValue::from_static("shop.example.com:8443");
/// let public = PublicIdentity::new(Scheme::Https, host);
/// assert_eq!(public.host(), Some("shop.example.com"));
/// assert_eq!(public.port(), Some(8443));
/// ```
#[derive(Clone, Debug)]
pub struct PublicIdentity {
    scheme: Scheme,
    text: Text,
}

/// The source of the text. Both can be shared, but not converted into each other without a copy.
#[derive(Clone, Debug)]
enum Text {
    Host(HeaderValue),
    Authority(Authority),
}

impl PublicIdentity {
    /// From the value of `Host`.
    #[must_use]
    pub fn new(scheme: Scheme, host: HeaderValue) -> Self {
        Self {
            scheme,
            text: Text::Host(host),
        }
    }

    /// From the authority of a URI: HTTP/2 `:authority`, or an absolute target.
    #[must_use]
    pub fn from_authority(scheme: Scheme, authority: Authority) -> Self {
        Self {
            scheme,
            text: Text::Authority(authority),
        }
    }

    /// Of a request as received: the authority of its URI, else `Host` (RFC 9112 §3.2.2); the
    /// scheme of its [`Downstream`] extension, else of the URI, else `http`.
    ///
    /// `None` if it has no authority, as HTTP/1.0 allows.
    #[must_use]
    pub fn of(uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Option<Self> {
        let scheme = match extensions.get::<Downstream>() {
            Some(downstream) => downstream.scheme,
            None if uri.scheme_str() == Some("https") => Scheme::Https,
            None => Scheme::Http,
        };
        match uri.authority() {
            Some(authority) => Some(Self::from_authority(scheme, authority.clone())),
            None => Some(Self::new(scheme, headers.get(HOST)?.clone())),
        }
    }

    /// The scheme the client used.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as the client wrote it. `None` if it is not valid: then nothing is restored, so that a
    /// client cannot inject text into responses that caches keep for others.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.split().map(|(host, _)| host)
    }

    /// The port the client named; `None` if it named none.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.split().and_then(|(_, port)| port)
    }

    /// Host and port, if the text is `host [":" port]` (RFC 9110 §7.2).
    pub(crate) fn split(&self) -> Option<(&str, Option<u16>)> {
        let text = match &self.text {
            Text::Host(value) => value.to_str().ok()?,
            Text::Authority(authority) => authority.as_str(),
        };
        // User information is no part of the identity. (The facade refuses it.)
        let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let (host, port) = split_port(text)?;
        let port = match port {
            None | Some("") => None,
            Some(digits) => Some(digits.parse().ok().filter(|port| *port != 0)?),
        };
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let valid = match literal {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            }
        };
        valid.then_some((host, port))
    }
}

/// Splits `host [":" digits]`; `None` for any other text.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = match authority.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(end)?;
    if rest.is_empty() {
        return Some((host, None));
    }
    let digits = rest.strip_prefix(':')?;
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then_some((host, Some(digits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_with_an_optional_port_is_accepted() {
        let split = |text: &'static str| {
            let public = PublicIdentity::new(Scheme::Http, HeaderValue::from_static(text));
            public.host().map(|host| (host.to_owned(), public.port()))
        };
        for (text, host, port) in [
            ("shop.example.com", "shop.example.com", None),
            ("Shop.Example.com.:8080", "Shop.Example.com.", Some(8080)),
            ("shop:", "shop", None),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[::1]:81", "[::1]", Some(81)),
            ("user:pw@shop:81", "shop", Some(81)),
        ] {
            assert_eq!(split(text), Some((host.to_owned(), port)), "{text}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a?b", "a:b", "a:0", "a:65536", "a:+1", "a,b", "[::1", "[x]",
            "[::1]x", "a:1:2", "a<b>", "a\"b",
        ] {
            assert_eq!(split(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn target_wins_over_host_and_downstream_over_the_scheme_of_the_target() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a.example"));
        let of = |uri: &'static str, headers: &HeaderMap, extensions: &Extensions| {
            let public = PublicIdentity::of(&Uri::from_static(uri), headers, extensions)?;
            Some((public.scheme(), public.host()?.to_owned()))
        };
        let mut extensions = Extensions::new();
        let a = |scheme| Some((scheme, "a.example".to_owned()));
        let b = |scheme| Some((scheme, "b.example".to_owned()));
        assert_eq!(of("/", &headers, &extensions), a(Scheme::Http));
        let absolute = "https://b.example/";
        assert_eq!(of(absolute, &headers, &extensions), b(Scheme::Https));
        extensions.insert(Downstream::new(([203, 0, 113, 7], 1).into()));
        assert_eq!(of(absolute, &headers, &extensions), b(Scheme::Http));
        let https = Downstream::new(([203, 0, 113, 7], 1).into()).scheme(Scheme::Https);
        extensions.insert(https);
        assert_eq!(of("/", &headers, &extensions), a(Scheme::Https));
        assert_eq!(of("/", &HeaderMap::new(), &extensions), None);
    }
}
