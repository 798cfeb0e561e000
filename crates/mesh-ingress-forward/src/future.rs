//! The future of a forwarded request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use mesh_ingress_core::Error;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::ResponseBody;
use crate::exchange::Exchange;

type Reply = Result<Response<ResponseBody>, Error>;

/// Resolves to the head of the upstream's response. Dropping it gives the request up.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    state: State,
    in_flight: Option<OwnedSemaphorePermit>,
}

enum State {
    Failed(Option<Error>),
    Exchange(Exchange),
    /// Where failed requests are repeated.
    Retrying(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl ResponseFuture {
    pub(crate) fn failed(error: Error) -> Self {
        Self::of(State::Failed(Some(error)))
    }

    pub(crate) fn exchange(exchange: Exchange) -> Self {
        Self::of(State::Exchange(exchange))
    }

    pub(crate) fn retrying(driven: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self::of(State::Retrying(Box::pin(driven)))
    }

    fn of(state: State) -> Self {
        let in_flight = None;
        Self { state, in_flight }
    }

    /// Holds a place among the requests in flight until the response is complete.
    pub(crate) fn counted(mut self, place: OwnedSemaphorePermit) -> Self {
        self.in_flight = Some(place);
        self
    }
}

impl Future for ResponseFuture {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let this = self.get_mut();
        let polled = match &mut this.state {
            State::Failed(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            State::Exchange(exchange) => exchange.poll(cx),
            State::Retrying(driven) => driven.as_mut().poll(cx),
        };
        match this.in_flight {
            None => polled,
            Some(_) => polled.map_ok(|response| {
                let place = this.in_flight.take();
                response.map(|body| body.counted(place))
            }),
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
