//! Writing a request: its head, then its body frame by frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use http_body::Body as _;
use mesh_ingress_headers::PreparedFields;
use mesh_ingress_http1::{Framing, request};
use mesh_ingress_io::WriteBuf;

use super::error::ExchangeError;
use crate::body::RequestBody;
use crate::connect::Stream;

/// Body frames that are written before the connection reads again: the response may have begun.
const MAX_FRAMES: usize = 16;

/// Writes one request. It polls the body for the next frame only when the last one is written, so
/// that a client cannot send faster than its upstream reads.
#[derive(Debug, Default)]
pub(crate) struct RequestWriter {
    state: State,
    bodiless: bool,
    /// A frame of the body has been taken: the request is not whole any more.
    body_begun: bool,
    write_buf: WriteBuf,
}

/// How far the request has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it, or the upstream takes no more.
    All,
    /// The task is woken when more can be written.
    Pending,
    /// More could be written at once.
    More,
}

#[derive(Debug, Default)]
enum State {
    /// The head is in the buffer, and not a byte of it is sent.
    Unsent(Option<Framing>),
    /// The next frame of the body is to be read.
    Body(Framing),
    /// The buffer must be written before the next frame is read.
    Flush(Framing),
    /// The end of the request is in the buffer.
    FlushLast,
    /// The upstream takes no more of the request. It may have sent a response that says why.
    Failed(Option<ExchangeError>),
    #[default]
    Done,
}

impl RequestWriter {
    /// Begins a request, with these fields added to its own.
    pub(crate) fn begin(
        &mut self,
        request: &Request<RequestBody>,
        extra_headers: Option<&PreparedFields>,
    ) {
        let framing = Framing::of(request.body(), request.headers());
        request::write(request, extra_headers, framing, self.write_buf.begin());
        self.state = State::Unsent(framing);
        self.bodiless = request.body().is_end_stream();
        self.body_begun = false;
    }

    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self.state, State::Unsent(_))
    }

    /// Whether the request had no body.
    pub(crate) fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// Whether the request is still complete, its body included.
    pub(crate) fn is_whole(&self) -> bool {
        !self.body_begun
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Why the upstream takes no more.
    pub(crate) fn take_error(&mut self) -> Option<ExchangeError> {
        match &mut self.state {
            State::Failed(error) => error.take(),
            _ => None,
        }
    }

    /// Writes as much as the stream takes.
    ///
    /// Fails if the body of the request fails, and if not a byte of the request was sent. A later
    /// failed write is reported by [`take_error`](Self::take_error), once there is no response to
    /// read either.
    pub(crate) fn poll(
        &mut self,
        stream: &mut Stream,
        request: Option<&mut Request<RequestBody>>,
        cx: &mut Context<'_>,
    ) -> Result<Written, ExchangeError> {
        let Some(request) = request else {
            return Ok(Written::All);
        };
        let mut frames = 0;
        loop {
            self.state = match &mut self.state {
                State::Done | State::Failed(_) => return Ok(Written::All),
                State::Unsent(framing) => framing.map_or(State::FlushLast, State::Body),
                State::Body(_) if frames == MAX_FRAMES => return Ok(Written::More),
                State::Body(framing) => {
                    let mut framing = *framing;
                    let Poll::Ready(frame) = Pin::new(request.body_mut()).poll_frame(cx) else {
                        // The head does not wait for the body.
                        match self.write_buf.poll_write(stream, cx) {
                            Poll::Ready(Err(error)) => {
                                self.state = self.failed(stream, error)?;
                                continue;
                            }
                            _ => return Ok(Written::Pending),
                        }
                    };
                    self.body_begun = true;
                    frames += 1;
                    let frame = frame.transpose().map_err(ExchangeError::RequestBody)?;
                    // The end goes out with the last frame: one poll and one write less.
                    let last = frame.is_none() || request.body().is_end_stream();
                    let mut ended = match frame {
                        Some(frame) => framing.encode(frame, &mut self.write_buf)?,
                        None => false,
                    };
                    if last && !ended {
                        framing.finish(&HeaderMap::new(), &mut self.write_buf)?;
                        ended = true;
                    }
                    if ended {
                        request.body_mut().finish();
                        State::FlushLast
                    } else {
                        State::Flush(framing)
                    }
                }
                // Small frames go out together.
                State::Flush(framing) if frames < MAX_FRAMES && self.write_buf.is_small() => {
                    State::Body(*framing)
                }
                State::Flush(framing) => {
                    let framing = *framing;
                    match self.write_buf.poll_write(stream, cx) {
                        Poll::Ready(Ok(())) => State::Body(framing),
                        Poll::Ready(Err(error)) => self.failed(stream, error)?,
                        Poll::Pending => return Ok(Written::Pending),
                    }
                }
                State::FlushLast => match stream.poll_write_last(&mut self.write_buf, cx) {
                    Poll::Ready(Ok(())) => State::Done,
                    Poll::Ready(Err(error)) => self.failed(stream, error)?,
                    Poll::Pending => return Ok(Written::Pending),
                },
            };
        }
    }

    /// The state after a failed write.
    fn failed(&self, stream: &Stream, error: io::Error) -> Result<State, ExchangeError> {
        // TLS may have buffered bytes of the request, sent or not.
        if self.write_buf.written() == 0 && stream.negotiated().is_none() {
            return Err(ExchangeError::Unsent);
        }
        Ok(State::Failed(Some(error.into())))
    }
}
