//! The future of a request: never an error, always a response.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
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
        // What is rare is in boxes: all are as large as the largest, and moved as such.
        Answered {
            response: Option<Box<Response<ResponseBody>>>,
        },
        Resolving {
            #[pin]
            ready: Ready,
            waiting: Option<Box<(Addressed, Request<B>)>>,
            inner: Arc<Inner>,
            dialect: Dialect,
        },
        Forwarding {
            #[pin]
            forwarding: Forwarding,
            sent: Sent,
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
                response: Some(Box::new(response)),
            },
        }
    }

    pub(crate) fn resolving(
        inner: &Arc<Inner>,
        dialect: Dialect,
        ready: Ready,
        waiting: (Addressed, Request<B>),
    ) -> Self {
        Self {
            state: State::Resolving {
                ready,
                waiting: Some(Box::new(waiting)),
                inner: Arc::clone(inner),
                dialect,
            },
        }
    }

    pub(crate) fn forwarding(dialect: Dialect, (forwarding, sent): (Forwarding, Sent)) -> Self {
        Self {
            state: State::Forwarding {
                forwarding,
                sent,
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
                    Some(response) => return Poll::Ready(Ok(*response)),
                    None => return Poll::Pending,
                },
                StateProj::Resolving {
                    ready,
                    waiting,
                    inner,
                    dialect,
                } => match (ready!(ready.poll(cx)), waiting.take()) {
                    (Ok(upstream), Some(waiting)) => {
                        let (addressed, request) = *waiting;
                        let forwarder = &inner.settings.forwarder;
                        let reach = addressed.target.reach(forwarder, None, upstream);
                        let forwarding = addressed.forward(request, reach);
                        Self::forwarding(*dialect, forwarding).state
                    }
                    (Err(error), _) => Self::failed(inner, *dialect, &error).state,
                    (Ok(_), None) => return Poll::Pending,
                },
                StateProj::Forwarding {
                    forwarding,
                    sent,
                    dialect,
                } => {
                    let settings = &sent.target.settings;
                    // In place: a response is large, and each hand would copy it.
                    let mut answer = forwarding.poll(cx);
                    let instead = match &mut answer {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(response)) => {
                            let refused = sent.succeeded(response).err();
                            refused.map(|error| settings.responder.respond(*dialect, &error))
                        }
                        Poll::Ready(Err(error)) => {
                            sent.failed(error);
                            Some(settings.responder.respond(*dialect, error))
                        }
                    };
                    this.state.set(State::Done);
                    if let Some(response) = instead {
                        return Poll::Ready(Ok(response));
                    }
                    return match answer {
                        Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                        _ => Poll::Pending,
                    };
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
