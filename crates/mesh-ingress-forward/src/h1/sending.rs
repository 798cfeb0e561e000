//! How a request goes out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use http_body::Body as _;
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_http1::{Framing, request};
use mesh_ingress_io::WriteBuf;

use super::fault::Fault;
use crate::body::RequestBody;
use crate::stream::Stream;

/// Pieces of a body that are sent before the upstream is listened to again: it may have said
/// something that matters.
const PIECES: usize = 16;

/// A request on its way out: its head, and its body piece by piece. The next piece is not asked for
/// before the last one is gone, so that a client is not faster than its upstream.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    state: State,
    bodiless: bool,
    /// A piece of the body has been taken: the request is not whole any more.
    begun: bool,
    write_buf: WriteBuf,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All is sent, or the upstream takes no more.
    All,
    /// The task is woken when it goes on.
    Waits,
    /// It could go on at once.
    More,
}

#[derive(Debug, Default)]
enum State {
    /// Not an octet of it is sent: its head waits.
    Unbegun(Option<Framing>),
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
    /// This request is going to be sent, with these fields besides its own.
    pub(crate) fn begin(
        &mut self,
        request: &Request<RequestBody>,
        further: Option<&PreparedFields>,
    ) {
        let framing = Framing::of(request.body(), request.headers());
        request::write(request, further, framing, self.write_buf.begin());
        self.state = State::Unbegun(framing);
        self.bodiless = request.body().is_end_stream();
        self.begun = false;
    }

    pub(crate) fn is_unbegun(&self) -> bool {
        matches!(self.state, State::Unbegun(_))
    }

    /// Whether the request had no body.
    pub(crate) fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// Whether the request is as it was.
    pub(crate) fn is_whole(&self) -> bool {
        !self.begun
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

    /// Sends what can be sent. Fails where the body of the request does, and where not an octet went
    /// out; that the upstream takes no more of it is a matter for when it has nothing more to say,
    /// either: see [`fault`](Self::fault).
    pub(crate) fn poll(
        &mut self,
        stream: &mut Stream,
        request: Option<&mut Request<RequestBody>>,
        cx: &mut Context<'_>,
    ) -> Result<Sent, Fault> {
        let Some(request) = request else {
            return Ok(Sent::All);
        };
        let mut pieces = 0;
        loop {
            self.state = match &mut self.state {
                State::Done | State::Broken(_) => return Ok(Sent::All),
                State::Unbegun(framing) => framing.map_or(State::Rest, State::Body),
                State::Body(_) if pieces == PIECES => return Ok(Sent::More),
                State::Body(framing) => {
                    let mut framing = *framing;
                    let Poll::Ready(frame) = Pin::new(request.body_mut()).poll_frame(cx) else {
                        // The head does not wait for the body.
                        match self.write_buf.poll_write(stream, cx) {
                            Poll::Ready(Err(error)) => {
                                self.state = self.broken(stream, error)?;
                                continue;
                            }
                            _ => return Ok(Sent::Waits),
                        }
                    };
                    self.begun = true;
                    pieces += 1;
                    let frame = frame.transpose().map_err(Fault::RequestBody)?;
                    // With its last piece, so that nobody has to ask, and to write, once more.
                    let over = frame.is_none() || request.body().is_end_stream();
                    let mut ended = match frame {
                        Some(frame) => framing.encode(frame, &mut self.write_buf)?,
                        None => false,
                    };
                    if over && !ended {
                        framing.finish(&HeaderMap::new(), &mut self.write_buf)?;
                        ended = true;
                    }
                    if ended {
                        request.body_mut().finish();
                        State::Rest
                    } else {
                        State::Piece(framing)
                    }
                }
                // Small pieces go out together.
                State::Piece(framing) if pieces < PIECES && self.write_buf.is_small() => {
                    State::Body(*framing)
                }
                State::Piece(framing) => {
                    let framing = *framing;
                    match self.write_buf.poll_write(stream, cx) {
                        Poll::Ready(Ok(())) => State::Body(framing),
                        Poll::Ready(Err(error)) => self.broken(stream, error)?,
                        Poll::Pending => return Ok(Sent::Waits),
                    }
                }
                State::Rest => match stream.poll_write_last(&mut self.write_buf, cx) {
                    Poll::Ready(Ok(())) => State::Done,
                    Poll::Ready(Err(error)) => self.broken(stream, error)?,
                    Poll::Pending => return Ok(Sent::Waits),
                },
            };
        }
    }

    /// What becomes of it when writing fails.
    fn broken(&self, stream: &Stream, error: io::Error) -> Result<State, Fault> {
        // TLS may have taken octets without our knowing what became of them.
        if self.write_buf.written() == 0 && stream.negotiated().is_none() {
            return Err(Fault::Unsent);
        }
        Ok(State::Broken(Some(error.into())))
    }
}
