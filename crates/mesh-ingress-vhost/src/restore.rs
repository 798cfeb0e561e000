//! Restores the public identity in responses.

use std::net::SocketAddr;
use std::ops::Range;

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LOCATION, LINK, LOCATION, REFRESH, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue};

use mesh_ingress_core::Vhost;

use crate::PublicIdentity;
use crate::internal_names::{InternalNames, starts_with_ignore_case};

/// Replaces internal names in a response with the public identity.
///
/// An upstream builds its absolute links with the vhost it got as `Host`, and no client can follow
/// them. `vhost` is that vhost, `addresses` are the dialled ones (the ClusterIP), `public` is the
/// identity that the client used.
///
/// | field | what is restored | source |
/// |---|---|---|
/// | `Location` | scheme, host and port | RFC 9110 §10.2.2 |
/// | `Content-Location` | scheme, host and port | RFC 9110 §8.7 |
/// | `Refresh` | scheme, host and port of the URL: `5; url=…`, quoted or not, `5; …` | HTML §4.2.5.3 |
/// | `Link` | scheme, host and port of every `<…>` of every line | RFC 8288 §3 |
/// | `Set-Cookie` | the `Domain` attribute is removed | RFC 6265 §4.1.2.3 |
/// | `Access-Control-Allow-Origin` | the origin | Fetch §3.3.3 |
///
/// * A reference is internal if its host is that of `vhost`, ignoring case and a root dot, or one of
///   `addresses`; with *any* port or none: behind a Service that maps 80 to 8080, applications write
///   8080.
/// * `http` and `https` references are restored, and `//host/path`, which stays without a scheme.
///   Relative ones, other schemes and foreign hosts are not touched.
/// * The scheme becomes the client's, but `https` is never turned into `http`, which would make a loop
///   of an upstream's redirect from `http` to `https`. The port is then the default.
/// * The port becomes the client's, left out if it is the scheme's default. User information is
///   removed. Path, query and fragment stay byte for byte.
/// * A cookie without `Domain` belongs to the public host alone, which is always valid; another domain
///   might not be. `Domain` is removed if it covers the vhost (`svc.cluster.local`
///   does) or is one of `addresses`, unless it covers the public host as well.
/// * A client that used the vhost or an address itself gets the response unchanged.
///
/// Repeated fields keep their order. It is idempotent. Memory is allocated only for values that
/// change.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header};
/// use mesh_ingress_core::{Scheme, Vhost};
/// use mesh_ingress_vhost::{PublicIdentity, restore};
///
/// let vhost: Vhost = "web.default.svc.cluster.local".parse()?;
/// let public = PublicIdentity::new(Scheme::Https, HeaderValue::from_static("shop.example.com"));
/// let mut headers = HeaderMap::new();
/// let inside = HeaderValue::from_static("http://web.default.svc.cluster.local/cart?id=7");
/// headers.insert(header::LOCATION, inside);
///
/// restore(&mut headers, &vhost, &["10.96.0.7:80".parse()?], &public);
/// assert_eq!(headers[header::LOCATION], "https://shop.example.com/cart?id=7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn restore(
    headers: &mut HeaderMap,
    vhost: &Vhost,
    addresses: &[SocketAddr],
    public: &PublicIdentity,
) {
    // The public identity is parsed only for a response that has one of the fields.
    let mut names = None;
    for (name, value) in headers.iter_mut() {
        let rewrite: fn(&InternalNames<'_>, &[u8]) -> Option<Vec<u8>> = if name == LOCATION
            || name == CONTENT_LOCATION
            || name == ACCESS_CONTROL_ALLOW_ORIGIN
        {
            whole
        } else if name == SET_COOKIE {
            cookie
        } else if name == LINK {
            link
        } else if name == REFRESH {
            refresh
        } else {
            continue;
        };
        let names = match &names {
            Some(names) => names,
            None => {
                let Some(found) = InternalNames::new(vhost, addresses, public) else {
                    return;
                };
                names.insert(found)
            }
        };
        // Parts of a valid value and a checked host make a valid value.
        if let Some(new) = rewrite(names, value.as_bytes())
            && let Ok(mut new) = HeaderValue::try_from(new)
        {
            new.set_sensitive(value.is_sensitive());
            *value = new;
        }
    }
}

impl<'a> InternalNames<'a> {
    /// `None` if the public host is invalid or itself internal: then nothing is restored.
    fn new(
        vhost: &'a Vhost,
        addresses: &'a [SocketAddr],
        public: &'a PublicIdentity,
    ) -> Option<Self> {
        let (host, port) = public.split()?;
        let names = Self {
            vhost,
            addresses,
            scheme: public.scheme(),
            host,
            port,
        };
        (!names.has(host)).then_some(names)
    }
}

/// A value that is one reference.
fn whole(names: &InternalNames<'_>, value: &[u8]) -> Option<Vec<u8>> {
    let mut edit = Edit::new(names, value);
    edit.reference(0..value.len());
    edit.finish()
}

/// Several `<reference>` with parameters in a line; a `<` in a quoted string begins none.
fn link(names: &InternalNames<'_>, value: &[u8]) -> Option<Vec<u8>> {
    let mut edit = Edit::new(names, value);
    let mut at = 0;
    let mut quoted = false;
    while let Some(byte) = value.get(at) {
        at += 1;
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'<' if !quoted => {
                let end = find(value, at, b'>');
                edit.reference(at..end);
                at = end;
            }
            _ => {}
        }
    }
    edit.finish()
}

