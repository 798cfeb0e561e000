//! The future of a forwarded request.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request};
use mesh_ingress_core::Error;
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;
use tokio::sync::OwnedSemaphorePermit;

use super::attempt::Attempt;
use super::timeouts::Deadline;
use super::{Exchange, Reply, Shared, grpc};
use crate::body::RequestBody;
use crate::pool::Pool;
use crate::retry;

/// Resolves to the head of the upstream's response. Dropping it cancels the request.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    state: State,
    in_flight: Option<OwnedSemaphorePermit>,
}

enum State {
    Failed(Option<Error>),
    Attempt(Attempt),
    /// With a retry policy.
    Retrying(Pin<Box<dyn Future<Output = Reply> + Send>>),
}

impl ResponseFuture {
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            state: State::Failed(Some(error)),
            in_flight: None,
        }
    }

    /// Sends a request, and retries it if the settings allow. `in_flight` is held until the
    /// response is complete.
    pub(crate) fn send(
        pool: &Arc<Pool>,
        shared: &Arc<Shared>,
        mut request: Request<RequestBody>,
        extra_headers: Option<PreparedFields>,
        options: &ConnectionOptions,
        in_flight: Option<OwnedSemaphorePermit>,
    ) -> Self {
        // The client's connection can be handed over only once.
        let once = options.upgrade.is_some() || request.method() == Method::CONNECT;
        let timeout = grpc::timeout(&request, options, pool.settings.request_timeout);
        let deadline = timeout.map(Deadline::after);
        let own_pool = Arc::clone(pool);
        if pool.settings.retry.is_some() && !once {
            let retried = retried(
                own_pool,
                Arc::clone(shared),
                request,
                extra_headers,
                options.clone(),
                deadline,
            );
            return Self {
                state: State::Retrying(Box::pin(retried)),
                in_flight,
            };
        }
        let exchange = || {
            Exchange::new(
                own_pool,
                shared,
                &mut request,
                extra_headers,
                options,
                deadline,
            )
        };
        // The attempt is built in place: it is large, and each move would copy it.
        match Attempt::begin(pool, exchange) {
            Ok(attempt) => Self {
                state: State::Attempt(attempt),
                in_flight,
            },
            Err(error) => Self::failed(error),
        }
    }
}

async fn retried(
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    request: Request<RequestBody>,
    extra_headers: Option<PreparedFields>,
    options: ConnectionOptions,
    deadline: Option<Deadline>,
) -> Reply {
    let attempt = |mut request| {
        let own_pool = Arc::clone(&pool);
        let extra_headers = extra_headers.clone();
        let exchange = || {
            Exchange::new(
                own_pool,
                &shared,
                &mut request,
                extra_headers,
                &options,
                deadline,
            )
        };
        let begun = Attempt::begin(&pool, exchange);
        async move {
            let mut attempt = begun?;
            poll_fn(|cx| attempt.poll(cx)).await
        }
    };
    match (&pool.settings.retry, &pool.budget) {
        (Some(policy), Some(budget)) => {
            let deadline = deadline.map(|deadline| deadline.at);
            retry::send(policy, budget, request, deadline, attempt).await
        }
        _ => attempt(request).await,
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
            State::Attempt(attempt) => attempt.poll(cx),
            State::Retrying(retried) => retried.as_mut().poll(cx),
        };
        match this.in_flight {
            None => polled,
            Some(_) => polled.map_ok(|response| {
                let permit = this.in_flight.take();
                response.map(|body| body.with_in_flight_permit(permit))
            }),
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
