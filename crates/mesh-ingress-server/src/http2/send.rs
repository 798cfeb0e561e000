//! Sending the body of a response under flow control.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::Body;
use mesh_ingress_core::BoxError;
use mesh_ingress_http2::{Reason, frame};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::stream::{Blocked, Progress, SendState};
use super::tunnel::TunnelOutput;
use crate::report::Report;

/// How many bytes may wait to be written on a connection before its streams wait.
pub(super) const MAX_BUFFERED: usize = 256 * 1024;
/// How many bytes one stream may write before others have their turn.
const MAX_TURN: usize = 64 * 1024;

pin_project! {
    /// The body of a response whose head has been sent.
    pub(super) struct BodySender<B> {
        #[pin]
        source: Source<B>,
        // Taken from the source and not written.
        rest: Bytes,
        // The rest is the last.
        is_last: bool,
    }
}

pin_project! {
    #[project = SourceProj]
    pub(super) enum Source<B> {
        Body {
            #[pin]
            body: B,
        },
        Tunnel {
            output: Arc<TunnelOutput>,
        },
    }

    impl<B> PinnedDrop for Source<B> {
        fn drop(this: Pin<&mut Self>) {
            if let SourceProj::Tunnel { output } = this.project() {
                output.close();
            }
        }
    }
}

/// A stream's own state while it sends.
pub(super) struct SendProgress<'s> {
    pub(super) id: u32,
    pub(super) window: &'s mut i64,
    pub(super) blocked: &'s mut Blocked,
    pub(super) stalled_since: &'s mut Option<Instant>,
}

impl<B> BodySender<B> {
    pub(super) fn new(source: Source<B>) -> Self {
        Self {
            source,
            rest: Bytes::new(),
            is_last: false,
        }
    }
}

impl<B> BodySender<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Sends what the windows and the buffer allow.
    pub(super) fn poll(
        self: Pin<&mut Self>,
        stream: &mut SendProgress<'_>,
        send: &mut SendState,
        cx: &mut Context<'_>,
    ) -> Progress {
        let mut this = self.project();
        let mut written = 0;
        *stream.blocked = Blocked::No;
        loop {
            while !this.rest.is_empty() {
                if send.buf.len() >= MAX_BUFFERED {
                    *stream.blocked = Blocked::Buffer;
                    return Progress::Pending;
                }
                let window = usize::try_from((*stream.window).min(send.window)).unwrap_or(0);
                let length = this.rest.len().min(window).min(send.max_frame);
                if length == 0 {
                    *stream.blocked = Blocked::Window;
                    return Progress::Pending;
                }
                if written >= MAX_TURN {
                    cx.waker().wake_by_ref();
                    return Progress::Pending;
                }
                let piece = this.rest.split_to(length);
                let ends = *this.is_last && this.rest.is_empty();
                frame::data(send.buf.buffer(), stream.id, length, ends);
                send.buf.push(piece);
                *stream.window -= length as i64;
                send.window -= length as i64;
                send.data_sent = true;
                *stream.stalled_since = None;
                written += length;
                if ends {
                    return Progress::EndStreamSent;
                }
            }
            if *this.is_last {
                frame::data(send.buf.buffer(), stream.id, 0, true);
                return Progress::EndStreamSent;
            }
            match this.source.as_mut().poll_next(cx) {
                Poll::Ready(Next::Piece { piece, is_last }) => {
                    *this.rest = piece;
                    *this.is_last = is_last;
                }
                Poll::Ready(Next::Trailers(trailers)) => {
                    let frames = send.buf.buffer();
                    send.writer.trailers(stream.id, &trailers, frames);
                    return Progress::EndStreamSent;
                }
                Poll::Ready(Next::Broken(reason)) => return Progress::Broken(reason),
                Poll::Pending => return Progress::Pending,
            }
        }
    }
}

enum Next {
    Piece { piece: Bytes, is_last: bool },
    Trailers(HeaderMap),
    Broken(Reason),
}

impl Next {
    const END: Self = Self::Piece {
        piece: Bytes::new(),
        is_last: true,
    };
}

impl<B> Source<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        match self.project() {
            SourceProj::Body { mut body } => match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(match frame.into_data() {
                    Ok(mut data) => Next::Piece {
                        piece: data.copy_to_bytes(data.remaining()),
                        is_last: body.is_end_stream(),
                    },
                    Err(frame) => match frame.into_trailers() {
                        Ok(trailers) => Next::Trailers(trailers),
                        // There are no other frames.
                        Err(_) => Next::Piece {
                            piece: Bytes::new(),
                            is_last: false,
                        },
                    },
                }),
                Poll::Ready(Some(Err(error))) => {
                    let error = error.into();
                    tracing::debug!("response over HTTP/2: {}", Report(&*error));
                    Poll::Ready(Next::Broken(super::reset_reason(&*error)))
                }
                Poll::Ready(None) => Poll::Ready(Next::END),
                Poll::Pending => Poll::Pending,
            },
            SourceProj::Tunnel { output } => output.poll_next().map(|next| match next {
                Some(Ok(piece)) => Next::Piece {
                    piece,
                    is_last: false,
                },
                Some(Err(())) => Next::Broken(Reason::CANCEL),
                None => Next::END,
            }),
        }
    }
}
