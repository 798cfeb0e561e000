//! What is to be written next.

use std::cell::Cell;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// A piece of a body that is no longer is copied behind its head: one slice costs the kernel less
/// than two, up to about twice this length (measured), and room for it is kept anyway.
const COPIED: usize = 2 * 1024;

/// Small pieces that are there at once go out together, so many octets of them.
const TOGETHER: usize = 16 * 1024;

/// What is kept for the next connection of the thread that has something to say.
const KEPT: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Octets on their way out: a head or the frame of a chunk, and a piece of a body that is not
/// copied. All go out in one system call where the socket takes them.
///
/// Its room is the connection's only while there is something in it: what the connections of a
/// thread write one after the other, they write to memory that the processor has at hand.
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
        if self.framing.capacity() == 0 {
            // Not at the end of the thread.
            self.framing = SPARE.try_with(Cell::take).unwrap_or_default();
        }
        &mut self.framing
    }

    /// Another request begins: where to write its head.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.gone = 0;
        self.framing()
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
            self.framing().extend_from_slice(&piece);
        } else {
            debug_assert!(self.has_room(), "a piece that waits would be lost");
            self.piece = piece;
        }
    }

    /// The same, as a chunk.
    pub fn chunk(&mut self, piece: Bytes) {
        // Writing to memory does not fail.
        let _ = write!(self.framing(), "{:x}\r\n", piece.len());
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
            self.framing().extend_from_slice(b"0\r\n\r\n");
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

    /// The first octets of what is to be written, in one piece: for who writes them by other means
    /// than [`poll_write`](Self::poll_write).
    #[must_use]
    pub fn first(&self) -> &[u8] {
        let framing = &self.framing[self.written..];
        match (framing.is_empty(), self.piece.is_empty()) {
            (false, _) => framing,
            (true, false) => &self.piece,
            (true, true) => self.tail,
        }
    }

    /// So many of the [first](Self::first) are gone.
    pub fn advance(&mut self, octets: usize) {
        self.gone = self.gone.saturating_add(octets);
        let framing = octets.min(self.framing.len() - self.written);
        self.written += framing;
        if self.written == self.framing.len() {
            self.rest();
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

    /// All of it is gone: its room is for others.
    fn rest(&mut self) {
        self.written = 0;
        let mut framing = std::mem::take(&mut self.framing);
        if (1..=KEPT).contains(&framing.capacity()) {
            framing.clear();
            let _ = SPARE.try_with(|spare| spare.set(framing));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Writes what there is to memory, so many octets at a time.
    fn written(outbox: &mut Outbox, at_once: usize) -> Vec<u8> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut some = vec![0; at_once];
            let mut stream = io::Cursor::new(&mut some[..]);
            let _ = outbox.poll_write(&mut stream, &mut cx);
            let length = stream.position() as usize;
            all.extend_from_slice(&some[..length]);
        }
        all
    }

    #[test]
    fn room_with_nothing_in_it_is_written_to_by_the_next() {
        let (mut one, mut other) = (Outbox::default(), Outbox::default());
        one.begin().extend_from_slice(b"one");
        let room = one.framing.as_ptr();
        assert_eq!(written(&mut one, 100), b"one");
        assert_eq!(one.framing.capacity(), 0);
        // What has no head takes none of it.
        one.piece(Bytes::from_static(&[b'x'; COPIED + 1]));
        assert_eq!(written(&mut one, 10_000).len(), COPIED + 1);
        other.begin().extend_from_slice(b"other");
        assert_eq!(other.framing.as_ptr(), room);
    }

    #[test]
    fn what_waits_is_not_written_over() {
        let (mut one, mut other) = (Outbox::default(), Outbox::default());
        one.begin().extend_from_slice(b"one");
        other.begin().extend_from_slice(b"other");
        assert_eq!(written(&mut other, 100), b"other");
        assert_eq!(written(&mut one, 100), b"one");
    }

    #[test]
    fn a_large_head_takes_no_memory_when_it_is_gone() {
        let mut outbox = Outbox::default();
        outbox.begin().extend_from_slice(&[b'x'; 2 * KEPT]);
        assert_eq!(written(&mut outbox, 1_000_000).len(), 2 * KEPT);
        assert!(outbox.framing().capacity() <= KEPT);
    }

    proptest! {
        #[test]
        fn all_goes_out_in_its_order(
            head in 0..5_000_usize,
            pieces in prop::collection::vec(1..6_000_usize, 0..6),
            chunked: bool,
            at_once in 1..7_000_usize,
        ) {
            let mut outbox = Outbox::default();
            let mut expected = vec![b'h'; head];
            outbox.begin().extend_from_slice(&expected);
            let mut came = Vec::new();
            for length in pieces {
                if !outbox.has_room() {
                    came.extend(written(&mut outbox, at_once));
                }
                let piece = Bytes::from(vec![b'p'; length]);
                if chunked {
                    expected.extend_from_slice(format!("{length:x}\r\n").as_bytes());
                    expected.extend_from_slice(&piece);
                    expected.extend_from_slice(b"\r\n");
                    outbox.chunk(piece);
                } else {
                    expected.extend_from_slice(&piece);
                    outbox.piece(piece);
                }
            }
            if chunked {
                expected.extend_from_slice(b"0\r\n\r\n");
                outbox.last_chunk();
            }
            came.extend(written(&mut outbox, at_once));
            prop_assert_eq!(outbox.gone(), expected.len());
            prop_assert!(came == expected);
        }
    }
}
