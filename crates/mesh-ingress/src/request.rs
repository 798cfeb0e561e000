//! A request's way from the client to the forwarder: one visit to each room.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error, ErrorKind, Upstream};
use mesh_ingress_forward::ResponseFuture as Forwarding;
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use mesh_ingress_headers::{Client, RequestHost, framing};
use mesh_ingress_route::RouteQuery;
use mesh_ingress_vhost::set_vhost;

use crate::ResponseFuture;
use crate::mesh::Inner;
use crate::respond::Dialect;
use crate::table::Target;

/// A request that only waits to be told where to go.
pub(crate) struct Addressed<B> {
    request: Request<B>,
    options: ConnectionOptions,
    target: Target,
}

/// Why no route was taken.
#[derive(Debug, thiserror::Error)]
enum Unrouted {
    #[error("no route matches host {host:?} and path {path:?}")]
    NoRoute { host: String, path: String },
    #[error("the path has dot segments, which servers resolve in different ways")]
    DotSegments,
    #[error("route {route:?} has no backend with a weight above zero")]
    NoBackend { route: String },
}

/// Takes a request to its backend.
pub(crate) fn dispatch<B>(
    inner: &Arc<Inner>,
    client: Option<&Client>,
    request: Request<B>,
) -> ResponseFuture<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let dialect = Dialect::of(request.headers());
    let addressed = match address(inner, client, request) {
        Ok(addressed) => addressed,
        Err(error) => return ResponseFuture::answered(inner, dialect, &error),
    };
    match addressed.target.watch.get() {
        Some(Ok(upstream)) => {
            let forwarding = addressed.forward(inner, upstream);
            ResponseFuture::forwarding(inner, dialect, forwarding)
        }
        Some(Err(error)) => ResponseFuture::answered(inner, dialect, &error),
        None => {
            let ready = addressed.target.watch.ready();
            ResponseFuture::resolving(inner, dialect, ready, addressed)
        }
    }
}

/// Checks the request, finds its backend and sets what the backend is told.
fn address<B>(
    inner: &Inner,
    client: Option<&Client>,
    request: Request<B>,
) -> Result<Addressed<B>, Error> {
    let (mut parts, body) = request.into_parts();
    framing::check_request(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    let host = RequestHost::of(&parts.uri, &parts.headers, parts.version)?;
    // Before anything of ours is added: a client must not be able to have that removed.
    let options = hop_by_hop::strip(&mut parts.headers);

    let table = inner.table.load();
    let path = parts.uri.path();
    if mesh_ingress_route::path::has_dot_segments(path) {
        return Err(Error::new(ErrorKind::HttpRequestError, Unrouted::DotSegments));
    }
    let query = RouteQuery::new(host.host(), path)
        .query(parts.uri.query())
        .method(&parts.method)
        .headers(&parts.headers);
    let Some(route) = table.find(&query) else {
        let unrouted = Unrouted::NoRoute {
            host: host.host().to_owned(),
            path: path.to_owned(),
        };
        return Err(Error::new(ErrorKind::DestinationNotFound, unrouted));
    };
    let Some(target) = route.pick() else {
        let route = route.name.clone();
        let unrouted = Unrouted::NoBackend { route };
        return Err(Error::new(ErrorKind::ProxyConfigurationError, unrouted));
    };

    let forwarded = &inner.settings.forwarded;
    match client {
        Some(client) => forwarded.apply(&mut parts.headers, client, &host),
        None => forwarded.remove(&mut parts.headers),
    }
    if let Some(vhost) = &target.vhost {
        set_vhost(&mut parts, vhost);
    }
    Ok(Addressed {
        target: target.clone(),
        options,
        request: Request::from_parts(parts, body),
    })
}

impl<B> Addressed<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Sends it off.
    pub(crate) fn forward(self, inner: &Inner, upstream: Upstream) -> Forwarding {
        let upstream = upstream.protocol(self.target.protocol);
        let pool = inner.settings.forwarder.pool(&upstream);
        pool.send(self.request, &self.options)
    }
}
