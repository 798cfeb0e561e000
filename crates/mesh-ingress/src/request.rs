//! The path of a request from the client to the forwarder, each rule applied once.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Downstream, Error, ErrorKind};
use mesh_ingress_forward::{ResponseBody, ResponseFuture as Forwarding, is_extended_connect};
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use mesh_ingress_headers::max_forwards::{self, MaxForwards};
use mesh_ingress_headers::{Client, HeaderPresence, PreparedFields, RequestHost, framing};
use mesh_ingress_route::{Action, Miss, Route, RouteQuery};
use mesh_ingress_vhost::{PublicIdentity, rewrite_host};

use crate::ResponseFuture;
use crate::connection::{ConnectionMemory, LastHost};
use crate::mesh::Inner;
use crate::respond::{self, ErrorFormat};
use crate::response::ResponseContext;
use crate::table::{PreparedRoute, ResolvedPool, Target};

/// Tells a Linkerd proxy in ingress mode the destination.
const L5D_DST_OVERRIDE: HeaderName = HeaderName::from_static("l5d-dst-override");

/// A checked request with its backend, ready to be forwarded once the backend's address is known.
pub(crate) struct RoutedRequest {
    pub(crate) target: Arc<Target>,
    /// The connections to the backend, if its address is known already.
    pool: Option<Arc<ResolvedPool>>,
    options: ConnectionOptions,
    public: Option<PublicIdentity>,
    /// The prepared fields about the client, sent after the request's own.
    extra_headers: Option<PreparedFields>,
}

/// Why a request has no backend.
#[derive(Debug, thiserror::Error)]
enum RoutingError {
    #[error("{miss}: host {host:?}, path {path:?}")]
    Miss {
        miss: Miss,
        host: String,
        path: String,
    },
    #[error("route {route:?} has no backend with a weight above zero")]
    NoBackend { route: String },
}

/// How a request is handled.
pub(crate) enum Decision {
    Forward(RoutedRequest),
    Answer(Box<Response<ResponseBody>>),
}

/// Takes a request to its backend. `memory` is what is remembered of its connection, if the caller knows;
/// otherwise it is in the request's [`Downstream`].
// Inlined, as its callers are: a request is large, and each call would copy it.
#[inline(always)]
pub(crate) fn dispatch<B>(
    inner: &Arc<Inner>,
    memory: Option<&ConnectionMemory>,
    mut request: Request<B>,
) -> ResponseFuture<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let tunnel = is_extended_connect(&request);
    let format = if tunnel {
        ErrorFormat::Tunnel
    } else {
        ErrorFormat::of(request.method(), request.headers())
    };
    // A single extension is the `Downstream`, as a rule. Nobody on the way needs it, and it goes back
    // with the response.
    let mut extensions = match request.extensions().len() {
        1 => std::mem::take(request.extensions_mut()),
        _ => Extensions::new(),
    };
    let decision = {
        let cloned;
        let downstream = match extensions.get::<Downstream>() {
            Some(downstream) => Some(downstream),
            None => {
                if !extensions.is_empty() {
                    std::mem::swap(&mut extensions, request.extensions_mut());
                }
                cloned = request.extensions().get::<Downstream>().cloned();
                cloned.as_ref()
            }
        };
        let memory = memory.or_else(|| ConnectionMemory::of(inner, downstream?));
        let once;
        let (client, host) = match memory {
            Some(memory) => (&memory.client, Some(&memory.host)),
            None => {
                once = downstream.map_or_else(Client::unknown, Client::new);
                (&once, None)
            }
        };
        decide(inner, client, host, &mut request, PreparedRoute::pick)
    };
    let mut routed = match decision {
        Ok(Decision::Forward(routed)) => routed,
        Ok(Decision::Answer(response)) if tunnel && response.status().is_success() => {
            // A local reply cannot be the other end of a tunnel.
            let responder = &inner.settings.responder;
            let refusal = responder.local_reply(StatusCode::NOT_IMPLEMENTED);
            return ResponseFuture::ready(refusal, extensions);
        }
        Ok(Decision::Answer(response)) if format == ErrorFormat::Head => {
            return ResponseFuture::ready(respond::without_body(*response), extensions);
        }
        Ok(Decision::Answer(response)) => return ResponseFuture::ready(*response, extensions),
        Err(error) => return ResponseFuture::failed(inner, format, &error, extensions),
    };
    if let Some(pool) = routed.pool.take() {
        let forwarding = routed.forward(request, pool);
        return ResponseFuture::forwarding(format, forwarding, extensions);
    }
    let revision = routed.target.watch.revision();
    match routed.target.watch.get() {
        Some(Ok(upstream)) => {
            let forwarder = &inner.settings.forwarder;
            let pool = routed.target.resolve_pool(forwarder, revision, upstream);
            let forwarding = routed.forward(request, pool);
            ResponseFuture::forwarding(format, forwarding, extensions)
        }
        Some(Err(error)) => ResponseFuture::failed(inner, format, &error, extensions),
        None => {
            let ready = routed.target.watch.ready();
            ResponseFuture::resolving(inner, format, ready, (routed, request), extensions)
        }
    }
}

