//! The last touch on a message: the form each protocol wants it in.
//!
//! No host is chosen here: `mesh_ingress_vhost::rewrite_host` does that. The authority only moves to
//! where the upstream's version of HTTP has it, from the URI to `Host` or from `Host` to the URI.
//!
//! Everything here is decided by the protocol towards the upstream (and, for responses, towards
//! the client), not by the route: it is the only place that knows both.

use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, EXPECT, HOST, TE, TRAILER, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use mesh_ingress_core::Error;
use mesh_ingress_headers::cookies;

use crate::body::RequestBody;
use crate::error::Failure;

/// What gRPC sends after a body, for clients that must be told beforehand (RFC 9110 §6.6.2).
const GRPC_TRAILERS: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const CONNECTION_TE: HeaderValue = HeaderValue::from_static("te");
const CONNECTION_UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Makes an HTTP/1.1 request of it: origin-form, with a `Host`.
pub(crate) fn http1(request: &mut Request<RequestBody>, te_trailers: bool) {
    *request.version_mut() = Version::HTTP_11;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    let headers = request.headers_mut();
    if let Some(authority) = uri.authority.take() {
        host_from_authority(headers, &authority);
    }
    // `OPTIONS *` keeps its asterisk: that is its path, too.
    *request.uri_mut() = uri
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
        .into();

    let headers = request.headers_mut();
    // Both are rare, and a look at each name costs less than to look for one.
    let (mut expects, mut cookies) = (false, false);
    for name in headers.keys() {
        expects |= *name == EXPECT;
        cookies |= *name == COOKIE;
    }
    // Asked for anew where the client really waits for it.
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

/// Asks for another protocol, or agrees to it, the way HTTP/1.1 does (RFC 9110 §7.8).
pub(crate) fn upgrade(headers: &mut HeaderMap, token: HeaderValue) {
    headers.insert(CONNECTION, CONNECTION_UPGRADE);
    headers.insert(UPGRADE, token);
}

/// Whether a request says whom it is for, as HTTP/2 must (RFC 9113 §8.3.1).
pub(crate) fn names_authority<B>(request: &Request<B>) -> bool {
    request.uri().authority().is_some()
        || request
            .headers()
            .get(HOST)
            .is_some_and(|host| Authority::try_from(host.as_bytes()).is_ok())
}

/// Makes an HTTP/2 request of it: `:authority` comes from the URI, and `Host` goes away, because
/// h2 sends both and servers refuse two that differ (RFC 9113 §8.3.1).
pub(crate) fn http2(request: &mut Request<RequestBody>, te_trailers: bool) -> Result<(), Error> {
    *request.version_mut() = Version::HTTP_2;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    let host = request.headers_mut().remove(HOST);
    if uri.authority.is_none() {
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        uri.authority = Some(authority.ok_or_else(|| Failure::NoAuthority.into_error())?);
    }
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Failure::NoAuthority.into_error())?;

    let headers = request.headers_mut();
    // hyper's HTTP/2 client does not tell when the 100 comes: it comes from us.
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

/// Names the trailers of a gRPC response to an HTTP/1.1 client that takes trailers: HTTP/2 does
/// not announce them, and hyper's HTTP/1.1 server sends only announced ones.
pub(crate) fn announce_grpc_trailers(headers: &mut HeaderMap) {
    let grpc = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc && !headers.contains_key(TRAILER) {
        headers.insert(TRAILER, GRPC_TRAILERS);
    }
}
