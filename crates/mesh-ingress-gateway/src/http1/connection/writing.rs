//! A response on its way to a client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use mesh_ingress::{BoxError, ResponseBody};
use mesh_ingress_http1::Framing;
use mesh_ingress_io::splice::Splice;
use mesh_ingress_io::{Flushed, WriteBuf};

use crate::http1::wire::{Shared, Wire};
use crate::stall::Stall;

/// A response on its way out; its head waits in the outbox.
#[derive(Debug)]
pub(super) struct Writing {
    body: ResponseBody,
    splice: Option<Splice<ResponseBody>>,
    framing: Option<Framing>,
    accepts_trailers: bool,
    /// Its head, and what came with it, has gone out.
    begun: bool,
    /// What there is must go out before anything is added.
    stuck: bool,
    /// Only the end of the connection tells that it is complete.
    until_close: bool,
}

/// How far a response has come.
pub(super) enum Wrote {
    All,
    /// It cannot be completed.
    Broken(BoxError),
}

impl Writing {
    /// `framing` is how its body goes, if it has one.
    pub(super) fn new(
        body: ResponseBody,
        splice: Option<Splice<ResponseBody>>,
        framing: Option<Framing>,
        accepts_trailers: bool,
    ) -> Self {
        Self {
            body,
            splice,
            framing,
            accepts_trailers,
            begun: false,
            stuck: false,
            until_close: framing == Some(Framing::UntilClose),
        }
    }

    /// Whether only the end of the connection tells that it is complete.
    pub(super) fn is_until_close(&self) -> bool {
        self.until_close
    }

    /// Writes it, as far as that goes.
    pub(super) fn poll(
        &mut self,
        wire: &mut Shared,
        stall: &mut Stall,
        cx: &mut Context<'_>,
    ) -> Poll<Wrote> {
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
            if !waits && self.framing.is_some() && wire.outbox.is_small() {
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
        let gone = wire.outbox.written();
        let wrote = wire.poll_write(cx);
        if gone != wire.outbox.written() {
            stall.moved();
        }
        let wrote = stall.check(wrote, cx, || wire.send_now());
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
        wire: &mut Shared,
        stall: &mut Stall,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, BoxError>> {
        let Some(Framing::Length(left)) = &mut self.framing else {
            return Poll::Ready(Ok(false));
        };
        if !self.begun {
            return Poll::Ready(Ok(false));
        }
        let Some(splice) = self.splice else {
            return Poll::Ready(Ok(false));
        };
        let mut wire = wire.lock();
        if !wire.outbox.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let Some(to) = wire.stream.tcp() else {
            return Poll::Ready(Ok(false));
        };
        let body = splice.of(&mut self.body);
        let waits = match body.poll_splice(to, cx) {
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
            Poll::Pending if body.is_splicing() => {
                // It is tried again where it is moved.
                stall.check(Poll::Pending, cx, || Ok(Flushed::default()))
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

    fn end(&mut self, outbox: &mut WriteBuf) -> Result<(), BoxError> {
        if let Some(mut framing) = self.framing.take() {
            framing.finish(&HeaderMap::new(), outbox)?;
        }
        Ok(())
    }

    /// Adds a piece of the body to what is to be written, and its end, if that is known.
    fn add(&mut self, frame: Frame<Bytes>, outbox: &mut WriteBuf) -> Result<(), BoxError> {
        let Some(framing) = &mut self.framing else {
            return Ok(());
        };
        let over = self.body.is_end_stream();
        let mut ended = match frame.is_trailers() && !self.accepts_trailers {
            true => {
                framing.finish(&HeaderMap::new(), outbox)?;
                true
            }
            false => framing.encode(frame, outbox)?,
        };
        if over && !ended {
            framing.finish(&HeaderMap::new(), outbox)?;
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