/// Header fields added to each request: `l5d-dst-override`.
const ADDED_FIELDS: usize = 1;
/// Header fields added where none are prepared: `X-Request-Id`, those about the client, and `Via`.
const ADDED_CLIENT_FIELDS: usize = 9;

/// Checks the request, finds its backend and sets the header fields that the backend gets. In place: a
/// request is large, and each move would copy it.
pub(crate) fn decide<B>(
    inner: &Inner,
    client: &Client,
    last: Option<&LastHost>,
    request: &mut Request<B>,
    pick: impl for<'t> FnOnce(&'t PreparedRoute, &Route) -> Option<&'t Arc<Target>>,
) -> Result<Decision, Error> {
    let settings = &inner.settings;
    // A WebSocket is the same resource in all versions of HTTP: routes match it as a `GET`.
    let tunnel = is_extended_connect(request).then_some(Method::GET);
    let method = tunnel.unwrap_or_else(|| request.method().clone());
    let mut presence = HeaderPresence::of(request.headers());
    let version = request.version();
    framing::check_request_with(
        &method,
        request.uri(),
        version,
        request.headers(),
        &presence,
    )?;
    let host = match last {
        Some(last) => last.of(request, &presence)?,
        None => RequestHost::of(request.uri(), request.headers(), version)?,
    };
    let mut extra_headers = last.and_then(|last| {
        let prepare = || settings.forwarded.prepare(client, version);
        last.prepared(&presence, version, &host, prepare)
    });
    // Before the gateway adds any field: a client must not be able to have that removed.
    let options = hop_by_hop::strip_with(request.headers_mut(), &mut presence);
    let trusted = settings.forwarded.is_trusted(client);
    // All at once: a small map would otherwise grow, and rehash its fields, three times.
    let added = match extra_headers {
        Some(_) => ADDED_FIELDS,
        None => ADDED_FIELDS + ADDED_CLIENT_FIELDS,
    };
    request.headers_mut().reserve(added);
    let hygiene = &settings.hygiene;
    let id = hygiene.clean_with(request.headers_mut(), &presence, trusted)?;

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
        .map_err(|miss| routing_error(miss, &host, request.uri().path()))?;
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
            let response = settings.responder.local_reply(*status);
            return Ok(Decision::Answer(Box::new(response)));
        }
        _ => {}
    }
    let target = pick(prepared, route).ok_or_else(|| {
        let route = route.get_name().into_owned();
        Error::new(
            ErrorKind::ProxyConfigurationError,
            RoutingError::NoBackend { route },
        )
    })?;

    let pool = target.current_pool();

    let headers = request.headers_mut();
    // Only now: a generated id must not decide the route.
    match (id, &mut extra_headers) {
        (Some(id), Some(extra_headers)) => extra_headers.set_request_id(id),
        (Some(id), None) => id.insert_into(headers),
        (None, _) => {}
    }
    if extra_headers.is_none() {
        forwarded.apply_with(headers, &presence, client, &host);
        if let Some(via) = forwarded.via() {
            via.pass_with(headers, &presence, version)?;
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
    Ok(Decision::Forward(RoutedRequest {
        target: Arc::clone(target),
        pool,
        options,
        public,
        extra_headers,
    }))
}

fn routing_error(miss: Miss, host: &RequestHost, path: &str) -> Error {
    let kind = match miss {
        // Servers resolve them in different ways: what was matched may not be what is served.
        Miss::DotSegments => ErrorKind::HttpRequestError,
        _ => ErrorKind::DestinationNotFound,
    };
    let routing_error = RoutingError::Miss {
        miss,
        host: host.as_str().to_owned(),
        path: path.to_owned(),
    };
    Error::new(kind, routing_error)
}

impl RoutedRequest {
    /// Sends the request off.
    pub(crate) fn forward<B>(
        self,
        request: Request<B>,
        pool: Arc<ResolvedPool>,
    ) -> (Forwarding, ResponseContext)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let forwarding = match self.extra_headers {
            Some(extra_headers) => {
                pool.connections
                    .send_prepared(request, extra_headers, &self.options)
            }
            None => pool.connections.send(request, &self.options),
        };
        let context = ResponseContext {
            target: self.target,
            pool,
            public: self.public,
        };
        (forwarding, context)
    }
}
