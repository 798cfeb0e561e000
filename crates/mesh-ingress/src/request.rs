//! A request's way from the client to the forwarder: one visit to each room.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error, ErrorKind};
use mesh_ingress_forward::{ResponseBody, ResponseFuture as Forwarding, is_extended_connect};
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use mesh_ingress_headers::max_forwards::{self, MaxForwards};
use mesh_ingress_headers::{Client, Inventory, PreparedFields, RequestHost, framing};
use mesh_ingress_route::{Action, Miss, Route, RouteQuery};
use mesh_ingress_vhost::{PublicIdentity, rewrite_host};

use crate::ResponseFuture;
use crate::connection::LastHost;
use crate::mesh::Inner;
use crate::respond::{self, Dialect};
use crate::response::Sent;
use crate::table::{Prepared, Reach, Target};

/// Tells a Linkerd proxy in ingress mode where to.
const L5D_DST_OVERRIDE: HeaderName = HeaderName::from_static("l5d-dst-override");

/// What is known of a request that only waits to be told where to go.
pub(crate) struct Addressed {
    pub(crate) target: Arc<Target>,
    /// The connections to where it is, if that is known already.
    reach: Option<Arc<Reach>>,
    options: ConnectionOptions,
    public: Option<PublicIdentity>,
    /// What the backend is told of the client, if that is not among the request's fields.
    further: Option<PreparedFields>,
}

/// Why no backend was taken.
#[derive(Debug, thiserror::Error)]
enum Unrouted {
    #[error("{miss}: host {host:?}, path {path:?}")]
    Miss {
        miss: Miss,
        host: String,
        path: String,
    },
    #[error("route {route:?} has no backend with a weight above zero")]
    NoBackend { route: String },
}

/// What is to be done with a request.
pub(crate) enum Decision {
    Forward(Addressed),
    Answer(Box<Response<ResponseBody>>),
}

/// Takes a request to its backend.
pub(crate) fn dispatch<B>(
    inner: &Arc<Inner>,
    client: &Client,
    last: Option<&LastHost>,
    mut request: Request<B>,
) -> ResponseFuture<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let tunnel = is_extended_connect(&request);
    let dialect = if tunnel {
        Dialect::Tunnel
    } else {
        Dialect::of(request.method(), request.headers())
    };
    let mut addressed = match decide(inner, client, last, &mut request, Prepared::pick) {
        Ok(Decision::Forward(addressed)) => addressed,
        Ok(Decision::Answer(response)) if tunnel && response.status().is_success() => {
            // What answers here is no end of a tunnel.
            let responder = &inner.settings.responder;
            return ResponseFuture::made(responder.on_purpose(StatusCode::NOT_IMPLEMENTED));
        }
        Ok(Decision::Answer(response)) if dialect == Dialect::Head => {
            return ResponseFuture::made(respond::headed(*response));
        }
        Ok(Decision::Answer(response)) => return ResponseFuture::made(*response),
        Err(error) => return ResponseFuture::failed(inner, dialect, &error),
    };
    if let Some(reach) = addressed.reach.take() {
        let forwarding = addressed.forward(request, reach);
        return ResponseFuture::forwarding(dialect, forwarding);
    }
    let revision = addressed.target.watch.revision();
    match addressed.target.watch.get() {
        Some(Ok(upstream)) => {
            let forwarder = &inner.settings.forwarder;
            let reach = addressed.target.reach(forwarder, revision, upstream);
            let forwarding = addressed.forward(request, reach);
            ResponseFuture::forwarding(dialect, forwarding)
        }
        Some(Err(error)) => ResponseFuture::failed(inner, dialect, &error),
        None => {
            let ready = addressed.target.watch.ready();
            ResponseFuture::resolving(inner, dialect, ready, (addressed, request))
        }
    }
}

/// Fields that a request gets on its way: what a mesh is told.
const ADDED: usize = 1;
/// An id, those that say where it came from, and `Via`.
const ADDED_OF_CLIENT: usize = 9;

