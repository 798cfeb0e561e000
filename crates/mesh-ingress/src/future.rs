//! The future of a request: never an error, always a response.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error};
use mesh_ingress_forward::{ResponseBody, ResponseFuture as Forwarding};
use mesh_ingress_resolve::Ready;
use pin_project_lite::pin_project;

use crate::mesh::Inner;
use crate::request::Addressed;
use crate::respond::Dialect;
use crate::response::Sent;

pin_project! {
    /// Resolves to the response, be it the upstream's or one that says what failed.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<B> {
        Answered {
            response: Option<Response<ResponseBody>>,
        },
        Resolving {
            #[pin]
            ready: Ready,
            addressed: Option<Addressed<B>>,
            inner: Arc<Inner>,
            dialect: Dialect,
        },
        Forwarding {
            #[pin]
            forwarding: Forwarding,
            sent: Sent,
            inner: Arc<Inner>,
            dialect: Dialect,
        },
        Done,
    }
}

impl<B> ResponseFuture<B> {
    pub(crate) fn failed(inner: &Inner, dialect: Dialect, error: &Error) -> Self {
        Self::made(inner.settings.responder.respond(dialect, error))
    }

    pub(crate) fn made(response: Response<ResponseBody>) -> Self {
        Self {
            state: State::Answered {
                response: Some(response),
            },
        }
    }

    pub(crate) fn resolving(
        inner: &Arc<Inner>,
        dialect: Dialect,
        ready: Ready,
        addressed: Addressed<B>,
    ) -> Self {
        Self {
            state: State::Resolving {
                ready,
                addressed: Some(addressed),
                inner: Arc::clone(inner),
                dialect,
            },
        }
    }

    pub(crate) fn forwarding(
        inner: &Arc<Inner>,
        dialect: Dialect,
        (forwarding, sent): (Forwarding, Sent),
    ) -> Self {
        Self {
            state: State::Forwarding {
                forwarding,
                sent,
                inner: Arc::clone(inner),
                dialect,
            },
        }
    }
}

impl<B> Future for ResponseFuture<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Answered { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response)),
                    None => return Poll::Pending,
                },
                StateProj::Resolving {
                    ready,
                    addressed,
                    inner,
                    dialect,
                } => match (ready!(ready.poll(cx)), addressed.take()) {
                    (Ok(upstream), Some(addressed)) => {
                        let forwarding = addressed.forward(inner, upstream);
                        Self::forwarding(inner, *dialect, forwarding).state
                    }
                    (Err(error), _) => Self::failed(inner, *dialect, &error).state,
                    (Ok(_), None) => return Poll::Pending,
                },
                StateProj::Forwarding {
                    forwarding,
                    sent,
                    inner,
                    dialect,
                } => {
                    let returned = match ready!(forwarding.poll(cx)) {
                        Ok(response) => sent.succeeded(inner, response),
                        Err(error) => {
                            sent.failed(&error);
                            Err(error)
                        }
                    };
                    let response = returned
                        .unwrap_or_else(|error| inner.settings.responder.respond(*dialect, &error));
                    this.state.project_replace(State::Done);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Done => return Poll::Pending,
            };
            this.state.set(next);
        }
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
