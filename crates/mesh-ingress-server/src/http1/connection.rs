//! One HTTP/1 connection in use, driven by one task: it reads the head of a request, calls the service,
//! writes the response, and begins anew.

mod exchange;
mod write;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use hyper::ext::ReasonPhrase;
use mesh_ingress_core::BoxError;
use mesh_ingress_http1::Framing;
use mesh_ingress_http1::response;
use mesh_ingress_io::splice::Splice;
use mesh_ingress_io::upgrade::{self, UpgradeSender};
use pin_project_lite::pin_project;
use tokio::task::coop::has_budget_remaining;

use self::exchange::Exchange;
use self::write::{ResponseWriter, Wrote};
use super::body::Http1Body;
use super::header_timeout::{Elapsed, HeaderReadTimeout};
use super::transport::{BodyState, Expect100, NoHead, SharedTransport};
use crate::RequestBody;
use crate::client::Client;
use crate::drain::DrainWatcher;
use crate::linger::Linger;
use crate::report::Report;
use crate::service::{HttpService, call_late};
use crate::write_timeout::WriteTimeout;

/// How many pipelined requests are answered before other tasks of the thread have their turn.
const MAX_PIPELINED: usize = 16;

/// Why a connection is not driven any more.
#[derive(Debug)]
pub(super) enum ConnectionEnd {
    /// There is nothing left to send, or nobody to send it to.
    Closed,
    Failed(BoxError),
    /// No request is under way, nor has one begun.
    Idle,
    /// Another protocol is spoken now.
    Upgraded(UpgradeSender),
}

pin_project! {
    /// A connection in use.
    pub(super) struct Connection<'c, S: HttpService> {
        transport: &'c mut SharedTransport,
        client: &'c mut Client,
        service: &'c mut S,
        drain: &'c DrainWatcher,
        #[pin]
        state: State<S>,
        exchange: Exchange,
        // The capacity of the last response's fields, for the next request.
        headers: HeaderMap,
        header_timeout: HeaderReadTimeout,
        write_timeout: WriteTimeout,
        // No further request is served.
        closing: bool,
    }

    impl<S: HttpService> PinnedDrop for Connection<'_, S> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let StateProj::WriteResponse { writer } = this.state.project()
                && writer.is_until_close()
            {
                // Only a reset tells the client that this was not all.
                this.transport.lock().conn.reset_on_drop();
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S: HttpService> {
        // The head of the next request is to come.
        ReadHead,
        // The service is not ready for it.
        AwaitService {
            request: Option<Box<Request<RequestBody>>>,
        },
        AwaitResponse {
            #[pin]
            response: S::ResponseFuture,
        },
        WriteResponse {
            #[pin]
            writer: ResponseWriter<S::ResponseBody>,
        },
        // The response is written, and the request is not complete.
        ReadRest,
        Close {
            linger: Linger,
        },
    }
}

impl<'c, S: HttpService> Connection<'c, S> {
    pub(super) fn new(
        transport: &'c mut SharedTransport,
        client: &'c mut Client,
        service: &'c mut S,
        drain: &'c DrainWatcher,
        header_timeout: Option<Duration>,
    ) -> Self {
        Self {
            transport,
            client,
            service,
            drain,
            state: State::ReadHead,
            exchange: Exchange::default(),
            headers: HeaderMap::new(),
            header_timeout: HeaderReadTimeout::new(header_timeout),
            write_timeout: WriteTimeout::default(),
            closing: false,
        }
    }

    /// Finishes the request under way, and takes no other.
    pub(super) fn graceful_shutdown(self: Pin<&mut Self>) {
        *self.project().closing = true;
    }
}

