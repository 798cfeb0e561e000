//! The gateway as seen by one client connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use mesh_ingress_core::BoxError;
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::{Client, InvalidRequest, Inventory, PreparedFields, RequestHost};
use tower_service::Service;

use crate::{MeshIngress, ResponseFuture, request};

/// A [`MeshIngress`] that knows its client. Made by [`MeshIngress::for_connection`].
#[derive(Clone, Debug)]
pub struct MeshConnection {
    mesh: MeshIngress,
    client: Client,
    /// What the last request was meant for: as a rule the next one is, too.
    host: Arc<LastHost>,
}

/// Remembers a host that has been read, and what its requests are told.
#[derive(Debug, Default)]
pub(crate) struct LastHost {
    last: ArcSwapOption<Known>,
    /// Many connections have one request only: theirs is not worth remembering.
    used: AtomicBool,
}

#[derive(Debug)]
struct Known {
    host: RequestHost,
    prepared: PreparedFields,
}

impl LastHost {
    /// Whom a request is meant for, and what there is prepared for it; `prepare` does that.
    pub(crate) fn of<B>(
        &self,
        request: &Request<B>,
        fields: &Inventory,
        prepare: impl FnOnce(&RequestHost) -> PreparedFields,
    ) -> Result<(RequestHost, Option<PreparedFields>), InvalidRequest> {
        let (uri, version) = (request.uri(), request.version());
        let field = request.headers().get(HOST);
        // Said once, in the place where each version says it.
        let said = match (version, uri.authority(), field) {
            (Version::HTTP_11, None, Some(field)) if !fields.repeats_host() => field.as_bytes(),
            (Version::HTTP_2 | Version::HTTP_3, Some(authority), None) => {
                authority.as_str().as_bytes()
            }
            _ => return Ok((RequestHost::of(uri, request.headers(), version)?, None)),
        };
        if let Some(last) = &*self.last.load()
            && last.host.value() == said
        {
            let suits = last.prepared.suit(fields, version);
            return Ok((last.host.clone(), suits.then(|| last.prepared.clone())));
        }
        let host = RequestHost::of(uri, request.headers(), version)?;
        if self.used.swap(true, Ordering::Relaxed) {
            let prepared = prepare(&host);
            let host = host.clone();
            self.last.store(Some(Arc::new(Known { host, prepared })));
        }
        Ok((host, None))
    }
}

impl MeshConnection {
    pub(crate) fn new(mesh: MeshIngress, client: Client) -> Self {
        Self {
            mesh,
            client,
            host: Arc::default(),
        }
    }

    /// Serves one request of this connection.
    pub fn handle<B>(&self, request: Request<B>) -> ResponseFuture<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        request::dispatch(self.mesh.inner(), &self.client, Some(&self.host), request)
    }
}

impl<B> Service<Request<B>> for MeshConnection
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<B> {
        self.handle(request)
    }
}
