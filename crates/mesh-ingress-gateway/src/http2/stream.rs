//! One request and its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use mesh_ingress::{ResponseBody, ResponseFuture};
use mesh_ingress_http2::response::{Content, Writer};
use mesh_ingress_http2::{Reason, frame};
use mesh_ingress_io::upgrade::{UpgradeSender, Upgraded};
use mesh_ingress_io::{Conn, WriteBuf};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::signals::{Bell, Signals};
use super::tunnel::{Pipe, Tunnel};
use super::upload::{RequestBody, Upload};

/// What may wait in memory of one connection for its client, without what it asked for itself.
pub(super) const OUT: usize = 256 * 1024;
/// What one stream may write before it is others' turn.
const TURN: usize = 64 * 1024;

/// The way out of a connection, which its streams share.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) outbox: WriteBuf,
    pub(super) writer: Writer,
    /// What the client takes of all streams together.
    pub(super) window: i64,
    /// Something of a body has been written since this was last asked.
    pub(super) sent: bool,
    pub(super) max_payload: usize,
}

/// A place for a stream in its connection. What it is made of is used again.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u32,
    pub(super) bell: Arc<Bell>,
    pub(super) waker: Waker,
    pub(super) state: Pin<Box<State>>,
    pub(super) upload: Option<Upload>,
    /// The client has not said all it has to say.
    pub(super) receiving: bool,
    /// How much of the body is to come, if that was said.
    pub(super) left: Option<u64>,
    /// What the client may send.
    pub(super) recv_window: u32,
    /// What the client takes.
    pub(super) window: i64,
    /// The method was `HEAD`.
    pub(super) head: bool,
    /// Until it is answered with anything but a tunnel.
    pub(super) switch: Option<UpgradeSender>,
    /// The client knows the answer's head.
    pub(super) informed: bool,
    pub(super) blocked: Blocked,
    /// Since when it has been found waiting for a window, and nothing has gone out in between.
    pub(super) stalled: Option<Instant>,
}

/// Why a stream does not write what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    No,
    /// The client has to allow more.
    Window,
    /// What there is must go out first.
    Room,
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    pub(super) enum State {
        // There is no stream.
        Free,
        Answering {
            #[pin]
            response: ResponseFuture<RequestBody>,
        },
        Sending {
            sending: Sending,
        },
        // All is said, but not by the client, and somebody still listens.
        Over,
    }
}

/// A response on its way out, behind its head.
#[derive(Debug)]
pub(super) struct Sending {
    source: Source,
    /// Taken from there, and not written.
    rest: Bytes,
    /// The rest is the last.
    over: bool,
}

#[derive(Debug)]
enum Source {
    Body(ResponseBody),
    Tunnel(Arc<Pipe>),
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Tunnel(pipe) = self {
            pipe.close();
        }
    }
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// The client has been told all.
    Told,
    Broken(Reason),
}

impl Slot {
    pub(super) fn new(signals: &Arc<Signals>, place: usize) -> Self {
        let bell = Bell::new(signals, place);
        Self {
            id: 0,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            state: Box::pin(State::Free),
            upload: None,
            receiving: false,
            left: None,
            recv_window: 0,
            window: 0,
            head: false,
            switch: None,
            informed: false,
            blocked: Blocked::No,
            stalled: None,
        }
    }

    /// Goes on as far as that goes. `spare` gets the room of the answer's fields.
    pub(super) fn poll(&mut self, out: &mut Out, spare: &mut Vec<HeaderMap>) -> Progress {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if let StateProj::Answering { response } = self.state.as_mut().project() {
            match response.poll(&mut cx) {
                Poll::Ready(Ok(response)) => {
                    if self.begin(response, out, spare) {
                        return Progress::Told;
                    }
                }
                Poll::Pending => {
                    self.pay(out);
                    return Progress::Waiting;
                }
            }
        }
        let progress = match self.state.as_mut().project() {
            StateProj::Sending { sending } => {
                let mut way = Way {
                    id: self.id,
                    window: &mut self.window,
                    blocked: &mut self.blocked,
                    stalled: &mut self.stalled,
                };
                sending.poll(&mut way, out, &mut cx)
            }
            _ => Progress::Waiting,
        };
        self.pay(out);
        progress
    }

    /// Lets the client send more, if more has been read.
    fn pay(&mut self, out: &mut Out) {
        let Some(upload) = self.upload.as_ref().filter(|_| self.receiving) else {
            return;
        };
        let due = upload.due();
        if due.go_ahead && !self.informed {
            let (status, none) = (StatusCode::CONTINUE, HeaderMap::new());
            let frames = out.outbox.buffer();
            out.writer
                .head(self.id, status, &none, Content::Bodiless, false, frames);
        }
        if due.window > 0 {
            self.recv_window += due.window;
            frame::window_update(out.outbox.buffer(), self.id, due.window);
        }
    }

