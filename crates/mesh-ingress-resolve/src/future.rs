//! The response of [`ServiceUpstream`](crate::ServiceUpstream).

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Request;
use mesh_ingress_core::{Error, ErrorKind, Protocol};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::ready::Waiting;
use crate::spread::Backend;
use crate::watch::Pick;
use crate::{InFlight, Watch};

pin_project! {
    /// The future of [`ServiceUpstream`](crate::ServiceUpstream).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Calling {
            #[pin]
            response: S::Future,
            sent: Sent,
        },
        // Boxed: only the first requests of a target come here, and all pay for the size.
        Cold {
            cold: Pin<Box<Cold<S, B>>>,
        },
        Failed {
            error: Option<Error>,
        },
    }
}

pin_project! {
    struct Cold<S, B> {
        #[pin]
        waiting: Waiting,
        // There until the answer is.
        held: Option<Held<S, B>>,
    }
}

/// A request that waits, and what it waits to be given to.
struct Held<S, B> {
    target: Target,
    service: S,
    request: Request<B>,
}

/// Where requests are to go.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) watch: Watch,
    pub(crate) protocol: Option<Protocol>,
}

/// Where one went.
#[derive(Debug)]
struct Sent {
    watch: Watch,
    address: SocketAddr,
    backend: Option<Arc<Backend>>,
    _in_flight: Option<InFlight>,
}

impl Target {
    pub(crate) fn call<S, B>(
        self,
        service: &mut S,
        mut request: Request<B>,
        pick: Pick,
    ) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        let in_flight = InFlight::of(&pick);
        let Pick {
            mut upstream,
            backend,
            ..
        } = pick;
        if let Some(protocol) = self.protocol {
            upstream = upstream.protocol(protocol);
        }
        if let Some(in_flight) = &in_flight {
            request.extensions_mut().insert(in_flight.clone());
        }
        let sent = Sent {
            watch: self.watch,
            address: upstream.addr(),
            backend,
            _in_flight: in_flight,
        };
        request.extensions_mut().insert(upstream);
        ResponseFuture {
            state: State::Calling {
                response: service.call(request),
                sent,
            },
        }
    }
}

impl Sent {
    fn report<T>(&self, result: &Result<T, Error>) {
        match result {
            Ok(_) => {
                if let Some(backend) = &self.backend {
                    backend.succeeded();
                }
            }
            Err(error) if is_unreachable(error) => self.watch.report_failure(self.address),
            Err(_) => {}
        }
    }
}

/// Whether an error says that nothing was to be reached at the address. A connection that broke
/// later is no sign of that.
fn is_unreachable(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionTimeout
            | ErrorKind::DestinationIpUnroutable
    )
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(crate) fn waiting(target: Target, service: S, request: Request<B>) -> Self {
        let cold = Cold {
            waiting: Waiting::new(target.watch.clone()),
            held: Some(Held {
                target,
                service,
                request,
            }),
        };
        Self {
            state: State::Cold {
                cold: Box::pin(cold),
            },
        }
    }

    pub(crate) fn failed(error: Error) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    S::Error: Into<Error>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Calling { response, sent } => {
                    let result = ready!(response.poll(cx)).map_err(Into::into);
                    sent.report(&result);
                    return Poll::Ready(result);
                }
                StateProj::Cold { cold } => {
                    let cold = cold.as_mut().project();
                    let answer = ready!(cold.waiting.poll(cx));
                    match (answer, cold.held.take()) {
                        (Ok(pick), Some(mut held)) => {
                            held.target.call(&mut held.service, held.request, pick)
                        }
                        (Err(error), _) => return Poll::Ready(Err(error)),
                        // Polled after it was done.
                        (Ok(_), None) => return Poll::Pending,
                    }
                }
                StateProj::Failed { error } => {
                    return error
                        .take()
                        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
            };
            state.set(next.state);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Cold { .. } => "waiting for an address",
            State::Failed { .. } => "failed",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
