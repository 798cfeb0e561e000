//! The gateway as seen by one client connection.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Version};
use http_body::Body as HttpBody;
use mesh_ingress_core::BoxError;
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::{
    Client, InvalidRequest, Inventory, PreparedClient, PreparedFields, RequestHost,
};
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

/// Remembers a host that has been read, and what all requests are told of the client.
#[derive(Debug, Default)]
pub(crate) struct LastHost {
    last: ArcSwapOption<RequestHost>,
    /// Requests in a row that were for another host than the one remembered.
    missed: AtomicU32,
    /// `None` in it where the policy has nothing to prepare.
    client: OnceLock<Option<PreparedClient>>,
}

impl LastHost {
    /// Whom a request is meant for.
    pub(crate) fn of<B>(
        &self,
        request: &Request<B>,
        fields: &Inventory,
    ) -> Result<RequestHost, InvalidRequest> {
        let (uri, version) = (request.uri(), request.version());
        let field = request.headers().get(HOST);
        // Said once, in the place where each version says it.
        let said = match (version, uri.authority(), field) {
            (Version::HTTP_11, None, Some(field)) if !fields.repeats_host() => field.as_bytes(),
            (Version::HTTP_2 | Version::HTTP_3, Some(authority), None) => {
                authority.as_str().as_bytes()
            }
            _ => return RequestHost::of(uri, request.headers(), version),
        };
        let missed = self.missed.load(Ordering::Relaxed);
        if let Some(last) = &*self.last.load()
            && last.value() == said
        {
            if missed > 1 {
                self.missed.store(1, Ordering::Relaxed);
            }
            return Ok(RequestHost::clone(last));
        }
        let host = RequestHost::of(uri, request.headers(), version)?;
        if is_worth_remembering(missed) {
            self.last.store(Some(Arc::new(host.clone())));
        }
        self.missed.store(missed.wrapping_add(1), Ordering::Relaxed);
        Ok(host)
    }

    /// What there is prepared for a request of this client, if it may have that; `prepare` does it,
    /// once.
    pub(crate) fn prepared(
        &self,
        fields: &Inventory,
        version: Version,
        host: &RequestHost,
        prepare: impl FnOnce() -> Option<PreparedClient>,
    ) -> Option<PreparedFields> {
        let client = self.client.get_or_init(prepare).as_ref();
        let client = client.filter(|client| client.suit(fields, version))?;
        Some(client.for_host(host))
    }
}

/// Many connections have one request only: theirs is not. Those of a load balancer may be for a
/// thousand hosts in turn, and to remember each would cost more than to read the next.
fn is_worth_remembering(missed: u32) -> bool {
    match missed {
        0 => false,
        1..8 => true,
        missed => missed.is_multiple_of(32),
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

#[cfg(test)]
mod tests {
    use super::is_worth_remembering;

    #[test]
    fn what_is_remembered_of_a_thousand_hosts_is_little() {
        let remembered: Vec<u32> = (0..200)
            .filter(|missed| is_worth_remembering(*missed))
            .collect();
        assert_eq!(remembered, [1, 2, 3, 4, 5, 6, 7, 32, 64, 96, 128, 160, 192]);
    }
}
