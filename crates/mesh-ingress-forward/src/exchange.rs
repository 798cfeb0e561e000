//! One request and its response: a connection for it, timeouts, retries and the circuit breaker.
//!
//! [`ResponseFuture`] makes one or more attempts, each of which is an [`Exchange`] that the circuit
//! breaker of its upstream admits and counts.

mod attempt;
mod future;
mod grpc;
mod head;
mod prepare;
mod response_body;
mod shared;
mod timeouts;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, Version};
use http_body::Body as _;
use mesh_ingress_core::{Error, Protocol};
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_headers::hop_by_hop::ConnectionOptions;
use mesh_ingress_io::LazyTimer;
use tokio::time::Instant;

pub use self::future::ResponseFuture;
pub(crate) use self::grpc::is_grpc;
pub use self::response_body::ResponseBody;
pub(crate) use self::shared::Shared;
use self::timeouts::{Deadline, ResponseTimeout};
use crate::body::{Expectation, RequestBody, expects_continue, hold_for_continue};
use crate::conn::{http1, http2};
use crate::error::ForwardError;
use crate::pool::{Checkout, Http1Connection, Pool, PooledConnection};
use crate::upgrade::Upgrade;

type Reply = Result<Response<ResponseBody>, Error>;

/// How often a request is sent at most because its connection was closed under it. The last time it
/// gets a new connection, which cannot have been closed for being idle.
const MAX_SENDS: u8 = 3;

/// One exchange, from asking for a connection to the response's head.
struct Exchange {
    pool: Arc<Pool>,
    upgrade: Option<Box<PendingUpgrade>>,
    /// Fields that are added to the request's own.
    extra_headers: Option<PreparedFields>,
    flags: RequestFlags,
    /// The upstream's answer to `Expect: 100-continue`.
    expectation: Option<Expectation>,
    timeout: ResponseTimeout,
    sends: u8,
    state: State,
}

/// An exchange that may make a tunnel of its connection.
struct PendingUpgrade {
    upgrade: Upgrade,
    shared: Arc<Shared>,
}

/// Properties of the client's request that are lost when it is sent.
#[derive(Clone, Copy)]
struct RequestFlags {
    /// The client accepts trailers.
    te_trailers: bool,
    /// The client must be told of trailers in the response's head.
    announce_trailers: bool,
    /// The client holds its body back until `100 Continue`.
    expects_continue: bool,
}

enum State {
    Queued(Box<Queued>),
    Http1(Box<Http1Connection>),
    Http2(Box<Http2>),
    Failed(Option<Error>),
}

/// Waiting for a connection.
struct Queued {
    checkout: Checkout,
    request: Request<RequestBody>,
    timer: LazyTimer,
}

/// Waiting for a response on a stream.
struct Http2 {
    reply: Pin<Box<dyn Future<Output = Http2Reply> + Send>>,
    sent_at: Instant,
    timer: LazyTimer,
}

type Http2Reply = Result<Response<http2::ResponseStream<Pool>>, http2::SendError>;

impl Exchange {
    /// Takes a request, and sends it if there is a connection at once. Its hop-by-hop fields are
    /// stripped; `options` is the content of these. `deadline` is that of all attempts together.
    ///
    /// A request is large: it is passed by reference until it is kept, because each move would copy
    /// it.
    fn new(
        mut pool: Arc<Pool>,
        shared: &Arc<Shared>,
        request: &mut Request<RequestBody>,
        extra_headers: Option<PreparedFields>,
        options: &ConnectionOptions,
        deadline: Option<Deadline>,
    ) -> Result<Self, Error> {
        let client = request.version();
        let upgrade = Upgrade::of(request, options)?.map(|upgrade| {
            Box::new(PendingUpgrade {
                upgrade,
                shared: Arc::clone(shared),
            })
        });
        if let Some(pending) = &upgrade
            && !pending.upgrade.has_http2_form()
        {
            pool = http1_pool(shared, pool);
        }
        let mut exchange = Self {
            flags: RequestFlags {
                te_trailers: options.te_trailers,
                announce_trailers: options.te_trailers && client < Version::HTTP_2,
                // A request without a body skips the lookup.
                expects_continue: !request.body().is_end_stream()
                    && expects_continue(request, client),
            },
            expectation: None,
            timeout: ResponseTimeout {
                deadline,
                progress: request.body().progress(),
            },
            sends: 0,
            state: State::Failed(None),
            pool,
            upgrade,
            extra_headers,
        };
        exchange.state = exchange.begin(request);
        Ok(exchange)
    }

    fn begin(&mut self, request: &mut Request<RequestBody>) -> State {
        match self.pool.take() {
            Some(connection) => self.send(connection, request),
            None => self.queue(request),
        }
    }

    fn queue(&self, request: &mut Request<RequestBody>) -> State {
        // No connection is opened for a request that cannot be sent.
        if self.pool.is_multiplexed() && !prepare::has_authority(request) {
            return State::Failed(Some(ForwardError::NoAuthority.into_error()));
        }
        let pool = Arc::clone(&self.pool);
        let last = self.sends + 1 == MAX_SENDS;
        State::Queued(Box::new(Queued {
            checkout: if last {
                Checkout::fresh(pool)
            } else {
                Checkout::new(pool)
            },
            request: std::mem::take(request),
            timer: LazyTimer::default(),
        }))
    }