/// Checks the request, finds its backend and sets what the backend is told. In place: a request is
/// large, and each hand would copy it.
pub(crate) fn decide<B>(
    inner: &Inner,
    client: &Client,
    last: Option<&LastHost>,
    request: &mut Request<B>,
    pick: impl for<'t> FnOnce(&'t Prepared, &Route) -> Option<&'t Arc<Target>>,
) -> Result<Decision, Error> {
    let settings = &inner.settings;
    // A WebSocket is the same resource in all versions of HTTP.
    let tunnel = is_extended_connect(request).then_some(Method::GET);
    let method = tunnel.unwrap_or_else(|| request.method().clone());
    let mut fields = Inventory::of(request.headers());
    let version = request.version();
    framing::check_request_with(&method, request.uri(), version, request.headers(), &fields)?;
    let host = match last {
        Some(last) => last.of(request, &fields)?,
        None => RequestHost::of(request.uri(), request.headers(), version)?,
    };
    let mut further = last.and_then(|last| {
        let prepare = || settings.forwarded.prepare(client, version);
        last.prepared(&fields, version, &host, prepare)
    });
    // Before anything of ours is added: a client must not be able to have that removed.
    let options = hop_by_hop::strip_with(request.headers_mut(), &mut fields);
    let trusted = settings.forwarded.is_trusted(client);
    // At once: a map that is new would grow, and sort all its fields anew, three times.
    let added = match further {
        Some(_) => ADDED,
        None => ADDED + ADDED_OF_CLIENT,
    };
    request.headers_mut().reserve(added);
    let hygiene = &settings.hygiene;
    let id = hygiene.clean_with(request.headers_mut(), &fields, trusted)?;

    if max_forwards::check(&method, request.headers_mut())? == MaxForwards::Answer {
        return Ok(Decision::Answer(Box::new(settings.responder.options())));
    }

    let table = inner.table.load();
    let mut query = RouteQuery::new(host.host(), &method, request.uri(), request.headers());
    if query.path == "*" {
        // `OPTIONS *` asks about the whole host (RFC 9110 §9.3.7).
        query.path = "/";
    }
    let (route, prepared) = table
        .lookup(&query)
        .map_err(|miss| unrouted(miss, &host, request.uri().path()))?;
    let forwarded = &settings.forwarded;
    let scheme = forwarded.real_scheme(request.headers(), client);
    let scheme = scheme.unwrap_or_default();
    match route.action() {
        _ if prepared.forwards => {}
        Action::Redirect(redirect) => {
            let target = request.uri().path_and_query();
            let target = target.map_or("/", |target| target.as_str());
            let location = redirect.location(scheme, host.as_str(), target);
            let response = respond::redirect(redirect.status, &location)?;
            return Ok(Decision::Answer(Box::new(response)));
        }
        Action::Respond(status) => {
            let response = settings.responder.on_purpose(*status);
            return Ok(Decision::Answer(Box::new(response)));
        }
        _ => {}
    }
    let target = pick(prepared, route).ok_or_else(|| {
        let route = route.get_name().into_owned();
        Error::new(
            ErrorKind::ProxyConfigurationError,
            Unrouted::NoBackend { route },
        )
    })?;

    let reach = target.reached();

    let headers = request.headers_mut();
    // Not before: a route is not chosen by what is made up.
    match (id, &mut further) {
        (Some(id), Some(further)) => further.set_request_id(id),
        (Some(id), None) => id.insert_into(headers),
        (None, _) => {}
    }
    if further.is_none() {
        forwarded.apply_with(headers, &fields, client, &host);
        if let Some(via) = forwarded.via() {
            via.pass_with(headers, &fields, version)?;
        }
    }
    if let Some(service) = &target.dst_override {
        headers.insert(L5D_DST_OVERRIDE, HeaderValue::clone(service));
    }
    let mut public = None;
    if let Some(vhost) = &target.vhost {
        public = Some(PublicIdentity::new(scheme, host.into_value()));
        rewrite_host(request, vhost, target.protocol);
    }
    Ok(Decision::Forward(Addressed {
        target: Arc::clone(target),
        reach,
        options,
        public,
        further,
    }))
}

fn unrouted(miss: Miss, host: &RequestHost, path: &str) -> Error {
    let kind = match miss {
        // Servers resolve them in different ways: what was matched may not be what is served.
        Miss::DotSegments => ErrorKind::HttpRequestError,
        _ => ErrorKind::DestinationNotFound,
    };
    let unrouted = Unrouted::Miss {
        miss,
        host: host.as_str().to_owned(),
        path: path.to_owned(),
    };
    Error::new(kind, unrouted)
}

impl Addressed {
    /// Sends the request off.
    pub(crate) fn forward<B>(self, request: Request<B>, reach: Arc<Reach>) -> (Forwarding, Sent)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let forwarding = match self.further {
            Some(further) => reach.pool.send_prepared(request, further, &self.options),
            None => reach.pool.send(request, &self.options),
        };
        let sent = Sent {
            target: self.target,
            reach,
            public: self.public,
        };
        (forwarding, sent)
    }
}
