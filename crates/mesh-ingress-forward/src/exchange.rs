//! One request and its response's head, from asking for a connection on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_ingress_core::{Error, Protocol};
use mesh_ingress_headers::hop_by_hop::{self, ConnectionOptions};
use mesh_ingress_headers::{HeaderPresence, PreparedFields};
use mesh_ingress_io::LazyTimer;
use tokio::time::Instant;

use crate::body::{RequestBody, ResponseBody};
use crate::error::Failure;
use crate::expect::Expectation;
use crate::forwarder::Shared;
use crate::lease::{Lease, Ticket};
use crate::overdue::{Clock, Deadline};
use crate::pool::Pool;
use crate::upgrade::Upgrade;
use crate::{expect, h1, h2, prepare};

type Reply = Result<Response<ResponseBody>, Error>;

/// How often a request is sent at most because connections were on their way out. The last time it
/// is a new one: that one was not.
const TRIES: u8 = 3;

/// One exchange, from finding a connection to the response's head.
pub(crate) struct Exchange {
    pool: Arc<Pool>,
    upgrade: Option<Box<Switching>>,
    /// What the upstream is told besides the request's own fields.
    further: Option<PreparedFields>,
    hints: Hints,
    /// What is known of whether the upstream wants the body.
    expected: Option<Expectation>,
    clock: Clock,
    tries: u8,
    step: Step,
}

/// The connection is to become a tunnel.
struct Switching {
    upgrade: Upgrade,
    shared: Arc<Shared>,
}

/// What of the client's request matters beyond its head.
#[derive(Clone, Copy)]
struct Hints {
    /// It takes trailers.
    te_trailers: bool,
    /// It must be told of trailers beforehand.
    announce: bool,
    /// It holds its body back until asked for it.
    expects: bool,
}

enum Step {
    Queued(Box<Queued>),
    Http1(Box<h1::Connection>),
    Http2(Box<Http2>),
    Failed(Option<Error>),
}

/// Waiting for a connection.
struct Queued {
    ticket: Ticket,
    request: Request<RequestBody>,
    timer: LazyTimer,
}

/// Waiting for a response on a stream.
struct Http2 {
    reply: Pin<Box<dyn Future<Output = Answer> + Send>>,
    sent_at: Instant,
    timer: LazyTimer,
}

type Answer = Result<Response<h2::ResponseStream>, h2::Unanswered>;

impl Exchange {
    /// Sends a request, if there is a connection at once. Hop-by-hop fields are stripped; `options`
    /// is what they said. `deadline` is that of all tries together.
    ///
    /// The request is taken. It is large, and so it is passed on where it is until somebody keeps
    /// it: by value, each step would copy it.
    pub(crate) fn new(
        mut pool: Arc<Pool>,
        shared: &Arc<Shared>,
        request: &mut Request<RequestBody>,
        further: Option<PreparedFields>,
        options: &ConnectionOptions,
        deadline: Option<Deadline>,
    ) -> Result<Self, Error> {
        let client = request.version();
        let upgrade = Upgrade::of(request, options)?.map(|upgrade| {
            Box::new(Switching {
                upgrade,
                shared: Arc::clone(shared),
            })
        });
        if let Some(switching) = &upgrade
            && !switching.upgrade.has_http2_form()
        {
            pool = http1(shared, pool);
        }
        let mut exchange = Self {
            hints: Hints {
                te_trailers: options.te_trailers,
                announce: options.te_trailers && client < Version::HTTP_2,
                // Without a body there is nothing to wait for, and nobody pays for the look.
                expects: !request.body().is_end_stream() && expect::is_expected(request, client),
            },
            expected: None,
            clock: Clock {
                deadline,
                progress: request.body().progress(),
            },
            tries: 0,
            step: Step::Failed(None),
            pool,
            upgrade,
            further,
        };
        exchange.step = exchange.begin(request);
        Ok(exchange)
    }

    fn begin(&mut self, request: &mut Request<RequestBody>) -> Step {
        match self.pool.take() {
            Some(lease) => self.send(lease, request),
            None => self.queue(request),
        }
    }

    fn queue(&self, request: &mut Request<RequestBody>) -> Step {
        // No connection is opened for a request that cannot be sent.
        if self.pool.shares() && !prepare::names_authority(request) {
            return Step::Failed(Some(Failure::NoAuthority.into_error()));
        }
        let pool = Arc::clone(&self.pool);
        let last = self.tries + 1 == TRIES;
        Step::Queued(Box::new(Queued {
            ticket: if last {
                Ticket::for_fresh(pool)
            } else {
                Ticket::new(pool)
            },
            request: std::mem::take(request),
            timer: LazyTimer::default(),
        }))
    }

