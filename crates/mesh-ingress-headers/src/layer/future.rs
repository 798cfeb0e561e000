//! The futures of the layers' services.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Response, StatusCode};
use pin_project_lite::pin_project;

use crate::hop_by_hop;

pin_project! {
    /// The response of the service inside, or the reason why the request was not sent there.
    #[derive(Debug)]
    pub struct ResponseFuture<F, E> {
        #[pin]
        kind: Kind<F, E>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<F, E> {
        Inner { #[pin] future: F },
        Refused { error: Option<E> },
    }
}

impl<F, E> ResponseFuture<F, E> {
    pub(super) fn inner(future: F) -> Self {
        Self {
            kind: Kind::Inner { future },
        }
    }

    pub(super) fn refused(error: E) -> Self {
        Self {
            kind: Kind::Refused { error: Some(error) },
        }
    }
}

impl<F, T, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Inner { future } => future.poll(cx),
            // As futures do, it stays pending when polled again after it resolved.
            KindProj::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}

pin_project! {
    /// The response of the service inside, without its hop-by-hop fields.
    #[derive(Debug)]
    pub struct HopByHopFuture<F> {
        #[pin]
        pub(super) inner: F,
    }
}

impl<F, B, E> Future for HopByHopFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(self.project().inner.poll(cx)?);
        let options = hop_by_hop::strip(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            options.write_upgrade(response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}