/// Seconds, `;` or `,`, and a reference with or without `url=` and quotes, as browsers read it.
fn refresh(names: &InternalNames<'_>, value: &[u8]) -> Option<Vec<u8>> {
    let separator = value.iter().position(|b| matches!(b, b';' | b','))?;
    let blank = |at: usize| {
        let rest = value.get(at..).unwrap_or_default();
        at + rest
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t'))
            .count()
    };
    let mut start = blank(separator + 1);
    if starts_with_ignore_case(value.get(start..)?, b"url") {
        let equals = blank(start + 3);
        if value.get(equals) == Some(&b'=') {
            start = blank(equals + 1);
        }
    }
    let mut end = value.len();
    if let Some(&quote @ (b'"' | b'\'')) = value.get(start) {
        start += 1;
        end = find(value, start, quote);
    }
    let mut edit = Edit::new(names, value);
    edit.reference(start..end);
    edit.finish()
}

/// Attributes follow the first `;`, quotes or not (RFC 6265 §5.2).
fn cookie(names: &InternalNames<'_>, value: &[u8]) -> Option<Vec<u8>> {
    let mut edit = Edit::new(names, value);
    let mut end = find(value, 0, b';');
    while end < value.len() {
        let start = end;
        end = find(value, start + 1, b';');
        let attribute = value.get(start + 1..end).unwrap_or_default();
        let mut parts = attribute.splitn(2, |&b| b == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let domain = parts.next().and_then(|text| std::str::from_utf8(text).ok());
        if name.eq_ignore_ascii_case(b"domain")
            && let Some(domain) = domain
            && names.has_domain(domain.trim_ascii())
        {
            edit.replace(start..end, |_| {});
        }
    }
    edit.finish()
}

/// The position of the next `byte` from `start` on, or the end.
fn find(value: &[u8], start: usize, byte: u8) -> usize {
    let rest = value.get(start..).unwrap_or_default();
    rest.iter()
        .position(|&b| b == byte)
        .map_or(value.len(), |at| start + at)
}

/// Replaces parts of a value, from left to right. Allocates at the first.
struct Edit<'a> {
    names: &'a InternalNames<'a>,
    value: &'a [u8],
    done: usize,
    new: Option<Vec<u8>>,
}

impl<'a> Edit<'a> {
    fn new(names: &'a InternalNames<'a>, value: &'a [u8]) -> Self {
        Self {
            names,
            value,
            done: 0,
            new: None,
        }
    }

    /// Restores the reference in this range.
    fn reference(&mut self, range: Range<usize>) {
        if let Some(found) = self.names.find(self.value, range) {
            let names = self.names;
            self.replace(found.range.clone(), |new| names.write(&found, new));
        }
    }

    fn replace(&mut self, range: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let kept = self.value.get(self.done..range.start).unwrap_or_default();
        let new = self
            .new
            .get_or_insert_with(|| Vec::with_capacity(self.value.len() + self.names.host.len()));
        new.extend_from_slice(kept);
        write(new);
        self.done = range.end;
    }

    fn finish(self) -> Option<Vec<u8>> {
        let mut new = self.new?;
        new.extend_from_slice(self.value.get(self.done..).unwrap_or_default());
        Some(new)
    }
}
