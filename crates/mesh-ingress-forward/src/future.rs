//! The future of a forwarded request.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use mesh_ingress_core::{Error, Protocol};
use mesh_ingress_headers::framing::check_response;
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::body::{Progress, RequestBody, ResponseBody};
use crate::error::Failure;
use crate::pool::Pool;
use crate::tunnel::{self, Tunnels, Upgrade};
use crate::{h1, h2, prepare};

type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

pin_project! {
    /// Resolves to the head of the upstream's response. Dropping it gives the request up.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        Failed {
            error: Option<Error>,
        },
        Http1 {
            exchange: Http1,
            // Only made when the response is not there at once.
            #[pin]
            timer: Option<Sleep>,
        },
        Http2 {
            future: BoxFuture<Response<ResponseBody>>,
        },
    }
}

impl ResponseFuture {
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }

    pub(crate) fn send(
        pool: Arc<Pool>,
        tunnels: Tunnels,
        mut request: Request<RequestBody>,
        options: &ConnectionOptions,
    ) -> Self {
        match pool.upstream.http_protocol() {
            Protocol::Http2 => {
                let announce = options.te_trailers && request.version() < Version::HTTP_2;
                if let Err(error) = prepare::http2(&mut request, options) {
                    return Self::failed(error);
                }
                let future = Box::pin(http2(pool, request, announce));
                Self {
                    state: State::Http2 { future },
                }
            }
            // Protocols to come are spoken as what every origin understands.
            _ => {
                let upgrade = Upgrade::of(&mut request, options);
                prepare::http1(&mut request, options);
                if let Some(upgrade) = &upgrade {
                    prepare::upgrade(request.headers_mut(), upgrade.token.clone());
                }
                Self {
                    state: State::Http1 {
                        exchange: Http1::new(pool, tunnels, request, upgrade),
                        timer: None,
                    },
                }
            }
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Failed { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
            StateProj::Http1 { exchange, timer } => exchange.poll(timer, cx),
            StateProj::Http2 { future } => future.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

async fn http2(
    pool: Arc<Pool>,
    request: Request<RequestBody>,
    announce: bool,
) -> Result<Response<ResponseBody>, Error> {
    let mut response = h2::exchange(&pool, request).await?;
    check_response(response.status(), response.version(), response.headers())?;
    prepare::response(response.headers_mut());
    if announce {
        prepare::announce_grpc_trailers(response.headers_mut());
    }
    Ok(response.map(|stream| ResponseBody::http2(stream).with_timeout(&pool)))
}

/// One exchange on an HTTP/1.1 connection, from finding one to the response's head.
struct Http1 {
    pool: Arc<Pool>,
    tunnels: Tunnels,
    upgrade: Option<Upgrade>,
    progress: Option<Arc<Progress>>,
    step: Step,
}

enum Step {
    /// Opening a connection; the request goes out as soon as it is there.
    Connecting(BoxFuture<Box<h1::Connection>>),
    Waiting(Box<h1::Connection>),
    Done,
}

impl Http1 {
    fn new(
        pool: Arc<Pool>,
        tunnels: Tunnels,
        request: Request<RequestBody>,
        upgrade: Option<Upgrade>,
    ) -> Self {
        let progress = request.body().progress();
        let step = match pool.take_idle() {
            Some(mut connection) => {
                connection.send(request);
                Step::Waiting(connection)
            }
            None => Step::connect(&pool, request),
        };
        Self {
            pool,
            tunnels,
            upgrade,
            progress,
            step,
        }
    }

    fn poll(
        &mut self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResponseBody>, Error>> {
        loop {
            match &mut self.step {
                Step::Connecting(connecting) => {
                    let connection = ready!(connecting.as_mut().poll(cx))?;
                    self.step = Step::Waiting(connection);
                }
                Step::Waiting(connection) => {
                    let Poll::Ready(reply) = connection.poll_reply(cx) else {
                        ready!(self.poll_overdue(timer.as_mut(), cx))?;
                        continue;
                    };
                    let Step::Waiting(connection) = std::mem::replace(&mut self.step, Step::Done)
                    else {
                        return Poll::Pending;
                    };
                    match self.replied(connection, reply) {
                        Ok(response) => return Poll::Ready(response),
                        Err(again) => self.step = again,
                    }
                }
                Step::Done => return Poll::Pending,
            }
        }
    }

    /// Ready with an error when the response is overdue; ready without one to look again.
    fn poll_overdue(
        &self,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let Some(timeout) = self.pool.settings.response_header_timeout else {
            return Poll::Pending;
        };
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(timeout)));
        }
        let Some(mut sleep) = timer.as_pin_mut() else {
            return Poll::Pending;
        };
        ready!(sleep.as_mut().poll(cx));
        let again = h2::overdue(&self.pool, self.progress.as_deref(), timeout)?;
        sleep.reset(again);
        Poll::Ready(Ok(()))
    }

    /// What comes of a reply: the outcome, or the step to try once more with.
    fn replied(
        &mut self,
        mut connection: Box<h1::Connection>,
        reply: h1::Reply,
    ) -> Result<Result<Response<ResponseBody>, Error>, Step> {
        let mut error = match reply {
            Ok(response) => return Ok(self.head(connection, response)),
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        // A connection that was reused may have been closed by the upstream just when the request
        // went out. Asked again on a new one, nobody notices; a second failure is a real one.
        if connection.is_reused() {
            let gone = error.is_incomplete_message()
                || error.is_canceled()
                || error.is_closed()
                || is_io(&error);
            let replay = || gone.then(|| connection.take_replay()).flatten();
            if let Some(request) = unsent.or_else(replay) {
                tracing::debug!(upstream = %self.pool.upstream.addr(), "kept connection was closed, connecting anew");
                return Err(Step::connect(&self.pool, request));
            }
        }
        Ok(Err(h1::failed(&self.pool, error)))
    }

    fn head(
        &mut self,
        connection: Box<h1::Connection>,
        mut response: Response<Incoming>,
    ) -> Result<Response<ResponseBody>, Error> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(connection, response);
        }
        // In doubt about where the response ends, the connection goes with it.
        check_response(response.status(), response.version(), response.headers())?;
        if response.status() == StatusCode::NO_CONTENT {
            // A zero is harmless and still not allowed (RFC 9110 §8.6).
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        prepare::response(response.headers_mut());
        // Whatever version the upstream speaks, this end speaks its own (RFC 9110 §2.5).
        *response.version_mut() = Version::HTTP_11;
        let pool = Arc::clone(&self.pool);
        Ok(response.map(|incoming| {
            ResponseBody::http1(h1::ResponseStream::new(incoming, connection, pool))
                .with_timeout(&self.pool)
        }))
    }

    fn switch(
        &mut self,
        connection: Box<h1::Connection>,
        response: Response<Incoming>,
    ) -> Result<Response<ResponseBody>, Error> {
        let addr = self.pool.upstream.addr();
        let Some(upgrade) = self.upgrade.take() else {
            return Err(Failure::UnsolicitedUpgrade { addr }.into_error());
        };
        let token = upgrade.accepted(&self.pool, tunnel::token(response.headers()))?;
        let (stream, read) = connection
            .into_upgraded()
            .ok_or_else(|| Failure::UpgradeLost { addr }.into_error())?;
        self.tunnels.open(upgrade.client, stream, read);
        let mut response = response.map(|_| ResponseBody::empty());
        prepare::response(response.headers_mut());
        prepare::upgrade(response.headers_mut(), token);
        Ok(response)
    }
}

impl Step {
    fn connect(pool: &Arc<Pool>, request: Request<RequestBody>) -> Self {
        let pool = Arc::clone(pool);
        Self::Connecting(Box::pin(async move {
            let mut connection = h1::connect(pool).await?;
            connection.send(request);
            Ok(connection)
        }))
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}