    /// Writes the head of a response. Tells whether that was all.
    fn begin(
        &mut self,
        mut response: Response<ResponseBody>,
        out: &mut Out,
        spare: &mut Vec<HeaderMap>,
    ) -> bool {
        let status = response.status();
        let asked_for_tunnel = self.switch.is_some();
        let switch = self.switch.take().filter(|_| status.is_success());
        if asked_for_tunnel
            && switch.is_none()
            && let Some(upload) = &self.upload
        {
            upload.refuse();
        }
        let bodiless = self.head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = response.body();
        let content = match body.size_hint().exact() {
            _ if switch.is_some() => Content::Unknown,
            _ if bodiless => Content::Bodiless,
            Some(length) => Content::Length(length),
            None => Content::Unknown,
        };
        let ends = switch.is_none() && (bodiless || body.is_end_stream());
        let frames = out.outbox.buffer();
        let headers = response.headers();
        out.writer
            .head(self.id, status, headers, content, ends, frames);
        self.informed = true;
        let mut headers = std::mem::take(response.headers_mut());
        headers.clear();
        spare.push(headers);
        if ends {
            self.state.set(State::Over);
            return true;
        }
        let source = match switch {
            Some(switch) => Source::Tunnel(self.open_tunnel(switch)),
            None => Source::Body(response.into_body()),
        };
        let sending = Sending {
            source,
            rest: Bytes::new(),
            over: false,
        };
        self.state.set(State::Sending { sending });
        false
    }

    fn open_tunnel(&mut self, switch: UpgradeSender) -> Arc<Pipe> {
        let body = match &self.upload {
            Some(upload) => RequestBody::of(upload),
            None => RequestBody::none(),
        };
        let (tunnel, pipe) = Tunnel::new(body, &self.bell);
        switch.send(Upgraded::new(Conn::other(tunnel), Bytes::new()));
        pipe
    }

    /// Whether somebody waits for what the client still has to say.
    pub(super) fn is_heard(&self) -> bool {
        self.upload.as_ref().is_some_and(Upload::is_wanted)
    }

    /// Drops what is under way.
    pub(super) fn free(&mut self, why: &'static str) {
        self.state.set(State::Free);
        self.switch = None;
        if let Some(upload) = self.upload.take() {
            upload.fail(why);
        }
    }

    /// Begins with a request.
    pub(super) fn take(&mut self, id: u32, method: &Method, window: i64) {
        self.id = id;
        self.head = method == Method::HEAD;
        self.window = window;
        self.recv_window = super::STREAM_WINDOW;
        self.informed = false;
        self.blocked = Blocked::No;
        self.stalled = None;
    }
}

/// What is a stream's own of the way out.
struct Way<'s> {
    id: u32,
    window: &'s mut i64,
    blocked: &'s mut Blocked,
    stalled: &'s mut Option<Instant>,
}

impl Sending {
    fn poll(&mut self, way: &mut Way<'_>, out: &mut Out, cx: &mut Context<'_>) -> Progress {
        let mut written = 0;
        *way.blocked = Blocked::No;
        loop {
            while !self.rest.is_empty() {
                if out.outbox.len() >= OUT {
                    *way.blocked = Blocked::Room;
                    return Progress::Waiting;
                }
                let window = usize::try_from((*way.window).min(out.window)).unwrap_or(0);
                let length = self.rest.len().min(window).min(out.max_payload);
                if length == 0 {
                    *way.blocked = Blocked::Window;
                    return Progress::Waiting;
                }
                if written >= TURN {
                    cx.waker().wake_by_ref();
                    return Progress::Waiting;
                }
                let piece = self.rest.split_to(length);
                let ends = self.over && self.rest.is_empty();
                frame::data(out.outbox.buffer(), way.id, length, ends);
                out.outbox.push(piece);
                *way.window -= length as i64;
                out.window -= length as i64;
                out.sent = true;
                *way.stalled = None;
                written += length;
                if ends {
                    return Progress::Told;
                }
            }
            if self.over {
                frame::data(out.outbox.buffer(), way.id, 0, true);
                return Progress::Told;
            }
            match self.source.poll_next(cx) {
                Poll::Ready(Next::Piece(piece, last)) => {
                    self.rest = piece;
                    self.over = last;
                }
                Poll::Ready(Next::Trailers(trailers)) => {
                    out.writer.trailers(way.id, &trailers, out.outbox.buffer());
                    return Progress::Told;
                }
                Poll::Ready(Next::Broken(reason)) => return Progress::Broken(reason),
                Poll::Pending => return Progress::Waiting,
            }
        }
    }
}

enum Next {
    /// And whether it is the last one.
    Piece(Bytes, bool),
    Trailers(HeaderMap),
    Broken(Reason),
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match self {
            Self::Body(body) => match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(match frame.into_data() {
                    Ok(piece) => Next::Piece(piece, body.is_end_stream()),
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => Next::Trailers(trailers),
                        // There are no other frames.
                        Err(_) => Next::Piece(Bytes::new(), false),
                    },
                }),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!("response over HTTP/2: {}", crate::Chain(&*error));
                    Poll::Ready(Next::Broken(super::reason_of(&*error)))
                }
                Poll::Ready(None) => Poll::Ready(Next::Piece(Bytes::new(), true)),
                Poll::Pending => Poll::Pending,
            },
            Self::Tunnel(pipe) => pipe.poll_next().map(|next| match next {
                Some(Ok(piece)) => Next::Piece(piece, false),
                Some(Err(())) => Next::Broken(Reason::CANCEL),
                None => Next::Piece(Bytes::new(), true),
            }),
        }
    }
}
