//! Bytes on their way out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use tokio::io::AsyncWrite;

use crate::Conn;
use crate::spare::{self, MAX_WRITE};

/// Pieces of bodies up to this length are copied behind their head: one slice costs the kernel less
/// than two, up to about twice this length (measured).
const MAX_COPIED: usize = 2 * 1024;
/// Small pieces are gathered up to this length before they are written.
const MAX_GATHERED: usize = 16 * 1024;
/// Slices in one system call, and what is kept of the queue while nothing is in it.
const MAX_SLICES: usize = 32;

/// A queue of what is to be written: heads and frames, which are copied into one buffer, and between
/// them pieces of bodies, which are not copied. As much as the socket takes goes out in one system call.
///
/// The buffer belongs to the connection only while there is something in it: what the connections of a
/// thread write one after the other, they write to memory that the processor has in its cache.
///
/// An encoder writes to it as to a `Vec<u8>` ([`AsMut`]) and adds pieces by [`Extend`].
#[derive(Debug, Default)]
pub struct WriteBuf {
    /// Copied bytes. Empty only if the whole queue is.
    copied: Vec<u8>,
    /// How much of it is written.
    consumed: usize,
    /// Pieces that are not copied, each with its offset in `copied`.
    pieces: VecDeque<(usize, Bytes)>,
    /// Bytes in the pieces.
    pieces_len: usize,
    /// Bytes written since the message was begun.
    written: usize,
}

/// Outcome of [`WriteBuf::try_flush`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes that the socket has taken.
    pub bytes: usize,
    /// Nothing is left in the queue. Otherwise the socket is full.
    pub all: bool,
}

