//! Services that a server can serve.

use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use mesh_ingress_core::BoxError;
use tower_service::Service;

use crate::RequestBody;

/// A [`tower_service::Service`] that a server can serve: `MeshIngress`, an `axum::Router`, or anything else
/// that takes `Request<RequestBody>`, returns a `Response` with any body, and clones.
///
/// It is implemented for all of them; there is nothing to implement by hand. Each connection gets a clone.
/// An error of the service is answered with 500 and logged.
pub trait HttpService:
    Service<
        Request<RequestBody>,
        Response = Response<Self::ResponseBody>,
        Error = Self::ServiceError,
        Future = Self::ResponseFuture,
    > + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type ResponseBody: Body<Data = Self::Data, Error = Self::BodyError> + Send + 'static;
    /// The pieces of that body.
    type Data: Buf + Send;
    /// The error of that body.
    type BodyError: Into<BoxError>;
    /// The error of the service.
    type ServiceError: Into<BoxError>;
    /// Resolves to the response.
    type ResponseFuture: Future<Output = Result<Response<Self::ResponseBody>, Self::ServiceError>>
        + Send
        + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type ResponseBody = B;
    type Data = B::Data;
    type BodyError = B::Error;
    type ServiceError = S::Error;
    type ResponseFuture = S::Future;
}

/// Calls a service that was not ready when the request came.
// Out of line: a service that is always ready is inlined where it is called at once, and only there.
#[cold]
#[inline(never)]
pub(crate) fn call_late<S: HttpService>(
    service: &mut S,
    request: Box<Request<RequestBody>>,
) -> S::ResponseFuture {
    service.call(*request)
}
