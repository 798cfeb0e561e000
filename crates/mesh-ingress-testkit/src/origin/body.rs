//! Bodies that origins answer with.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::Gate;

/// Whole alphabets, so that every chunk begins with `a`.
const CHUNK: usize = 26 * 630;

/// The letters `a` to `z` over and over, a given number of bytes, generated on demand.
pub(super) struct Pattern {
    left: u64,
    known: bool,
    chunk: Bytes,
}

/// A text held back by a gate.
pub(super) struct Held {
    opened: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    text: &'static str,
}

/// Frames one after another, of a length that is not told beforehand.
pub(super) struct Frames(pub(super) VecDeque<Frame<Bytes>>);

impl Pattern {
    /// `known`: whether the length is told, which makes it `Content-Length` on HTTP/1.
    pub(super) fn new(length: u64, known: bool) -> Self {
        Self {
            left: length,
            known,
            chunk: (b'a'..=b'z').cycle().take(CHUNK).collect(),
        }
    }
}

impl Held {
    pub(super) fn new(gate: Gate, text: &'static str) -> Self {
        Self {
            opened: Some(Box::pin(async move { gate.opened().await })),
            text,
        }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = self.chunk.clone();
        if let Ok(left) = usize::try_from(self.left) {
            chunk.truncate(left);
        }
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.known {
            SizeHint::with_exact(self.left)
        } else {
            SizeHint::default()
        }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(opened) = &mut self.opened else {
            return Poll::Ready(None);
        };
        ready!(opened.as_mut().poll(cx));
        self.opened = None;
        let text = Bytes::from_static(self.text.as_bytes());
        Poll::Ready(Some(Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.opened.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.opened {
            Some(_) => SizeHint::with_exact(self.text.len() as u64),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}
