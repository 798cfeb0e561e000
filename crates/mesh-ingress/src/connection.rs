//! The gateway as seen by one client connection.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_ingress_core::BoxError;
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::Client;
use tower_service::Service;

use crate::{MeshIngress, ResponseFuture, request};

/// A [`MeshIngress`] that knows its client. Made by [`MeshIngress::for_connection`].
#[derive(Clone, Debug)]
pub struct MeshConnection {
    mesh: MeshIngress,
    client: Client,
}

impl MeshConnection {
    pub(crate) fn new(mesh: MeshIngress, client: Client) -> Self {
        Self { mesh, client }
    }

    /// Serves one request of this connection.
    pub fn handle<B>(&self, request: Request<B>) -> ResponseFuture<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        request::dispatch(self.mesh.inner(), &self.client, request)
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
