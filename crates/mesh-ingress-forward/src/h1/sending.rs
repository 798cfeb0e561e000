//! How a request goes out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request};
use http_body::Body as _;

use super::fault::Fault;
use super::outbox::Outbox;
use super::request::{self, Framing};
use crate::body::RequestBody;
use crate::stream::Stream;

/// Room for a head that is kept for the next request; longer ones are rare.
const HEAD_ROOM: usize = 4 * 1024;

/// A request on its way out: its head, and its body piece by piece. The next piece is not asked for
/// before the last one is gone, so that a client is not faster than its upstream.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    state: State,
    bodiless: bool,
    outbox: Outbox,
}

#[derive(Debug, Default)]
enum State {
    /// Not an octet of it is written.
    Unbegun,
    /// The next piece of its body is to come.
    Body(Framing),
    /// A piece must go out before the next is asked for.
    Piece(Framing),
    /// All that is left waits to be written.
    Rest,
    /// The upstream takes no more of it. It may have said why.
    Broken(Option<Fault>),
    #[default]
    Done,
}

impl Sending {
    /// This request is going to be sent.
    pub(crate) fn expect(&mut self, request: &Request<RequestBody>) {
        self.state = State::Unbegun;
        self.bodiless = request.body().is_end_stream();
    }

    pub(crate) fn is_unbegun(&self) -> bool {
        matches!(self.state, State::Unbegun)
    }

    /// Whether the request had no body.
    pub(crate) fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Why the upstream takes no more.
    pub(crate) fn fault(&mut self) -> Option<Fault> {
        match &mut self.state {
            State::Broken(fault) => fault.take(),
            _ => None,
        }
    }

    /// Sends what can be sent. Fails where the body of the request does; that the upstream takes no
    /// more of it is a matter for when it has nothing more to say, either: see
    /// [`fault`](Self::fault).
    pub(crate) fn poll(
        &mut self,
        stream: &mut Stream,
        request: Option<&mut Request<RequestBody>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if matches!(self.state, State::Done | State::Broken(_)) {
            return Poll::Ready(Ok(()));
        }
        let Some(request) = request else {
            return Poll::Pending;
        };
        loop {
            self.state = match &mut self.state {
                State::Done | State::Broken(_) => return Poll::Ready(Ok(())),
                State::Unbegun => match request::write_head(request, self.outbox.framing()) {
                    Framing::Empty => State::Rest,
                    framing => State::Body(framing),
                },
                State::Body(framing) => {
                    let mut framing = *framing;
                    let Poll::Ready(frame) = Pin::new(request.body_mut()).poll_frame(cx) else {
                        // The head does not wait for the body.
                        if let Err(error) = ready!(self.outbox.poll_write(stream, cx)) {
                            self.state = State::Broken(Some(error.into()));
                            continue;
                        }
                        return Poll::Pending;
                    };
                    let ended = match frame.transpose().map_err(Fault::RequestBody)? {
                        Some(frame) => framing.add(frame, &mut self.outbox)?,
                        None => {
                            framing.end(&HeaderMap::new(), &mut self.outbox)?;
                            true
                        }
                    };
                    if ended {
                        request.body_mut().finish();
                        State::Rest
                    } else {
                        State::Piece(framing)
                    }
                }
                State::Piece(framing) => {
                    let framing = *framing;
                    match ready!(self.outbox.poll_write(stream, cx)) {
                        Ok(()) => State::Body(framing),
                        Err(error) => State::Broken(Some(error.into())),
                    }
                }
                State::Rest => match ready!(self.outbox.poll_write(stream, cx)) {
                    Ok(()) => {
                        self.outbox.shrink(HEAD_ROOM);
                        State::Done
                    }
                    Err(error) => State::Broken(Some(error.into())),
                },
            };
        }
    }
}
