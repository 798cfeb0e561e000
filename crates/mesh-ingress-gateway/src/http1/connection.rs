//! One client's connection while it is in use, driven by one task: it reads the head of a request,
//! polls the answer, writes it, and begins anew.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame};
use mesh_ingress::forward::{OnSwitch, Switch};
use mesh_ingress::{BoxError, MeshConnection, ResponseBody, ResponseFuture};
use mesh_ingress_http1::request::Head;
use mesh_ingress_http1::response::{self, Asked};
use mesh_ingress_http1::{Framing, Outbox};
use pin_project_lite::pin_project;

use super::body::RequestBody;
use super::patience::{Overdue, Patience};
use super::wire::{GoAhead, NoHead, Shared, Upload, Wire};
use crate::linger::Linger;
use crate::phase::Stop;
use crate::stall::Stall;

/// How a connection came to rest.
#[derive(Debug)]
pub(crate) enum Rested {
    /// There is nothing more to say, or nobody to say it to.
    Ended,
    Failed(BoxError),
    /// The client asks for nothing at this moment.
    Idle,
    /// Another protocol is spoken now.
    Switched(Switch),
}

pin_project! {
    /// A connection in use.
    pub(crate) struct Connection<'c> {
        wire: &'c Shared,
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
                && writing.until_close
            {
                // Only a reset tells that this was not all.
                let _ = this.wire.lock().stream.set_zero_linger();
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
    asked: Asked,
    takes_trailers: bool,
    asks_to_switch: bool,
    /// Until it is answered with anything but another protocol.
    switch: Option<Switch>,
}

/// A response on its way out; its head waits in the outbox.
#[derive(Debug)]
struct Writing {
    body: ResponseBody,
    framing: Option<Framing>,
    takes_trailers: bool,
    /// Its head, and what came with it, has gone out.
    begun: bool,
    /// What there is must go out before anything is added.
    stuck: bool,
    /// Only the end of the connection tells that it is complete.
    until_close: bool,
}

/// How far a response has come.
enum Wrote {
    All,
    /// It cannot be completed.
    Broken(BoxError),
}

impl<'c> Connection<'c> {
    pub(crate) fn new(
        wire: &'c Shared,
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
        self.wire.lock().drive(cx);
        loop {
            let this = self.as_mut().project();
            let next = match this.state.project() {
                // The begin of a request is worth to wait for its end.
                StateProj::Head if *this.closing && !this.wire.lock().is_amid_request() => {
                    State::closing()
                }
                StateProj::Head => match ready!(self.as_mut().poll_head(cx)) {
                    None => continue,
                    Some(rested) => return Poll::Ready(rested),
                },
                StateProj::Answering { response, .. } => match response.poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        self.as_mut().begin_response(response);
                        continue;
                    }
                    Poll::Pending => return this.wire.lock().poll_answering(cx),
                },
                StateProj::Writing { writing } => {
                    match ready!(writing.poll(this.wire, this.stall, cx)) {
                        Wrote::Broken(error) => return Poll::Ready(Rested::Failed(error)),
                        Wrote::All => {}
                    }
                    if let Some(switch) = this.about.switch.take() {
                        return Poll::Ready(Rested::Switched(switch));
                    }
                    match this.about.asked.keeps_alive && !*this.closing {
                        true => State::Finishing,
                        false => State::closing(),
                    }
                }
                StateProj::Finishing => {
                    let mut wire = this.wire.lock();
                    let complete = match wire.upload {
                        Upload::Complete => true,
                        Upload::Left(left) => ready!(wire.poll_drain(left, cx)),
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
                if head.asks_to_switch {
                    let (switch, on_switch) = OnSwitch::pair();
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
        self.begin_response(response);
        Poll::Ready(None)
    }

    /// Writes the head of a response.
    fn begin_response(self: Pin<&mut Self>, mut response: Response<ResponseBody>) {
        let mut this = self.project();
        let about = &mut *this.about;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            about.switch = None;
        }
        let mut wire = this.wire.lock();
        if about.asks_to_switch && about.switch.is_none() {
            wire.stayed();
        }
        // Clients are told one by one that the gateway is going away (RFC 9112 §9.6).
        about.asked.keeps_alive &= wire.answered() && !*this.closing && !this.stop.has_begun();
        let (framing, keeps_alive) = response::write(&response, about.asked, wire.outbox.begin());
        drop(wire);
        about.asked.keeps_alive = keeps_alive;
        *this.headers = std::mem::take(response.headers_mut());
        this.headers.clear();
        this.state.set(State::Writing {
            writing: Writing {
                body: response.into_body(),
                framing,
                takes_trailers: about.takes_trailers,
                begun: false,
                stuck: false,
                until_close: framing == Some(Framing::UntilClose),
            },
        });
    }
}

impl About {
    fn of(head: &Head) -> Self {
        Self {
            asked: Asked {
                version: head.request.version(),
                head: head.request.method() == Method::HEAD,
                keeps_alive: head.keeps_alive,
            },
            takes_trailers: head.takes_trailers,
            asks_to_switch: head.asks_to_switch,
            switch: None,
        }
    }
}

impl Default for About {
    /// Of what is no request, and the last of its connection.
    fn default() -> Self {
        Self {
            asked: Asked {
                version: Version::HTTP_11,
                head: false,
                keeps_alive: false,
            },
            takes_trailers: false,
            asks_to_switch: false,
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

impl Writing {
    fn poll(&mut self, wire: &Shared, stall: &mut Stall, cx: &mut Context<'_>) -> Poll<Wrote> {
        loop {
            if self.stuck
                && let Err(error) = ready!(self.poll_write(&mut wire.lock(), stall, cx))
            {
                return Poll::Ready(Wrote::Broken(error.into()));
            }
            match self.poll_move(wire, stall, cx) {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Wrote::Broken(error)),
                Poll::Pending => return Poll::Pending,
            }
            // Not with the wire locked: it may be read from to send the rest of the request.
            let frame = match self.framing {
                Some(_) => Pin::new(&mut self.body).poll_frame(cx),
                None => Poll::Ready(None),
            };
            let mut wire = wire.lock();
            let waits = frame.is_pending();
            let added = match frame {
                Poll::Ready(Some(Ok(frame))) => self.add(frame, &mut wire.outbox),
                Poll::Ready(None) => self.end(&mut wire.outbox),
                Poll::Ready(Some(Err(error))) => {
                    // What did come goes out before it breaks off.
                    let _ = wire.poll_write(cx);
                    Err(error)
                }
                Poll::Pending => Ok(()),
            };
            if let Err(error) = added {
                return Poll::Ready(Wrote::Broken(error));
            }
            // Small pieces go out together.
            if !waits && self.framing.is_some() && wire.outbox.has_room() {
                continue;
            }
            if let Err(error) = ready!(self.poll_write(&mut wire, stall, cx)) {
                return Poll::Ready(Wrote::Broken(error.into()));
            }
            if waits {
                let gone = wire.poll_gone(cx);
                wire.pause();
                return gone.map(|()| Wrote::Broken(gone_away()));
            }
            if self.framing.is_none() {
                return Poll::Ready(Wrote::All);
            }
        }
    }

    /// Writes what there is.
    fn poll_write(
        &mut self,
        wire: &mut Wire,
        stall: &mut Stall,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let gone = wire.outbox.gone();
        let wrote = wire.poll_write(cx);
        if gone != wire.outbox.gone() {
            stall.moved();
        }
        let wrote = stall.check(wrote, cx);
        self.stuck = wrote.is_pending();
        if self.stuck {
            wire.pause();
        } else {
            self.begun = true;
        }
        wrote
    }

    /// Moves what is large and needs no look in the kernel; whether there was something.
    fn poll_move(
        &mut self,
        wire: &Shared,
        stall: &mut Stall,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, BoxError>> {
        let Some(Framing::Length(left)) = &mut self.framing else {
            return Poll::Ready(Ok(false));
        };
        if !self.begun {
            return Poll::Ready(Ok(false));
        }
        let mut wire = wire.lock();
        if !wire.outbox.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let waits = match self.body.poll_move(&wire.stream, cx) {
            Poll::Ready(Ok(moved)) => {
                if moved > 0 {
                    stall.moved();
                }
                *left = left.saturating_sub(moved as u64);
                if *left == 0 {
                    self.framing = None;
                }
                return Poll::Ready(Ok(moved > 0));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if self.body.is_moving() => {
                stall.check(Poll::Pending::<io::Result<()>>, cx)
            }
            Poll::Pending => wire
                .poll_gone(cx)
                .map(|()| Err(io::Error::other(gone_away()))),
        };
        wire.pause();
        match waits {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            _ => Poll::Pending,
        }
    }

    fn end(&mut self, outbox: &mut Outbox) -> Result<(), BoxError> {
        if let Some(mut framing) = self.framing.take() {
            framing.end(&HeaderMap::new(), outbox)?;
        }
        Ok(())
    }

    /// Adds a piece of the body to what is to be written, and its end, if that is known.
    fn add(&mut self, frame: Frame<Bytes>, outbox: &mut Outbox) -> Result<(), BoxError> {
        let Some(framing) = &mut self.framing else {
            return Ok(());
        };
        let over = self.body.is_end_stream();
        let mut ended = match frame.is_trailers() && !self.takes_trailers {
            true => {
                framing.end(&HeaderMap::new(), outbox)?;
                true
            }
            false => framing.add(frame, outbox)?,
        };
        if over && !ended {
            framing.end(&HeaderMap::new(), outbox)?;
            ended = true;
        }
        if ended {
            self.framing = None;
        }
        Ok(())
    }
}

fn gone_away() -> BoxError {
    let gone = "the client has gone before its response was complete";
    io::Error::new(io::ErrorKind::ConnectionAborted, gone).into()
}
