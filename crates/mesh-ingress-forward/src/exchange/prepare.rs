//! The form of a request in each protocol. It depends on the protocol of the connection, which is
//! known only here, and not on the route.
//!
//! No host is chosen here: `mesh_ingress_vhost::rewrite_host` does that. The authority only moves
//! to where the upstream's version of HTTP has it, from the URI to `Host` or from `Host` to the
//! URI.

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use mesh_ingress_core::Error;
use mesh_ingress_headers::cookies;

use crate::body::RequestBody;
use crate::error::ForwardError;

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const CONNECTION_TE: HeaderValue = HeaderValue::from_static("te");

/// Gives a request the form of HTTP/1.1: origin-form, with a `Host`.
pub(super) fn http1(request: &mut Request<RequestBody>, te_trailers: bool) {
    *request.version_mut() = Version::HTTP_11;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    let headers = request.headers_mut();
    if let Some(authority) = uri.authority.take() {
        host_from_authority(headers, &authority);
    }
    // The asterisk of `OPTIONS *` is its path.
    *request.uri_mut() = uri
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
        .into();

    let headers = request.headers_mut();
    // Both are rare, and one pass over all names costs less than a lookup.
    let (mut expects, mut cookies) = (false, false);
    for name in headers.keys() {
        expects |= *name == EXPECT;
        cookies |= *name == COOKIE;
    }
    // Added again if the client really waits for `100 Continue`.
    if expects {
        headers.remove(EXPECT);
    }
    if cookies {
        cookies::join(headers);
    }
    if te_trailers {
        headers.insert(TE, TRAILERS);
        headers.insert(CONNECTION, CONNECTION_TE);
    }
}

/// Whether a request has an authority, as HTTP/2 requires (RFC 9113 §8.3.1).
pub(super) fn has_authority<B>(request: &Request<B>) -> bool {
    request.uri().authority().is_some()
        || request
            .headers()
            .get(HOST)
            .is_some_and(|host| Authority::try_from(host.as_bytes()).is_ok())
}

/// Gives a request the form of HTTP/2: `:authority` comes from the URI, and `Host` is removed,
/// because h2 sends both and servers refuse two that differ (RFC 9113 §8.3.1).
pub(super) fn http2(request: &mut Request<RequestBody>, te_trailers: bool) -> Result<(), Error> {
    *request.version_mut() = Version::HTTP_2;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    let host = request.headers_mut().remove(HOST);
    if uri.authority.is_none() {
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        uri.authority = Some(authority.ok_or_else(|| ForwardError::NoAuthority.into_error())?);
    }
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() =
        Uri::from_parts(uri).map_err(|_| ForwardError::NoAuthority.into_error())?;

    let headers = request.headers_mut();
    // hyper's HTTP/2 client does not report a `100`: the client gets one from its own server.
    headers.remove(EXPECT);
    if te_trailers {
        headers.insert(TE, TRAILERS);
    }
    Ok(())
}

/// Translates an absolute target: its authority becomes `Host`, even beside a `Host` that differs
/// (RFC 9112 §3.2.2), as it becomes `:authority` in [`http2`]. A rewritten host is in both already.
fn host_from_authority(headers: &mut HeaderMap, authority: &Authority) {
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    if host == Some(authority.as_str().as_bytes()) {
        return;
    }
    // Without user information (RFC 9110 §4.2.4).
    let host = authority.as_str();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if let Ok(value) = HeaderValue::from_str(host) {
        headers.insert(HOST, value);
    }
}