impl<S: HttpService> Future for Connection<'_, S> {
    type Output = ConnectionEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        self.as_mut().project().transport.lock().begin_poll(cx);
        let mut answered = 0;
        loop {
            let this = self.as_mut().project();
            let next = match this.state.project() {
                // A request that has begun to come is served.
                StateProj::ReadHead
                    if *this.closing && !this.transport.lock().is_amid_request() =>
                {
                    State::close()
                }
                // After others of this thread, and its timers: a request without an upstream is
                // answered at once, and any number of them may have been read already.
                StateProj::ReadHead if answered >= MAX_PIPELINED => {
                    this.transport.lock().pause();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                StateProj::ReadHead => match ready!(self.as_mut().poll_head(cx)) {
                    None => continue,
                    Some(end) => return Poll::Ready(end),
                },
                StateProj::AwaitService { request } => match this.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let Some(request) = request.take() else {
                            return Poll::Pending;
                        };
                        let response = call_late(*this.service, request);
                        State::AwaitResponse { response }
                    }
                    Poll::Ready(Err(error)) => {
                        let status = failed(error);
                        self.as_mut().answer(status, cx);
                        continue;
                    }
                    Poll::Pending => return this.transport.lock().poll_waiting_client(cx),
                },
                StateProj::AwaitResponse { response } => {
                    // A response is large: it stays where it is, and only its body is moved.
                    let mut polled = response.poll(cx);
                    let Poll::Ready(Ok(response)) = &mut polled else {
                        let Poll::Ready(Err(error)) = polled else {
                            return this.transport.lock().poll_waiting_client(cx);
                        };
                        let status = failed(error);
                        self.as_mut().answer(status, cx);
                        continue;
                    };
                    let (framing, splice) = self.as_mut().begin_response(response, cx);
                    let mut this = self.as_mut().project();
                    if let Poll::Ready(Ok(response)) = polled {
                        let accepts_trailers = this.exchange.accepts_trailers;
                        let body = Some(response.into_body());
                        this.state.set(State::WriteResponse {
                            writer: ResponseWriter::new(body, splice, framing, accepts_trailers),
                        });
                    }
                    continue;
                }
                StateProj::WriteResponse { mut writer } => {
                    let wrote = writer.as_mut().poll(this.transport, this.write_timeout, cx);
                    match ready!(wrote) {
                        Wrote::Incomplete(error) if writer.is_until_close() => {
                            return Poll::Ready(ConnectionEnd::Failed(error));
                        }
                        Wrote::Incomplete(error) => {
                            // The missing end tells the client that this was not all. What came
                            // before it is still to be delivered.
                            tracing::debug!("client connection: {}", Report(&*error));
                            State::close()
                        }
                        Wrote::All => {
                            if let Some(upgrade) = this.exchange.upgrade.take() {
                                return Poll::Ready(ConnectionEnd::Upgraded(upgrade));
                            }
                            match this.exchange.request.keep_alive && !*this.closing {
                                true => State::ReadRest,
                                false => State::close(),
                            }
                        }
                    }
                }
                StateProj::ReadRest => {
                    let mut transport = this.transport.lock();
                    let complete = match transport.body {
                        BodyState::Complete => true,
                        BodyState::Abandoned(_) if *this.closing => false,
                        // The client has as long for that as for a head.
                        BodyState::Abandoned(left) => match transport.poll_discard(left, cx) {
                            Poll::Ready(complete) => complete,
                            // Without a time-out, nobody waits for a body that nobody wants.
                            Poll::Pending
                                if this.header_timeout.is_off() && has_budget_remaining() =>
                            {
                                false
                            }
                            Poll::Pending => {
                                transport.pause();
                                ready!(this.header_timeout.poll(true, cx));
                                false
                            }
                        },
                        BodyState::Held => {
                            transport.pause();
                            ready!(this.header_timeout.poll(true, cx));
                            if transport.take_progressed() {
                                this.header_timeout.reset();
                                continue;
                            }
                            false
                        }
                    };
                    this.header_timeout.reset();
                    answered += 1;
                    match complete {
                        true => State::ReadHead,
                        false => State::close(),
                    }
                }
                StateProj::Close { linger } => {
                    let mut transport = this.transport.lock();
                    let closed = transport.poll_close(linger, cx);
                    return closed.map(|()| ConnectionEnd::Closed);
                }
            };
            self.as_mut().project().state.set(next);
        }
    }
}

