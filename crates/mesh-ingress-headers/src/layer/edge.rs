//! [`EdgeHygiene`] as a layer.

use std::task::{Context, Poll};

use http::Request;
use mesh_ingress_core::Error;
use tower_layer::Layer;
use tower_service::Service;

use super::{ResponseFuture, client, inner_service};
use crate::{EdgeHygiene, TrustedPeers};

/// Applies [`EdgeHygiene`] to requests.
#[derive(Clone, Debug)]
pub struct EdgeHygieneLayer {
    hygiene: EdgeHygiene,
    trusted: TrustedPeers,
}

impl EdgeHygieneLayer {
    /// Applies these rules; `trusted` peers may send more fields than others.
    #[must_use]
    pub fn new(hygiene: EdgeHygiene, trusted: TrustedPeers) -> Self {
        Self { hygiene, trusted }
    }
}

impl<S> Layer<S> for EdgeHygieneLayer {
    type Service = EdgeHygieneService<S>;

    fn layer(&self, inner: S) -> EdgeHygieneService<S> {
        EdgeHygieneService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Made by [`EdgeHygieneLayer`].
#[derive(Clone, Debug)]
pub struct EdgeHygieneService<S> {
    inner: S,
    layer: EdgeHygieneLayer,
}

inner_service!(EdgeHygieneService);

impl<S, B> Service<Request<B>> for EdgeHygieneService<S>
where
    S: Service<Request<B>>,
    S::Error: From<Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let EdgeHygieneLayer { hygiene, trusted } = &self.layer;
        let client = client(request.extensions());
        let trusted = client.ip().is_some_and(|ip| trusted.contains(ip));
        match hygiene.apply(request.headers_mut(), trusted) {
            Ok(()) => ResponseFuture::inner(self.inner.call(request)),
            Err(error) => ResponseFuture::refused(Error::from(error).into()),
        }
    }
}
