//! One client's connection while it is in use, driven by one task: it reads the head of a request,
//! polls the answer, writes it, and begins anew.

mod writing;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use mesh_ingress::{BoxError, MeshConnection, ResponseBody, ResponseFuture};
use mesh_ingress_http1::Decoder;
use mesh_ingress_http1::request::Head;
use mesh_ingress_http1::response::{self, RequestContext};
use mesh_ingress_io::splice::Splice;
use mesh_ingress_io::upgrade::{self, UpgradeSender};
use pin_project_lite::pin_project;
use tokio::task::coop::has_budget_remaining;

use self::writing::{Writing, Wrote};
use super::body::RequestBody;
use super::patience::{Overdue, Patience};
use super::wire::{BUFFER, GoAhead, NoHead, Shared, Upload};
use crate::linger::Linger;
use crate::phase::Stop;
use crate::stall::Stall;

/// How many requests are answered before others have their turn, if they come without a pause.
const AT_ONCE: usize = 16;

/// How a connection came to rest.
#[derive(Debug)]
pub(crate) enum Rested {
    /// There is nothing more to say, or nobody to say it to.
    Ended,
    Failed(BoxError),
    /// The client asks for nothing at this moment.
    Idle,
    /// Another protocol is spoken now.
    Switched(UpgradeSender),
}

pin_project! {
    /// A connection in use.
    pub(crate) struct Connection<'c> {
        wire: &'c mut Shared,
        mesh: &'c MeshConnection,
        stop: &'c Stop,
        #[pin]
        state: State,
        about: About,
        // Room for the fields of the next request.
        headers: HeaderMap,
        patience: Patience,
        stall: Stall,
        // No further request is served.
        closing: bool,
    }

    impl PinnedDrop for Connection<'_> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let StateProj::Writing { writing } = this.state.project()
                && writing.is_until_close()
            {
                // Only a reset tells that this was not all.
                this.wire.lock().stream.reset_on_drop();
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        // It is the client's turn.
        Head,
        // It is ours.
        Answering {
            #[pin]
            response: ResponseFuture<RequestBody>,
        },
        Writing {
            writing: Writing,
        },
        // The response is written, and the request is not complete.
        Finishing,
        Closing {
            linger: Linger,
        },
    }
}

/// What its answer has to know of the request under way.
#[derive(Debug)]
struct About {
    asked: RequestContext,
    accepts_trailers: bool,
    wants_upgrade: bool,
    /// Its body may be longer than what is read for nobody.
    is_long: bool,
    /// Until it is answered with anything but another protocol.
    switch: Option<UpgradeSender>,
}

impl<'c> Connection<'c> {
    pub(crate) fn new(
        wire: &'c mut Shared,
        mesh: &'c MeshConnection,
        stop: &'c Stop,
        head_timeout: Option<Duration>,
    ) -> Self {
        Self {
            wire,
            mesh,
            stop,
            state: State::Head,
            about: About::default(),
            headers: HeaderMap::new(),
            patience: Patience::new(head_timeout),
            stall: Stall::default(),
            closing: false,
        }
    }

    /// Finishes the request under way, and takes no other.
    pub(crate) fn graceful_shutdown(self: Pin<&mut Self>) {
        *self.project().closing = true;
    }
}

impl Future for Connection<'_> {
    type Output = Rested;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Rested> {
        self.as_mut().project().wire.lock().drive(cx);
        let mut answered = 0;
        loop {
            let this = self.as_mut().project();
            let next = match this.state.project() {
                // The begin of a request is worth to wait for its end.
                StateProj::Head if *this.closing && !this.wire.lock().is_amid_request() => {
                    State::closing()
                }
                // After others of this thread, and its timers: what needs no upstream is answered at
                // once, and there may be any number of requests in what has been read.
                StateProj::Head if answered >= AT_ONCE => {
                    this.wire.lock().pause();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                StateProj::Head => match ready!(self.as_mut().poll_head(cx)) {
                    None => continue,
                    Some(rested) => return Poll::Ready(rested),
                },
                StateProj::Answering { response } => {
                    let mut answer = response.poll(cx);
                    let Poll::Ready(Ok(response)) = &mut answer else {
                        return this.wire.lock().poll_answering(cx);
                    };
                    self.as_mut().begin_response(response, cx);
                    continue;
                }
                StateProj::Writing { writing } => {
                    match ready!(writing.poll(this.wire, this.stall, cx)) {
                        Wrote::Broken(error) if writing.is_until_close() => {
                            return Poll::Ready(Rested::Failed(error));
                        }
                        Wrote::Broken(error) => {
                            // That an end is missing tells that this was not all; what came before
                            // is still the client's.
                            tracing::debug!("client connection: {}", crate::Chain(&*error));
                            State::closing()
                        }
                        Wrote::All => {
                            if let Some(switch) = this.about.switch.take() {
                                return Poll::Ready(Rested::Switched(switch));
                            }
                            match this.about.asked.keep_alive && !*this.closing {
                                true => State::Finishing,
                                false => State::closing(),
                            }
                        }
                    }
                }
                StateProj::Finishing => {
                    let mut wire = this.wire.lock();
                    let complete = match wire.upload {
                        Upload::Complete => true,
                        Upload::Left(_) if *this.closing => false,
                        // It has as long for that as for a head.
                        Upload::Left(left) => match wire.poll_drain(left, cx) {
                            Poll::Ready(complete) => complete,
                            // For what nobody wants, nobody waits for ever.
                            Poll::Pending
                                if this.patience.is_endless() && has_budget_remaining() =>
                            {
                                false
                            }
                            Poll::Pending => {
                                wire.pause();
                                ready!(this.patience.poll(true, cx));
                                false
                            }
                        },
                        Upload::Held => {
                            wire.pause();
                            ready!(this.patience.poll(true, cx));
                            if wire.take_moved() {
                                this.patience.reset();
                                continue;
                            }
                            false
                        }
                    };
                    this.patience.reset();
                    answered += 1;
                    match complete {
                        true => State::Head,
                        false => State::closing(),
                    }
                }
                StateProj::Closing { linger } => {
                    return this
                        .wire
                        .lock()
                        .poll_close(linger, cx)
                        .map(|()| Rested::Ended);
                }
            };
            self.as_mut().project().state.set(next);
        }
    }
}

