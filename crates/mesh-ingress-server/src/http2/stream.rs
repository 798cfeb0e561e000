//! One request and its response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use mesh_ingress_core::BoxError;
use mesh_ingress_http2::response::{Content, Writer};
use mesh_ingress_http2::{Reason, frame};
use mesh_ingress_io::upgrade::{UpgradeSender, Upgraded};
use mesh_ingress_io::{Conn, WriteBuf};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::body::{Http2Body, RecvBody};
use super::ready_queue::{ReadyQueue, StreamWaker};
use super::send::{BodySender, SendProgress, Source};
use super::tunnel::{Tunnel, TunnelOutput};
use crate::RequestBody;
use crate::client::Client;
use crate::connection::ConnectionContext;
use crate::report::Report;
use crate::service::{HttpService, call_late};

/// The sending side of a connection, which its streams share.
#[derive(Debug)]
pub(super) struct SendState {
    pub(super) buf: WriteBuf,
    pub(super) writer: Writer,
    /// The connection's flow-control window.
    pub(super) window: i64,
    /// Some `DATA` has been sent since this was last asked.
    pub(super) data_sent: bool,
    pub(super) max_frame: usize,
}

/// A slot for a stream of a connection. What it is made of is reused by the next stream.
pub(super) struct Stream<S: HttpService> {
    /// `0` while there is no stream.
    pub(super) id: u32,
    pub(super) waker: Arc<StreamWaker>,
    /// The same as a task's waker.
    task: Waker,
    pub(super) state: Pin<Box<State<S>>>,
    pub(super) request_body: Option<RecvBody>,
    /// The client has not ended the stream.
    pub(super) receiving: bool,
    /// How much of the request's body is to come, if it has a length.
    pub(super) body_left: Option<u64>,
    /// Flow-control windows.
    pub(super) recv_window: u32,
    pub(super) send_window: i64,
    /// The method is `HEAD`.
    is_head: bool,
    /// Until an extended `CONNECT` is answered with anything but success.
    pub(super) upgrade: Option<UpgradeSender>,
    /// The head of the response has been sent.
    headers_sent: bool,
    pub(super) blocked: Blocked,
    /// Since when it has been found waiting for a window without progress.
    pub(super) stalled_since: Option<Instant>,
}

/// Why a stream does not send what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    No,
    /// By flow control.
    Window,
    /// By what waits to be written on the connection.
    Buffer,
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S: HttpService> {
        // There is no stream.
        Free,
        // The service is not ready for the request.
        AwaitService {
            service: S,
            request: Option<Box<Request<RequestBody>>>,
        },
        AwaitResponse {
            #[pin]
            response: S::ResponseFuture,
        },
        SendBody {
            #[pin]
            sender: BodySender<S::ResponseBody>,
        },
        // The response is sent, and the service still reads the request.
        EndStreamSent,
    }
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Pending,
    EndStreamSent,
    Broken(Reason),
}

impl<S: HttpService> Stream<S> {
    pub(super) fn new(queue: &Arc<ReadyQueue>, slot: usize) -> Self {
        let waker = StreamWaker::new(queue, slot);
        Self {
            id: 0,
            task: Waker::from(Arc::clone(&waker)),
            waker,
            state: Box::pin(State::Free),
            request_body: None,
            receiving: false,
            body_left: None,
            recv_window: 0,
            send_window: 0,
            is_head: false,
            upgrade: None,
            headers_sent: false,
            blocked: Blocked::No,
            stalled_since: None,
        }
    }

    /// Begins with a request.
    pub(super) fn begin(&mut self, id: u32, method: &Method, send_window: i64) {
        self.id = id;
        self.is_head = method == Method::HEAD;
        self.send_window = send_window;
        self.recv_window = super::STREAM_WINDOW;
        self.headers_sent = false;
        self.blocked = Blocked::No;
        self.stalled_since = None;
    }