impl WriteBuf {
    /// Where to write a head or a frame, behind all that is in the queue.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.copied.capacity() == 0 {
            self.copied = spare::take_write();
        }
        &mut self.copied
    }

    /// Begins a message and counts [`written`](Self::written) anew. Returns where to write its head.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        self.written = 0;
        self.buffer()
    }

    /// Bytes that the socket has taken since the last [`begin`](Self::begin).
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Adds a piece of a body.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() <= MAX_COPIED {
            self.buffer().extend_from_slice(&piece);
        } else {
            self.pieces_len += piece.len();
            self.pieces.push_back((self.copied.len(), piece));
        }
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.copied.len() - self.consumed + self.pieces_len
    }

    /// Whether none waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.copied.is_empty() && self.pieces.is_empty()
    }

    /// Whether only little waits, so that more may be gathered before it is written.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.pieces.is_empty() && self.copied.len() < MAX_GATHERED
    }

    /// Writes until the queue is empty, and flushes.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_write<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let stream = Pin::new(&mut *stream);
            let first = self.first();
            let written = if self.pieces.is_empty()
                || first.len() == self.len()
                || !stream.is_write_vectored()
            {
                ready!(stream.poll_write(cx, first))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = self.slices(&mut slices);
                ready!(stream.poll_write_vectored(cx, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Sends what the socket takes without asking the runtime, which may take a socket to be full that
    /// has room: it learns of room only when a third of the socket's buffer is free. A connection that
    /// is [no socket](Conn::tcp) takes nothing here.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn try_flush(&mut self, conn: &Conn) -> io::Result<Flushed> {
        let mut bytes = 0;
        let Some(stream) = conn.tcp() else {
            let all = self.is_empty();
            return Ok(Flushed { bytes, all });
        };
        loop {
            let first = self.first();
            if first.is_empty() {
                return Ok(Flushed { bytes, all: true });
            }
            match SockRef::from(stream).send(first) {
                Ok(sent) => {
                    self.advance(sent);
                    bytes += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed { bytes, all: false });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The first bytes of the queue that lie in one piece of memory.
    fn first(&self) -> &[u8] {
        match self.pieces.front() {
            Some((offset, piece)) if *offset == self.consumed => piece,
            Some((offset, _)) => &self.copied[self.consumed..*offset],
            None => &self.copied[self.consumed..],
        }
    }

    /// The begin of the queue, as slices in its order. Returns how many.
    fn slices<'s>(&'s self, slices: &mut [IoSlice<'s>; MAX_SLICES]) -> usize {
        let (mut count, mut at) = (0, self.consumed);
        for (offset, piece) in &self.pieces {
            if count + 2 > MAX_SLICES {
                return count;
            }
            if *offset > at {
                slices[count] = IoSlice::new(&self.copied[at..*offset]);
                count += 1;
                at = *offset;
            }
            slices[count] = IoSlice::new(piece);
            count += 1;
        }
        if count < MAX_SLICES && at < self.copied.len() {
            slices[count] = IoSlice::new(&self.copied[at..]);
            count += 1;
        }
        count
    }

    /// Removes bytes that have been written.
    fn advance(&mut self, mut bytes: usize) {
        self.written = self.written.saturating_add(bytes);
        while bytes > 0 {
            let next = self.pieces.front().map_or(self.copied.len(), |next| next.0);
            let copied = bytes.min(next - self.consumed);
            self.consumed += copied;
            bytes -= copied;
            let Some((_, piece)) = self.pieces.front_mut().filter(|_| bytes > 0) else {
                break;
            };
            let gone = bytes.min(piece.len());
            piece.advance(gone);
            self.pieces_len -= gone;
            bytes -= gone;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.consumed == self.copied.len() && self.pieces.is_empty() {
            self.consumed = 0;
            spare::give_write(std::mem::take(&mut self.copied));
            self.pieces.shrink_to(MAX_SLICES);
        } else if self.consumed >= MAX_WRITE {
            // A queue that is never empty must not grow for ever.
            self.copied.drain(..self.consumed);
            for piece in &mut self.pieces {
                piece.0 -= self.consumed;
            }
            self.consumed = 0;
        }
    }

    /// Frees what an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

impl AsMut<Vec<u8>> for WriteBuf {
    #[inline]
    fn as_mut(&mut self) -> &mut Vec<u8> {
        self.buffer()
    }
}

impl Extend<Bytes> for WriteBuf {
    #[inline]
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        for piece in pieces {
            self.push(piece);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// A stream that takes at most so many bytes at a time.
    struct Slow(Vec<u8>, Vec<usize>);

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = self.1.pop().unwrap_or(usize::MAX).clamp(1, bytes.len());
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all = slices.iter().flat_map(|slice| slice.iter().copied());
            let all: Vec<u8> = all.collect();
            self.as_mut().poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let (mut buf, mut cx) = (WriteBuf::default(), Context::from_waker(Waker::noop()));
        let mut read = 0;
        buf.buffer().extend_from_slice(&[0; 1_000]);
        for _ in 0..10_000 {
            buf.buffer().extend_from_slice(&[0; 9]);
            buf.push(Bytes::from_static(&[0; 1_000]));
            let waits = buf.len() - 1_009;
            let mut stuck = Stuck(waits);
            assert!(buf.poll_write(&mut stuck, &mut cx).is_pending());
            read += waits;
        }
        assert_eq!(read + buf.len(), 1_000 + 10_000 * 1_009);
        assert!(
            buf.copied.capacity() < 4 * MAX_WRITE,
            "{}",
            buf.copied.capacity()
        );
    }

    /// A stream that takes so many bytes and no more.
    struct Stuck(usize);

    impl AsyncWrite for Stuck {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = self.0.min(bytes.len());
            self.0 -= taken;
            match taken {
                0 => Poll::Pending,
                taken => Poll::Ready(Ok(taken)),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn bytes_go_out_in_order(
            parts in proptest::collection::vec((0..50_usize, 0..9_000_usize), 0..60),
            takes in proptest::collection::vec(0..20_000_usize, 0..100)) {
            let mut buf = WriteBuf::default();
            let mut expected = Vec::new();
            for (number, (frame, piece)) in parts.into_iter().enumerate() {
                let number = u8::try_from(number).unwrap();
                let frame = vec![number; frame];
                let piece = vec![number | 0x80; piece];
                expected.extend_from_slice(&frame);
                expected.extend_from_slice(&piece);
                buf.buffer().extend_from_slice(&frame);
                buf.push(piece.into());
            }
            prop_assert_eq!(buf.len(), expected.len());
            let mut slow = Slow(Vec::new(), takes);
            let mut cx = Context::from_waker(Waker::noop());
            prop_assert!(buf.poll_write(&mut slow, &mut cx).is_ready());
            let slow_len = expected.len();
            prop_assert_eq!(slow.0, expected);
            prop_assert!(buf.is_empty());
            prop_assert_eq!(buf.copied.capacity(), 0);
            prop_assert_eq!(buf.written(), slow_len);
        }
    }

    #[test]
    fn an_emptied_buffer_is_reused_by_the_next_connection() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut one, mut other) = (WriteBuf::default(), WriteBuf::default());
        one.begin().extend_from_slice(b"one");
        let memory = one.copied.as_ptr();
        let mut slow = Slow(Vec::new(), Vec::new());
        assert!(one.poll_write(&mut slow, &mut cx).is_ready());
        assert_eq!(one.copied.capacity(), 0);
        other.begin().extend_from_slice(b"other");
        assert_eq!(other.copied.as_ptr(), memory);
    }

    #[test]
    fn buffers_in_use_are_not_shared() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut one, mut other) = (WriteBuf::default(), WriteBuf::default());
        one.begin().extend_from_slice(b"one");
        other.begin().extend_from_slice(b"other");
        let mut slow = Slow(Vec::new(), Vec::new());
        assert!(other.poll_write(&mut slow, &mut cx).is_ready());
        assert!(one.poll_write(&mut slow, &mut cx).is_ready());
        assert_eq!(slow.0, b"otherone");
    }

    #[test]
    fn a_large_buffer_is_freed_when_it_is_written() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut buf = WriteBuf::default();
        buf.begin().extend_from_slice(&[b'x'; 2 * MAX_WRITE]);
        let mut slow = Slow(Vec::new(), Vec::new());
        assert!(buf.poll_write(&mut slow, &mut cx).is_ready());
        assert!(buf.buffer().capacity() <= MAX_WRITE);
    }

    /// Each in a packet of its own would cost more than what is in them.
    #[test]
    fn small_pieces_are_gathered_and_large_ones_are_not() {
        let mut buf = WriteBuf::default();
        let mut pieces = 0;
        while buf.is_small() {
            buf.push(Bytes::from_static(b"x"));
            pieces += 1;
        }
        assert_eq!(pieces, MAX_GATHERED);
        let mut buf = WriteBuf::default();
        buf.push(Bytes::from(vec![b'x'; MAX_COPIED + 1]));
        assert!(!buf.is_small());
    }
}