    fn send(&mut self, lease: Lease, request: &mut Request<RequestBody>) -> Step {
        if let (Lease::Http2(stream), Some(switching)) = (&lease, &self.upgrade)
            && !stream.extended_connect()
        {
            // Where HTTP/2 cannot switch, HTTP/1.1 can.
            self.pool = http1(&switching.shared, Arc::clone(&self.pool));
            drop(lease);
            return self.begin(request);
        }
        self.tries += 1;
        match lease {
            Lease::Http1(mut connection) => {
                prepare::http1(request, self.hints.te_trailers);
                if self.hints.expects {
                    self.expected = expect::hold(request);
                }
                if let Some(Switching { upgrade, .. }) = self.upgrade.as_deref() {
                    upgrade.ask_http1(request);
                }
                connection.send(std::mem::take(request), self.further.as_ref());
                Step::Http1(connection)
            }
            Lease::Http2(stream) => {
                if let Err(error) = prepare::http2(request, self.hints.te_trailers) {
                    return Step::Failed(Some(error));
                }
                if let Some(Switching { upgrade, .. }) = self.upgrade.as_deref() {
                    upgrade.ask_http2(request);
                }
                // For good: handed back and sent over HTTP/1 instead, it has them already.
                if let Some(further) = self.further.take() {
                    further.insert_into(request.headers_mut());
                }
                let addr = self.pool.addr;
                Step::Http2(Box::new(Http2 {
                    reply: Box::pin(stream.exchange(addr, std::mem::take(request))),
                    sent_at: Instant::now(),
                    timer: LazyTimer::default(),
                }))
            }
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        loop {
            match &mut self.step {
                Step::Queued(queued) => {
                    let lease = match queued.ticket.poll(cx) {
                        Poll::Ready(lease) => lease,
                        Poll::Pending => {
                            let Some(deadline) = self.clock.deadline else {
                                return Poll::Pending;
                            };
                            ready!(queued.timer.poll(cx, deadline.at));
                            Err(deadline.error())
                        }
                    };
                    let mut request = std::mem::take(&mut queued.request);
                    self.step = match lease {
                        Ok(mut lease) => {
                            // It may have waited for this task to be polled.
                            if let Lease::Http1(connection) = &mut lease {
                                connection.use_from(Instant::now());
                            }
                            self.send(lease, &mut request)
                        }
                        Err(error) => Step::Failed(Some(error)),
                    };
                }
                Step::Http1(connection) => {
                    let Poll::Ready(reply) = connection.poll_reply(cx) else {
                        let sent_at = connection.sent_at();
                        let timer = connection.timer();
                        let error = ready!(self.clock.poll(&self.pool, sent_at, timer, cx));
                        self.step = Step::Failed(Some(error));
                        continue;
                    };
                    let step = std::mem::replace(&mut self.step, Step::Failed(None));
                    let Step::Http1(connection) = step else {
                        return Poll::Pending;
                    };
                    let unanswered = match reply {
                        Ok(response) => return Poll::Ready(self.http1_head(connection, response)),
                        Err(unanswered) => unanswered,
                    };
                    match self.unanswered(&connection, unanswered) {
                        Ok(mut again) => self.step = self.queue(&mut again),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                Step::Http2(stream) => {
                    let Http2 {
                        reply,
                        sent_at,
                        timer,
                    } = &mut **stream;
                    let Poll::Ready(answer) = reply.as_mut().poll(cx) else {
                        let error = ready!(self.clock.poll(&self.pool, *sent_at, timer, cx));
                        self.step = Step::Failed(Some(error));
                        continue;
                    };
                    self.step = Step::Failed(None);
                    match self.answered(answer) {
                        Ok(response) => return Poll::Ready(response),
                        Err(mut again) => self.step = self.queue(&mut again),
                    }
                }
                Step::Failed(error) => {
                    return match error.take() {
                        Some(error) => Poll::Ready(Err(error)),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    /// What comes of no answer: the request, to be sent once more, or the error.
    fn unanswered(
        &self,
        connection: &h1::Connection,
        unanswered: h1::Unanswered,
    ) -> Result<Request<RequestBody>, Error> {
        let h1::Unanswered { fault, unsent } = unanswered;
        // A connection that was reused may have been closed by the upstream just when the request
        // went out. Asked again, nobody notices; what fails on a new connection is a real failure.
        if connection.is_reused()
            && self.tries < TRIES
            && let Some(request) = unsent
        {
            tracing::debug!(upstream = %self.pool.addr, "kept connection was closed, asking again");
            return Ok(request);
        }
        let error = fault.into_error(self.pool.addr);
        Err(connection.session().explain(error))
    }

    fn http1_head(&mut self, connection: Box<h1::Connection>, mut response: Response<()>) -> Reply {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(connection, response);
        }
        self.check_refusal(&response)?;
        if let Some(expected) = &self.expected {
            expected.answered(response.status());
        }
        // In doubt about where the response ends, the connection goes with it.
        let mut fields = HeaderPresence::of(response.headers());
        let version = response.version();
        let rules = &self.pool.settings.response_rules;
        rules.check_with(response.status(), version, response.headers(), &fields)?;
        if response.status() == StatusCode::NO_CONTENT {
            // A zero is harmless and still not allowed (RFC 9110 §8.6).
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        hop_by_hop::strip_with(response.headers_mut(), &mut fields);
        // Whatever version the upstream speaks, this end speaks its own (RFC 9110 §2.5).
        *response.version_mut() = Version::HTTP_11;
        let pool = &self.pool;
        let mut response = response.map(|()| {
            let stream = h1::ResponseStream::new(connection, Arc::clone(pool));
            ResponseBody::http1(stream)
                .watched(pool, self.clock.deadline)
                .with_fields(fields)
        });
        ResponseBody::advertise_splice(&mut response);
        Ok(response)
    }

    fn switch(&mut self, connection: Box<h1::Connection>, mut response: Response<()>) -> Reply {
        let addr = self.pool.addr;
        let Some(switching) = self.upgrade.take() else {
            return Err(Failure::UnsolicitedUpgrade { addr }.into_error());
        };
        let Switching { upgrade, shared } = *switching;
        upgrade.switched(addr, &mut response)?;
        let (stream, read, permit) = connection
            .into_upgraded()
            .ok_or_else(|| Failure::UpgradeLost { addr }.into_error())?;
        shared.tunnels.open(upgrade.client, stream, read, permit);
        Ok(response.map(|()| ResponseBody::empty()))
    }

    /// The same on a stream of HTTP/2.
    fn connect(
        &mut self,
        switching: Switching,
        upgraded: OnUpgrade,
        mut response: Response<h2::ResponseStream>,
    ) -> Reply {
        // There already; a task that has worked for long enough is not to wait for it.
        let stream = tokio::task::unconstrained(upgraded).now_or_never();
        let Some(Ok(stream)) = stream else {
            let addr = self.pool.addr;
            return Err(Failure::UpgradeLost { addr }.into_error());
        };
        let Switching { upgrade, shared } = switching;
        upgrade.connected(&mut response);
        *response.version_mut() = Version::HTTP_11;
        let (head, slot) = response.into_parts();
        shared
            .tunnels
            .open(upgrade.client, TokioIo::new(stream), Bytes::new(), slot);
        Ok(Response::from_parts(head, ResponseBody::empty()))
    }

    fn check_refusal<B>(&self, response: &Response<B>) -> Result<(), Error> {
        let Some(Switching { upgrade, .. }) = self.upgrade.as_deref() else {
            return Ok(());
        };
        let addr = self.pool.addr;
        upgrade.check_refusal(addr, response.status(), response.version())
    }

    fn answered(&mut self, answer: Answer) -> Result<Reply, Box<Request<RequestBody>>> {
        match answer {
            Ok(response) => Ok(self.http2_head(response)),
            Err(unanswered) => match unanswered.unsent {
                Some(request) if self.tries < TRIES => Err(Box::new(request)),
                _ => Ok(Err(unanswered.error)),
            },
        }
    }

    fn http2_head(&mut self, mut response: Response<h2::ResponseStream>) -> Reply {
        let mut fields = HeaderPresence::of(response.headers());
        let version = response.version();
        let rules = &self.pool.settings.response_rules;
        rules.check_with(response.status(), version, response.headers(), &fields)?;
        if let Some(upgraded) = response.extensions_mut().remove::<OnUpgrade>()
            && let Some(switching) = self.upgrade.take()
        {
            return self.connect(*switching, upgraded, response);
        }
        self.check_refusal(&response)?;
        hop_by_hop::strip_with(response.headers_mut(), &mut fields);
        if self.hints.announce {
            prepare::announce_grpc_trailers(response.headers_mut());
        }
        Ok(response.map(|stream| {
            ResponseBody::http2(stream)
                .watched(&self.pool, self.clock.deadline)
                .with_fields(fields)
        }))
    }
}

/// The pool of HTTP/1.1 connections to where `pool` connects to.
fn http1(shared: &Shared, pool: Arc<Pool>) -> Arc<Pool> {
    match pool.upstream.http_protocol() {
        Protocol::Http1 => pool,
        _ => shared.pool(&pool.upstream.clone().protocol(Protocol::Http1)),
    }
}