    /// Makes as much progress as there is. `spare` and `client` get the capacity of the response's
    /// fields and extensions.
    pub(super) fn poll(
        &mut self,
        send: &mut SendState,
        spare: &mut Vec<HeaderMap>,
        client: &mut Client,
        context: &Arc<ConnectionContext>,
    ) -> Progress {
        let task = self.task.clone();
        let mut cx = Context::from_waker(&task);
        if let StateProj::AwaitService { service, request } = self.state.as_mut().project() {
            match service.poll_ready(&mut cx) {
                Poll::Ready(Ok(())) => {
                    if let Some(request) = request.take() {
                        let response = call_late(service, request);
                        self.state.set(State::AwaitResponse { response });
                    }
                }
                Poll::Ready(Err(error)) => return self.service_failed(error, send),
                Poll::Pending => return Progress::Pending,
            }
        }
        if let StateProj::AwaitResponse { response } = self.state.as_mut().project() {
            match response.poll(&mut cx) {
                Poll::Ready(Ok(response)) => {
                    if self.send_head(response, send, spare, client, context) {
                        return Progress::EndStreamSent;
                    }
                }
                Poll::Ready(Err(error)) => return self.service_failed(error, send),
                Poll::Pending => {
                    self.update_window(send);
                    return Progress::Pending;
                }
            }
        }
        let progress = match self.state.as_mut().project() {
            StateProj::SendBody { sender } => {
                let mut stream = SendProgress {
                    id: self.id,
                    window: &mut self.send_window,
                    blocked: &mut self.blocked,
                    stalled_since: &mut self.stalled_since,
                };
                sender.poll(&mut stream, send, &mut cx)
            }
            _ => Progress::Pending,
        };
        self.update_window(send);
        progress
    }

    fn service_failed(&mut self, error: impl Into<BoxError>, send: &mut SendState) -> Progress {
        tracing::warn!("the service failed: {}", Report(&*error.into()));
        let (status, none) = (StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new());
        let frames = send.buf.buffer();
        send.writer
            .head(self.id, status, &none, Content::Length(0), true, frames);
        self.headers_sent = true;
        self.upgrade = None;
        self.state.set(State::EndStreamSent);
        Progress::EndStreamSent
    }

    /// Lets the client send more of the body, if the service has read some.
    fn update_window(&mut self, send: &mut SendState) {
        let Some(body) = self.request_body.as_ref().filter(|_| self.receiving) else {
            return;
        };
        let due = body.take_due();
        if due.send_continue && !self.headers_sent {
            let (status, none) = (StatusCode::CONTINUE, HeaderMap::new());
            let frames = send.buf.buffer();
            send.writer
                .head(self.id, status, &none, Content::Bodiless, false, frames);
        }
        if due.window > 0 {
            self.recv_window += due.window;
            frame::window_update(send.buf.buffer(), self.id, due.window);
        }
    }

    /// Sends the head of a response. Returns whether that was all of it.
    fn send_head(
        &mut self,
        mut response: Response<S::ResponseBody>,
        send: &mut SendState,
        spare: &mut Vec<HeaderMap>,
        client: &mut Client,
        context: &Arc<ConnectionContext>,
    ) -> bool {
        let status = response.status();
        let wants_tunnel = self.upgrade.is_some();
        let upgrade = self.upgrade.take().filter(|_| status.is_success());
        if wants_tunnel
            && upgrade.is_none()
            && let Some(body) = &self.request_body
        {
            body.refuse();
        }
        let is_bodiless = self.is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = response.body();
        let content = match body.size_hint().exact() {
            _ if upgrade.is_some() => Content::Unknown,
            _ if is_bodiless => Content::Bodiless,
            Some(length) => Content::Length(length),
            None => Content::Unknown,
        };
        let ends = upgrade.is_none() && (is_bodiless || body.is_end_stream());
        let frames = send.buf.buffer();
        let headers = response.headers();
        send.writer
            .head(self.id, status, headers, content, ends, frames);
        self.headers_sent = true;
        let mut headers = std::mem::take(response.headers_mut());
        headers.clear();
        spare.push(headers);
        let extensions = std::mem::take(response.extensions_mut());
        match client.is_unchanged(&extensions) {
            true => client.recycle(extensions),
            false => client.recycle_changed(extensions),
        }
        if ends {
            self.state.set(State::EndStreamSent);
            return true;
        }
        let source = match upgrade {
            Some(upgrade) => {
                let output = self.open_tunnel(upgrade, context);
                Source::Tunnel { output }
            }
            None => Source::Body {
                body: response.into_body(),
            },
        };
        let sender = BodySender::new(source);
        self.state.set(State::SendBody { sender });
        false
    }

    fn open_tunnel(
        &mut self,
        upgrade: UpgradeSender,
        context: &Arc<ConnectionContext>,
    ) -> Arc<TunnelOutput> {
        let body = self.request_body.as_ref().map(Http2Body::of);
        let (tunnel, output) = Tunnel::new(body, &self.waker);
        let upgraded = Upgraded::new(Conn::other(tunnel), Bytes::new());
        upgrade.send(upgraded.with_guard(Arc::clone(context)));
        output
    }

    /// Whether the service still reads the request.
    pub(super) fn is_read(&self) -> bool {
        self.request_body.as_ref().is_some_and(RecvBody::is_wanted)
    }

    /// Drops what is under way.
    pub(super) fn clear(&mut self, why: &'static str) {
        self.state.set(State::Free);
        self.upgrade = None;
        if let Some(body) = self.request_body.take() {
            body.fail(why);
        }
    }
}