impl<S: HttpService> Connection<'_, S> {
    /// Reads the next request and calls the service.
    fn poll_head(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ConnectionEnd>> {
        let mut this = self.as_mut().project();
        let mut transport = this.transport.lock();
        let status = match transport.poll_head(this.headers, cx) {
            Poll::Ready(Ok(mut head)) => {
                let has_body = !head.body.is_complete();
                transport.body = match has_body {
                    true => BodyState::Held,
                    false => BodyState::Complete,
                };
                transport.expect = match has_body && head.expects_continue {
                    true => Expect100::Pending,
                    false => Expect100::None,
                };
                drop(transport);
                this.header_timeout.reset();
                *this.exchange = Exchange::of(&head);
                let body = match has_body {
                    true => Http1Body::new(this.transport, head.body).into(),
                    false => RequestBody::empty(),
                };
                let mut extensions = this.client.extensions();
                if head.wants_upgrade {
                    let (sender, on_upgrade) = upgrade::channel();
                    extensions.insert(on_upgrade);
                    this.exchange.upgrade = Some(sender);
                }
                *head.request.extensions_mut() = extensions;
                let request = head.request.map(|()| body);
                match this.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let response = this.service.call(request);
                        this.state.set(State::AwaitResponse { response });
                    }
                    Poll::Ready(Err(error)) => {
                        let status = failed(error);
                        self.answer(status, cx);
                    }
                    Poll::Pending => {
                        let request = Some(Box::new(request));
                        this.state.set(State::AwaitService { request });
                    }
                }
                return Poll::Ready(None);
            }
            Poll::Ready(Err(NoHead::Closed)) => return Poll::Ready(Some(ConnectionEnd::Closed)),
            Poll::Ready(Err(NoHead::Io(error))) => {
                return Poll::Ready(Some(ConnectionEnd::Failed(error.into())));
            }
            Poll::Ready(Err(NoHead::Refused)) => StatusCode::BAD_REQUEST,
            Poll::Ready(Err(NoHead::TooLarge)) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Poll::Pending => {
                let amid_request = transport.is_amid_request();
                transport.pause();
                match ready!(this.header_timeout.poll(amid_request, cx)) {
                    Elapsed::Idle => return Poll::Ready(Some(ConnectionEnd::Idle)),
                    // A client that has not begun a request gets no answer.
                    Elapsed::Timeout if !amid_request => {
                        return Poll::Ready(Some(ConnectionEnd::Closed));
                    }
                    Elapsed::Timeout => StatusCode::REQUEST_TIMEOUT,
                }
            }
        };
        drop(transport);
        *this.exchange = Exchange::default();
        self.answer(status, cx);
        Poll::Ready(None)
    }

    /// Answers without the service, and without a body.
    fn answer(mut self: Pin<&mut Self>, status: StatusCode, cx: &mut Context<'_>) {
        let mut response = Response::new(http_body_util::Empty::<bytes::Bytes>::new());
        *response.status_mut() = status;
        self.as_mut().write_head(&response, None, cx);
        let writer = ResponseWriter::new(None, None, None, false);
        self.project().state.set(State::WriteResponse { writer });
    }

    /// Writes the head of the service's response, and reuses its memory. Returns how the body is to be
    /// written.
    fn begin_response(
        mut self: Pin<&mut Self>,
        response: &mut Response<S::ResponseBody>,
        cx: &mut Context<'_>,
    ) -> (Option<Framing>, Option<Splice<S::ResponseBody>>) {
        let unchanged = self.client.is_unchanged(response.extensions());
        let reason = match unchanged {
            true => None,
            false => response.extensions().get::<ReasonPhrase>().cloned(),
        };
        let framing = self.as_mut().write_head(response, reason.as_ref(), cx);
        let this = self.project();
        let mut extensions = std::mem::take(response.extensions_mut());
        let mut splice = None;
        if unchanged {
            this.client.recycle(extensions);
        } else {
            splice = extensions.remove::<Splice<S::ResponseBody>>();
            match this.client.is_unchanged(&extensions) {
                true => this.client.recycle(extensions),
                false => this.client.recycle_changed(extensions),
            }
        }
        *this.headers = std::mem::take(response.headers_mut());
        this.headers.clear();
        (framing, splice)
    }

    /// Decides what becomes of the connection, and writes the head of a response.
    fn write_head<B: Body>(
        self: Pin<&mut Self>,
        response: &Response<B>,
        reason: Option<&ReasonPhrase>,
        cx: &mut Context<'_>,
    ) -> Option<Framing> {
        let this = self.project();
        let exchange = &mut *this.exchange;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            exchange.upgrade = None;
        }
        let mut transport = this.transport.lock();
        if exchange.wants_upgrade && exchange.upgrade.is_none() {
            transport.stay_http();
        }
        let keep_alive = &mut exchange.request.keep_alive;
        // A drain is told connection by connection (RFC 9112 §9.6).
        *keep_alive &= transport.begin_response() && !*this.closing && !this.drain.is_draining();
        // A refusal of a long request is not worth reading the rest of it.
        let refused = status.is_client_error() || status.is_server_error();
        *keep_alive &= !(refused && exchange.is_long && transport.body == BodyState::Held);
        // Nor does anybody wait for the rest of a request whose body was dropped.
        if *keep_alive && let BodyState::Abandoned(left) = transport.body {
            *keep_alive = transport.discard_now(left, cx);
        }
        let reason = reason.map(ReasonPhrase::as_bytes);
        let out = transport.write_buf.begin();
        let (framing, keep_alive) = response::write(response, reason, exchange.request, out);
        exchange.request.keep_alive = keep_alive;
        framing
    }
}

/// Logs an error of the service, and returns the status for it.
fn failed(error: impl Into<BoxError>) -> StatusCode {
    tracing::warn!("the service failed: {}", Report(&*error.into()));
    StatusCode::INTERNAL_SERVER_ERROR
}

impl<S: HttpService> State<S> {
    fn close() -> Self {
        Self::Close {
            linger: Linger::default(),
        }
    }
}
