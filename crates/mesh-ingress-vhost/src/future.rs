//! The future of the layer's service.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use mesh_ingress_core::{Upstream, Vhost};
use pin_project_lite::pin_project;

use crate::{PublicIdentity, restore};

pin_project! {
    /// The response of the inner service, with the public identity restored.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        restore: Option<RestoreContext>,
    }
}

/// What [`restore`] needs to know of the request.
#[derive(Debug)]
pub(crate) struct RestoreContext {
    pub(crate) vhost: Vhost,
    pub(crate) public: PublicIdentity,
    pub(crate) upstream: Option<Upstream>,
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, restore: Option<RestoreContext>) -> Self {
        Self { inner, restore }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx)?);
        if let Some(context) = this.restore.take() {
            // The address is usually found by a layer inside this one.
            let found = response.extensions().get::<Upstream>().cloned();
            let upstream = found.or(context.upstream);
            let addresses = upstream.as_ref().map_or(&[][..], Upstream::addresses);
            restore(
                response.headers_mut(),
                &context.vhost,
                addresses,
                &context.public,
            );
        }
        Poll::Ready(Ok(response))
    }
}
