//! What the service's calls resolve with.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use mesh_ingress_core::{Upstream, Vhost};
use pin_project_lite::pin_project;

use crate::{PublicIdentity, restore};

pin_project! {
    /// The response of the service inside, with the public identity put back.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        restoring: Option<Restoring>,
    }
}

/// What was said, and what is to be said instead.
#[derive(Debug)]
pub(crate) struct Restoring {
    pub(crate) said: Vhost,
    pub(crate) public: PublicIdentity,
    pub(crate) upstream: Option<Upstream>,
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, restoring: Option<Restoring>) -> Self {
        Self { inner, restoring }
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
        if let Some(restoring) = this.restoring.take() {
            // Inside of the vhost's layer is where the address is found out.
            let found = response.extensions().get::<Upstream>().cloned();
            let upstream = found.or(restoring.upstream);
            let addresses = upstream.as_ref().map_or(&[][..], Upstream::addresses);
            restore(
                response.headers_mut(),
                &restoring.said,
                addresses,
                &restoring.public,
            );
        }
        Poll::Ready(Ok(response))
    }
}
