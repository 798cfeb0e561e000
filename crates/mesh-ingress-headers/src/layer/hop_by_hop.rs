//! [`hop_by_hop::strip`] as a layer, for requests and responses.

use std::task::{Context, Poll};

use http::{Request, Response, Version};
use tower_layer::Layer;
use tower_service::Service;

use super::{HopByHopFuture, inner_service};
use crate::hop_by_hop;

/// Removes hop-by-hop fields from requests and responses.
///
/// Options that the upstream's connection needs, too, are written for the request's version: `TE:
/// trailers`, and in HTTP/1.1 `Upgrade` with the `Connection` that names them. A 101 keeps its
/// `Upgrade`. The [`ConnectionOptions`](crate::ConnectionOptions) are left in the request's extensions.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct HopByHopLayer;

impl HopByHopLayer {
    /// The layer has no settings.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for HopByHopLayer {
    type Service = HopByHopService<S>;

    fn layer(&self, inner: S) -> HopByHopService<S> {
        HopByHopService { inner }
    }
}

/// Made by [`HopByHopLayer`].
#[derive(Clone, Copy, Debug)]
pub struct HopByHopService<S> {
    inner: S,
}

inner_service!(HopByHopService);

impl<S, B, R> Service<Request<B>> for HopByHopService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = HopByHopFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let options = hop_by_hop::strip(request.headers_mut());
        match request.version() {
            // RFC 9110 §7.8, §10.1.4: HTTP/1.0 has neither.
            Version::HTTP_09 | Version::HTTP_10 => {}
            Version::HTTP_11 => options.write_http1(request.headers_mut()),
            _ => options.write_http2(request.headers_mut()),
        }
        request.extensions_mut().insert(options);
        HopByHopFuture {
            inner: self.inner.call(request),
        }
    }
}