impl Connection<'_> {
    /// Reads the next request, and begins to answer it.
    fn poll_head(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Rested>> {
        let mut this = self.as_mut().project();
        let mut wire = this.wire.lock();
        let status = match wire.poll_head(this.headers, cx) {
            Poll::Ready(Ok(head)) => {
                let held = !head.body.is_complete();
                wire.upload = if held { Upload::Held } else { Upload::Complete };
                wire.go_ahead = match held && head.expects_continue {
                    true => GoAhead::Owed,
                    false => GoAhead::NotNeeded,
                };
                drop(wire);
                this.patience.reset();
                *this.about = About::of(&head);
                let mut request = head
                    .request
                    .map(|()| RequestBody::new(this.wire, head.body));
                if head.wants_upgrade {
                    let (switch, on_switch) = upgrade::channel();
                    request.extensions_mut().insert(on_switch);
                    this.about.switch = Some(switch);
                }
                let response = this.mesh.handle(request);
                this.state.set(State::Answering { response });
                return Poll::Ready(None);
            }
            Poll::Ready(Err(NoHead::Gone)) => return Poll::Ready(Some(Rested::Ended)),
            Poll::Ready(Err(NoHead::Io(error))) => {
                return Poll::Ready(Some(Rested::Failed(error.into())));
            }
            Poll::Ready(Err(NoHead::Refused)) => StatusCode::BAD_REQUEST,
            Poll::Ready(Err(NoHead::TooLarge)) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Poll::Pending => {
                let amid_request = wire.is_amid_request();
                wire.pause();
                match ready!(this.patience.poll(amid_request, cx)) {
                    Overdue::Idle => return Poll::Ready(Some(Rested::Idle)),
                    // One that has not begun a request is owed no answer.
                    Overdue::TooLate if !amid_request => return Poll::Ready(Some(Rested::Ended)),
                    Overdue::TooLate => StatusCode::REQUEST_TIMEOUT,
                }
            }
        };
        drop(wire);
        *this.about = About::default();
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = status;
        self.begin_response(&mut response, cx);
        Poll::Ready(None)
    }

    /// Writes the head of a response, and takes its body.
    fn begin_response(
        self: Pin<&mut Self>,
        response: &mut Response<ResponseBody>,
        cx: &mut Context<'_>,
    ) {
        let mut this = self.project();
        let about = &mut *this.about;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            about.switch = None;
        }
        let mut wire = this.wire.lock();
        if about.wants_upgrade && about.switch.is_none() {
            wire.stayed();
        }
        // Clients are told one by one that the gateway is going away (RFC 9112 §9.6).
        about.asked.keep_alive &= wire.answered() && !*this.closing && !this.stop.has_begun();
        // So are they when the upstream refuses what it has not read, and that may be long.
        let refused = response.status().is_client_error() || response.status().is_server_error();
        about.asked.keep_alive &= !(refused && about.is_long && wire.upload == Upload::Held);
        // So are they when the rest of their request has not come, and nobody waits for it.
        if about.asked.keep_alive
            && let Upload::Left(left) = wire.upload
        {
            about.asked.keep_alive = wire.drain_now(left, cx);
        }
        let (framing, keep_alive) = response::write(
            response,
            response
                .extensions()
                .get::<ReasonPhrase>()
                .map(ReasonPhrase::as_bytes),
            about.asked,
            wire.outbox.begin(),
        );
        drop(wire);
        about.asked.keep_alive = keep_alive;
        let splice = response.extensions().get::<Splice<ResponseBody>>().copied();
        *this.headers = std::mem::take(response.headers_mut());
        this.headers.clear();
        this.state.set(State::Writing {
            writing: Writing::new(
                std::mem::take(response.body_mut()),
                splice,
                framing,
                about.accepts_trailers,
            ),
        });
    }
}

impl About {
    fn of(head: &Head) -> Self {
        Self {
            asked: RequestContext {
                version: head.request.version(),
                head: head.request.method() == Method::HEAD,
                keep_alive: head.keep_alive,
            },
            accepts_trailers: head.accepts_trailers,
            wants_upgrade: head.wants_upgrade,
            is_long: match head.body {
                Decoder::Length(length) => length > BUFFER as u64,
                Decoder::Complete => false,
                Decoder::Chunked { .. } | Decoder::UntilClose => true,
            },
            switch: None,
        }
    }
}

impl Default for About {
    /// Of what is no request, and the last of its connection.
    fn default() -> Self {
        Self {
            asked: RequestContext {
                version: Version::HTTP_11,
                head: false,
                keep_alive: false,
            },
            accepts_trailers: false,
            wants_upgrade: false,
            is_long: false,
            switch: None,
        }
    }
}

impl State {
    fn closing() -> Self {
        Self::Closing {
            linger: Linger::default(),
        }
    }
}
