//! [`ForwardedPolicy`] as a layer.

use std::task::{Context, Poll};

use http::Request;
use mesh_ingress_core::Error;
use tower_layer::Layer;
use tower_service::Service;

use super::{ResponseFuture, client, inner_service};
use crate::{ForwardedPolicy, RequestHost};

/// Applies a [`ForwardedPolicy`] to requests, `Via` included.
///
/// Must come before anything that rewrites `Host`. It leaves the [`RequestHost`] in the request's
/// extensions for later layers, and uses one that is already there. A request without a valid
/// authority, or one that loops, is refused.
#[derive(Clone, Debug)]
pub struct ForwardedLayer {
    policy: ForwardedPolicy,
}

impl ForwardedLayer {
    /// Applies this policy.
    #[must_use]
    pub fn new(policy: ForwardedPolicy) -> Self {
        Self { policy }
    }
}

impl<S> Layer<S> for ForwardedLayer {
    type Service = ForwardedService<S>;

    fn layer(&self, inner: S) -> ForwardedService<S> {
        ForwardedService {
            inner,
            policy: self.policy.clone(),
        }
    }
}

/// Made by [`ForwardedLayer`].
#[derive(Clone, Debug)]
pub struct ForwardedService<S> {
    inner: S,
    policy: ForwardedPolicy,
}

inner_service!(ForwardedService);

impl<S> ForwardedService<S> {
    fn apply<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let client = client(request.extensions());
        let version = request.version();
        let host = match request.extensions().get::<RequestHost>() {
            Some(host) => host.clone(),
            None => {
                let host = RequestHost::of(request.uri(), request.headers(), version)?;
                request.extensions_mut().insert(host.clone());
                host
            }
        };
        let headers = request.headers_mut();
        self.policy.apply(headers, &client, &host);
        if let Some(via) = self.policy.via() {
            via.pass(headers, version)?;
        }
        Ok(())
    }
}

impl<S, B> Service<Request<B>> for ForwardedService<S>
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
        match self.apply(&mut request) {
            Ok(()) => ResponseFuture::inner(self.inner.call(request)),
            Err(error) => ResponseFuture::refused(error.into()),
        }
    }
}
