//! What is to be written next.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// The piece of a body behind this is copied to it: one slice costs the kernel less than two, and
/// so short a copy next to nothing.
const COPIED: usize = 256;

/// Small pieces that are there at once go out together, so many octets of them.
const TOGETHER: usize = 16 * 1024;

/// Octets on their way out: a head or the frame of a chunk, and a piece of a body that is not
/// copied. All go out in one system call where the socket takes them.
#[derive(Debug, Default)]
pub struct Outbox {
    framing: Vec<u8>,
    /// How many of these are gone.
    written: usize,
    piece: Bytes,
    /// Ends a chunk.
    tail: &'static [u8],
    /// Octets that have gone out since the request was begun.
    gone: usize,
}

impl Outbox {
    /// Where to write a head or the frame of a chunk. What comes later goes out later.
    pub fn framing(&mut self) -> &mut Vec<u8> {
        &mut self.framing
    }

    /// Another request begins: where to write its head.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.gone = 0;
        &mut self.framing
    }

    /// How many octets have gone out since.
    #[must_use]
    pub fn gone(&self) -> usize {
        self.gone
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.framing.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Whether more may be added before it has gone out: there are only small things so far.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.framing.len() < TOGETHER
    }

    /// A piece of the body. Nothing may be added behind it unless there [is room](Self::has_room).
    pub fn piece(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            self.framing.extend_from_slice(&piece);
        } else {
            debug_assert!(self.has_room(), "a piece that waits would be lost");
            self.piece = piece;
        }
    }

    /// The same, as a chunk.
    pub fn chunk(&mut self, piece: Bytes) {
        // Writing to memory does not fail.
        let _ = write!(self.framing, "{:x}\r\n", piece.len());
        self.piece(piece);
        if self.piece.is_empty() {
            self.framing.extend_from_slice(b"\r\n");
        } else {
            self.tail = b"\r\n";
        }
    }

    /// The last chunk, the one without octets, behind what is there, and no trailers.
    pub fn last_chunk(&mut self) {
        if self.tail.is_empty() {
            self.framing.extend_from_slice(b"0\r\n\r\n");
        } else {
            self.tail = b"\r\n0\r\n\r\n";
        }
    }

    /// Writes until all is gone.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let framing = &self.framing[self.written..];
            let only = match (framing.is_empty(), self.piece.is_empty(), self.tail) {
                (false, true, []) => Some(framing),
                (true, false, []) => Some(&*self.piece),
                (true, true, tail) => Some(tail),
                _ if stream.is_write_vectored() => None,
                (false, ..) => Some(framing),
                (true, false, _) => Some(&*self.piece),
            };
            let stream = Pin::new(&mut *stream);
            let written = match only {
                Some(only) => ready!(stream.poll_write(cx, only))?,
                None => {
                    let slices = [framing, &self.piece, self.tail].map(IoSlice::new);
                    let slices = if self.tail.is_empty() {
                        &slices[..2]
                    } else {
                        &slices
                    };
                    ready!(stream.poll_write_vectored(cx, slices))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn advance(&mut self, octets: usize) {
        self.gone = self.gone.saturating_add(octets);
        let framing = octets.min(self.framing.len() - self.written);
        self.written += framing;
        if self.written == self.framing.len() {
            self.framing.clear();
            self.written = 0;
        }
        let octets = octets - framing;
        let piece = octets.min(self.piece.len());
        self.piece.advance(piece);
        if self.piece.is_empty() {
            // Whoever made it gets it back.
            self.piece = Bytes::new();
        }
        self.tail = self.tail.get(octets - piece..).unwrap_or_default();
    }

    /// Gives room back that only a large head needed.
    pub fn shrink(&mut self, room: usize) {
        self.framing.shrink_to(room);
    }
}