    fn send(&mut self, connection: PooledConnection, request: &mut Request<RequestBody>) -> State {
        if let (PooledConnection::Http2(stream), Some(pending)) = (&connection, &self.upgrade)
            && !stream.extended_connect()
        {
            // HTTP/1.1 can switch protocols if this upstream's HTTP/2 cannot.
            self.pool = http1_pool(&pending.shared, Arc::clone(&self.pool));
            drop(connection);
            return self.begin(request);
        }
        self.sends += 1;
        match connection {
            PooledConnection::Http1(mut connection) => {
                prepare::http1(request, self.flags.te_trailers);
                if self.flags.expects_continue {
                    self.expectation = hold_for_continue(request);
                }
                if let Some(PendingUpgrade { upgrade, .. }) = self.upgrade.as_deref() {
                    upgrade.ask_http1(request);
                }
                connection.send(std::mem::take(request), self.extra_headers.as_ref());
                State::Http1(connection)
            }
            PooledConnection::Http2(stream) => {
                if let Err(error) = prepare::http2(request, self.flags.te_trailers) {
                    return State::Failed(Some(error));
                }
                if let Some(PendingUpgrade { upgrade, .. }) = self.upgrade.as_deref() {
                    upgrade.ask_http2(request);
                }
                // Taken: a request that is handed back and sent over HTTP/1.1 has them already.
                if let Some(extra_headers) = self.extra_headers.take() {
                    extra_headers.insert_into(request.headers_mut());
                }
                let addr = self.pool.addr;
                State::Http2(Box::new(Http2 {
                    reply: Box::pin(stream.send(addr, std::mem::take(request))),
                    sent_at: Instant::now(),
                    timer: LazyTimer::default(),
                }))
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        loop {
            match &mut self.state {
                State::Queued(queued) => {
                    let connection = match queued.checkout.poll(cx) {
                        Poll::Ready(connection) => connection,
                        Poll::Pending => {
                            let Some(deadline) = self.timeout.deadline else {
                                return Poll::Pending;
                            };
                            ready!(queued.timer.poll(cx, deadline.at));
                            Err(deadline.error())
                        }
                    };
                    let mut request = std::mem::take(&mut queued.request);
                    self.state = match connection {
                        Ok(mut connection) => {
                            // It may have waited for this task to be polled.
                            if let PooledConnection::Http1(connection) = &mut connection {
                                connection.use_from(Instant::now());
                            }
                            self.send(connection, &mut request)
                        }
                        Err(error) => State::Failed(Some(error)),
                    };
                }
                State::Http1(connection) => {
                    let Poll::Ready(reply) = connection.poll_reply(cx) else {
                        let sent_at = connection.sent_at();
                        let timer = connection.timer();
                        let error = ready!(self.timeout.poll(&self.pool, sent_at, timer, cx));
                        self.state = State::Failed(Some(error));
                        continue;
                    };
                    let state = std::mem::replace(&mut self.state, State::Failed(None));
                    let State::Http1(connection) = state else {
                        return Poll::Pending;
                    };
                    let failed = match reply {
                        Ok(response) => return Poll::Ready(self.http1_head(connection, response)),
                        Err(failed) => failed,
                    };
                    match self.http1_failed(&connection, failed) {
                        Ok(mut again) => self.state = self.queue(&mut again),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                State::Http2(stream) => {
                    let Http2 {
                        reply,
                        sent_at,
                        timer,
                    } = &mut **stream;
                    let Poll::Ready(reply) = reply.as_mut().poll(cx) else {
                        let error = ready!(self.timeout.poll(&self.pool, *sent_at, timer, cx));
                        self.state = State::Failed(Some(error));
                        continue;
                    };
                    self.state = State::Failed(None);
                    match self.http2_reply(reply) {
                        Ok(response) => return Poll::Ready(response),
                        Err(mut again) => self.state = self.queue(&mut again),
                    }
                }
                State::Failed(error) => {
                    return match error.take() {
                        Some(error) => Poll::Ready(Err(error)),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    /// The request to send again, or the error.
    fn http1_failed(
        &self,
        connection: &Http1Connection,
        failed: http1::SendError,
    ) -> Result<Request<RequestBody>, Error> {
        let http1::SendError { error, unsent } = failed;
        // The upstream may have closed a reused connection just when the request was sent. A
        // failure on a new connection has another cause.
        if connection.is_reused()
            && self.sends < MAX_SENDS
            && let Some(request) = unsent
        {
            tracing::debug!(upstream = %self.pool.addr, "kept connection was closed, sending the request again");
            return Ok(request);
        }
        let error = error.into_error(self.pool.addr);
        Err(connection.tls().explain(error))
    }

    /// The reply, or the request to send again.
    fn http2_reply(&mut self, reply: Http2Reply) -> Result<Reply, Box<Request<RequestBody>>> {
        match reply {
            Ok(response) => Ok(self.http2_head(response)),
            Err(failed) => match failed.unsent {
                Some(request) if self.sends < MAX_SENDS => Err(Box::new(request)),
                _ => Ok(Err(failed.error)),
            },
        }
    }
}

/// The pool of HTTP/1.1 connections to the upstream of `pool`.
fn http1_pool(shared: &Shared, pool: Arc<Pool>) -> Arc<Pool> {
    match pool.upstream.http_protocol() {
        Protocol::Http1 => pool,
        _ => shared
            .pools
            .get(&pool.upstream.clone().protocol(Protocol::Http1)),
    }
}
