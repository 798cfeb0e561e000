//! Writing a response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame};
use mesh_ingress_core::BoxError;
use mesh_ingress_http1::Framing;
use mesh_ingress_io::splice::Splice;
use mesh_ingress_io::{Flushed, WriteBuf};
use pin_project_lite::pin_project;

use crate::http1::transport::{SharedTransport, Transport};
use crate::write_timeout::WriteTimeout;

pin_project! {
    /// Writes a response whose head waits in the write buffer.
    pub(super) struct ResponseWriter<B> {
        #[pin]
        body: Option<B>,
        splice: Option<Splice<B>>,
        // How the rest of the body is to be written; `None` when nothing is to come.
        framing: Option<Framing>,
        accepts_trailers: bool,
        // The head, and what came with it, has been written.
        head_written: bool,
        // The buffer must be written before anything is added.
        blocked: bool,
        // Only the end of the connection tells that the body is complete.
        until_close: bool,
    }
}

type PolledFrame<B> = Poll<Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>>;

/// How a response has ended.
pub(super) enum Wrote {
    All,
    /// It cannot be completed.
    Incomplete(BoxError),
}

impl<B> ResponseWriter<B> {
    /// `framing` is how the body is to be written, if it is.
    pub(super) fn new(
        body: Option<B>,
        splice: Option<Splice<B>>,
        framing: Option<Framing>,
        accepts_trailers: bool,
    ) -> Self {
        Self {
            body,
            splice,
            framing,
            accepts_trailers,
            head_written: false,
            blocked: false,
            until_close: framing == Some(Framing::UntilClose),
        }
    }

    /// Whether only the end of the connection tells that the body is complete.
    pub(super) fn is_until_close(&self) -> bool {
        self.until_close
    }
}

impl<B> ResponseWriter<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Writes as much as goes.
    pub(super) fn poll(
        mut self: Pin<&mut Self>,
        transport: &mut SharedTransport,
        timeout: &mut WriteTimeout,
        cx: &mut Context<'_>,
    ) -> Poll<Wrote> {
        loop {
            if self.blocked
                && let Err(error) =
                    ready!(self.as_mut().poll_flush(&mut transport.lock(), timeout, cx))
            {
                return Poll::Ready(Wrote::Incomplete(error.into()));
            }
            if self.splice.is_some() {
                match self.as_mut().poll_splice(transport, timeout, cx) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Wrote::Incomplete(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            // The transport is not locked here: the rest of the request may be read from it.
            let frame = self.as_mut().poll_frame(cx);
            let mut transport = transport.lock();
            let waits = frame.is_pending();
            let encoded = match frame {
                Poll::Ready(Some(Ok(frame))) => {
                    self.as_mut().encode(frame, &mut transport.write_buf)
                }
                Poll::Ready(None) => self.as_mut().finish(&mut transport.write_buf),
                Poll::Ready(Some(Err(error))) => {
                    // The bytes that did come are written before the response breaks off.
                    let _ = transport.poll_flush(cx);
                    Err(error.into())
                }
                Poll::Pending => Ok(()),
            };
            if let Err(error) = encoded {
                return Poll::Ready(Wrote::Incomplete(error));
            }
            // Small pieces are gathered.
            if !waits && self.framing.is_some() && transport.write_buf.is_small() {
                continue;
            }
            if let Err(error) = ready!(self.as_mut().poll_flush(&mut transport, timeout, cx)) {
                return Poll::Ready(Wrote::Incomplete(error.into()));
            }
            if waits {
                let gone = transport.poll_client_gone(cx);
                transport.pause();
                return gone.map(|()| Wrote::Incomplete(client_gone()));
            }
            if self.framing.is_none() {
                return Poll::Ready(Wrote::All);
            }
        }
    }

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<B> {
        match (self.framing, self.project().body.as_pin_mut()) {
            (Some(_), Some(body)) => body.poll_frame(cx),
            _ => Poll::Ready(None),
        }
    }

    /// Writes what waits.
    fn poll_flush(
        self: Pin<&mut Self>,
        transport: &mut Transport,
        timeout: &mut WriteTimeout,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = transport.write_buf.written();
        let flushed = transport.poll_flush(cx);
        if before != transport.write_buf.written() {
            timeout.reset();
        }
        let flushed = timeout.poll(flushed, cx, || transport.try_flush());
        *this.blocked = flushed.is_pending();
        if *this.blocked {
            transport.pause();
        } else {
            *this.head_written = true;
        }
        flushed
    }

    /// Passes large parts of the body on in the kernel. Ready with whether any were.
    fn poll_splice(
        self: Pin<&mut Self>,
        transport: &mut SharedTransport,
        timeout: &mut WriteTimeout,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, BoxError>> {
        let this = self.project();
        let (Some(Framing::Length(left)), Some(splice), Some(body)) =
            (this.framing.as_mut(), *this.splice, this.body.as_pin_mut())
        else {
            return Poll::Ready(Ok(false));
        };
        if !*this.head_written {
            return Poll::Ready(Ok(false));
        }
        let mut transport = transport.lock();
        let to = match transport.conn.tcp() {
            Some(to) if transport.write_buf.is_empty() => to,
            _ => return Poll::Ready(Ok(false)),
        };
        let mut body = splice.of(body);
        let waits = match body.as_mut().poll_splice(to, cx) {
            Poll::Ready(Ok(spliced)) => {
                if spliced > 0 {
                    timeout.reset();
                }
                *left = left.saturating_sub(spliced as u64);
                if *left == 0 {
                    *this.framing = None;
                }
                return Poll::Ready(Ok(spliced > 0));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if body.is_splicing() => {
                // The body itself tries a full socket again.
                timeout.poll(Poll::Pending, cx, || Ok(Flushed::default()))
            }
            Poll::Pending => transport
                .poll_client_gone(cx)
                .map(|()| Err(io::Error::other(client_gone()))),
        };
        transport.pause();
        match waits {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            _ => Poll::Pending,
        }
    }

    /// Encodes the end of the body.
    fn finish(self: Pin<&mut Self>, out: &mut WriteBuf) -> Result<(), BoxError> {
        if let Some(mut framing) = self.project().framing.take() {
            framing.finish(&HeaderMap::new(), out)?;
        }
        Ok(())
    }

    /// Encodes a frame of the body, and its end where that is known.
    fn encode(
        self: Pin<&mut Self>,
        frame: Frame<B::Data>,
        out: &mut WriteBuf,
    ) -> Result<(), BoxError> {
        let this = self.project();
        let Some(framing) = this.framing else {
            return Ok(());
        };
        let is_last = this
            .body
            .as_ref()
            .get_ref()
            .as_ref()
            .is_none_or(Body::is_end_stream);
        let mut ended = match frame.into_data() {
            Ok(mut data) => framing.encode_data(data.copy_to_bytes(data.remaining()), out)?,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let none = HeaderMap::new();
                let trailers = match *this.accepts_trailers {
                    true => &trailers,
                    false => &none,
                };
                framing.finish(trailers, out)?;
                true
            }
        };
        if is_last && !ended {
            framing.finish(&HeaderMap::new(), out)?;
            ended = true;
        }
        if ended {
            *this.framing = None;
        }
        Ok(())
    }
}

fn client_gone() -> BoxError {
    let gone = "the client has gone before its response was complete";
    io::Error::new(io::ErrorKind::ConnectionAborted, gone).into()
}
