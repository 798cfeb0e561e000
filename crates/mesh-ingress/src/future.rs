//! The future of a request: never an error, always a response.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Error};
use mesh_ingress_forward::{ResponseBody, ResponseFuture as Forwarding};
use mesh_ingress_resolve::Ready;
use pin_project_lite::pin_project;

use crate::mesh::Inner;
use crate::request::RoutedRequest;
use crate::respond::ErrorFormat;
use crate::response::ResponseContext;

pin_project! {
    /// Resolves to a response: the upstream's, or a local reply that tells what failed.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<B> {
        #[pin]
        state: State<B>,
        // Those of the request, for the response.
        extensions: Extensions,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateOwned]
    enum State<B> {
        // Rare states are boxed: every state is as large as the largest, and moved as such.
        Answered {
            response: Option<Box<Response<ResponseBody>>>,
        },
        Resolving {
            #[pin]
            ready: Ready,
            waiting: Option<Box<(RoutedRequest, Request<B>)>>,
            inner: Arc<Inner>,
            format: ErrorFormat,
        },
        Forwarding {
            #[pin]
            forwarding: Forwarding,
            context: ResponseContext,
            format: ErrorFormat,
        },
        Done,
    }
}

impl<B> ResponseFuture<B> {
    pub(crate) fn failed(
        inner: &Inner,
        format: ErrorFormat,
        error: &Error,
        extensions: Extensions,
    ) -> Self {
        Self::ready(inner.settings.responder.respond(format, error), extensions)
    }

    pub(crate) fn ready(response: Response<ResponseBody>, extensions: Extensions) -> Self {
        Self {
            state: State::Answered {
                response: Some(Box::new(response)),
            },
            extensions,
        }
    }

    pub(crate) fn resolving(
        inner: &Arc<Inner>,
        format: ErrorFormat,
        ready: Ready,
        waiting: (RoutedRequest, Request<B>),
        extensions: Extensions,
    ) -> Self {
        Self {
            state: State::Resolving {
                ready,
                waiting: Some(Box::new(waiting)),
                inner: Arc::clone(inner),
                format,
            },
            extensions,
        }
    }

    #[inline]
    pub(crate) fn forwarding(
        format: ErrorFormat,
        (forwarding, context): (Forwarding, ResponseContext),
        extensions: Extensions,
    ) -> Self {
        Self {
            state: State::Forwarding {
                forwarding,
                context,
                format,
            },
            extensions,
        }
    }
}

impl<B> Future for ResponseFuture<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    // A response is large, and a call would copy it.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Answered { response } => match response.take() {
                    Some(mut response) => {
                        carry_over(this.extensions, &mut response);
                        return Poll::Ready(Ok(*response));
                    }
                    None => return Poll::Pending,
                },
                StateProj::Resolving {
                    ready,
                    waiting,
                    inner,
                    format,
                } => match (ready!(ready.poll(cx)), waiting.take()) {
                    (Ok(upstream), Some(waiting)) => {
                        let (routed, request) = *waiting;
                        let forwarder = &inner.settings.forwarder;
                        let pool = routed.target.resolve_pool(forwarder, None, upstream);
                        let forwarding = routed.forward(request, pool);
                        Self::forwarding(*format, forwarding, Extensions::new()).state
                    }
                    (Err(error), _) => {
                        Self::failed(inner, *format, &error, Extensions::new()).state
                    }
                    (Ok(_), None) => return Poll::Pending,
                },
                StateProj::Forwarding {
                    forwarding,
                    context,
                    format,
                } => {
                    let settings = &context.target.settings;
                    // In place: a response is large, and each move would copy it.
                    let mut forwarded = forwarding.poll(cx);
                    let replacement = match &mut forwarded {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(response)) => {
                            let refused = context.succeeded(response).err();
                            if refused.is_none() {
                                carry_over(this.extensions, response);
                            }
                            refused.map(|error| settings.responder.respond(*format, &error))
                        }
                        Poll::Ready(Err(error)) => {
                            context.failed(error);
                            Some(settings.responder.respond(*format, error))
                        }
                    };
                    this.state.set(State::Done);
                    if let Some(mut response) = replacement {
                        carry_over(this.extensions, &mut response);
                        return Poll::Ready(Ok(response));
                    }
                    return match forwarded {
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

/// Puts the extensions of the request into the response.
#[inline]
fn carry_over(of_request: &mut Extensions, response: &mut Response<ResponseBody>) {
    if of_request.is_empty() {
        return;
    }
    std::mem::swap(of_request, response.extensions_mut());
    if !of_request.is_empty() {
        let of_response = std::mem::take(of_request);
        response.extensions_mut().extend(of_response);
    }
}

impl<B> fmt::Debug for ResponseFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
