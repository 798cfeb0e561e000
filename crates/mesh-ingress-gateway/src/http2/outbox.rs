//! Frames on their way out.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::stall::{Sent, send_now};

/// Pieces of bodies that are no longer than this are copied: many small responses go out in one
/// slice, which costs the kernel less than two for each.
const COPIED: usize = 2 * 1024;
/// Slices that go out in one system call.
const SLICES: usize = 32;
/// What is kept for the next connection of the thread that has something to say.
const KEPT: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is to be written next: frames, and among them pieces of bodies that are not copied. Its
/// room is the connection's only while there is something in it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: Vec<u8>,
    /// How many of these are gone.
    written: usize,
    /// Each goes behind so many octets of the frames.
    pieces: VecDeque<(usize, Bytes)>,
    /// Octets of the pieces.
    pieces_len: usize,
}

impl Outbox {
    /// Where to write frames.
    pub(super) fn frames(&mut self) -> &mut Vec<u8> {
        if self.frames.capacity() == 0 {
            // Not at the end of the thread.
            self.frames = SPARE.try_with(Cell::take).unwrap_or_default();
        }
        &mut self.frames
    }

    /// A piece of a body, behind the head of its frame.
    pub(super) fn piece(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            self.frames.extend_from_slice(&piece);
        } else {
            self.pieces_len += piece.len();
            self.pieces.push_back((self.frames.len(), piece));
        }
    }

    /// How many octets wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len() - self.written + self.pieces_len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes until all is gone.
    pub(super) fn poll_write<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let stream = Pin::new(&mut *stream);
            let written = match self.pieces.is_empty() {
                true => ready!(stream.poll_write(cx, &self.frames[self.written..]))?,
                false => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let count = self.slices(&mut slices);
                    ready!(stream.poll_write_vectored(cx, &slices[..count]))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what the socket takes, whatever the runtime takes it to.
    pub(super) fn send_now(&mut self, stream: &TcpStream) -> io::Result<Sent> {
        send_now(stream, self, Self::first, Self::advance)
    }

    /// The first octets of what is to be written, in one piece.
    fn first(&self) -> &[u8] {
        match self.pieces.front() {
            Some((behind, piece)) if *behind == self.written => piece,
            Some((behind, _)) => &self.frames[self.written..*behind],
            None => &self.frames[self.written..],
        }
    }

    /// What is to be written, in its order.
    fn slices<'s>(&'s self, slices: &mut [IoSlice<'s>; SLICES]) -> usize {
        let (mut count, mut at) = (0, self.written);
        for (behind, piece) in &self.pieces {
            if count + 2 > SLICES {
                return count;
            }
            if *behind > at {
                slices[count] = IoSlice::new(&self.frames[at..*behind]);
                count += 1;
                at = *behind;
            }
            slices[count] = IoSlice::new(piece);
            count += 1;
        }
        if count < SLICES && at < self.frames.len() {
            slices[count] = IoSlice::new(&self.frames[at..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut octets: usize) {
        while octets > 0 {
            let next = self.pieces.front().map_or(self.frames.len(), |next| next.0);
            let frames = octets.min(next - self.written);
            self.written += frames;
            octets -= frames;
            let Some((_, piece)) = self.pieces.front_mut().filter(|_| octets > 0) else {
                break;
            };
            let gone = octets.min(piece.len());
            piece.advance(gone);
            self.pieces_len -= gone;
            octets -= gone;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        // Room of what is gone, if something always waits behind it.
        if self.written >= KEPT {
            self.frames.drain(..self.written);
            for piece in &mut self.pieces {
                piece.0 -= self.written;
            }
            self.written = 0;
        }
        if self.is_empty() {
            self.written = 0;
            self.frames.clear();
            let spare = std::mem::take(&mut self.frames);
            if spare.capacity() <= KEPT {
                let _ = SPARE.try_with(|kept| kept.set(spare));
            }
            self.pieces.shrink_to(SLICES);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Takes so many octets at a time.
    struct Slow(Vec<u8>, Vec<usize>);

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = self.1.pop().unwrap_or(usize::MAX).clamp(1, octets.len());
            self.0.extend_from_slice(&octets[..taken]);
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

    /// A client that always has something left to read.
    #[test]
    fn what_is_gone_takes_no_memory() {
        let (mut outbox, mut cx) = (Outbox::default(), Context::from_waker(Waker::noop()));
        let mut read = 0;
        outbox.frames().extend_from_slice(&[0; 1_000]);
        for _ in 0..10_000 {
            outbox.frames().extend_from_slice(&[0; 9]);
            outbox.piece(Bytes::from_static(&[0; 1_000]));
            let waits = outbox.len() - 1_009;
            let mut stuck = Stuck(waits);
            assert!(outbox.poll_write(&mut stuck, &mut cx).is_pending());
            read += waits;
        }
        assert_eq!(read + outbox.len(), 1_000 + 10_000 * 1_009);
        assert!(
            outbox.frames.capacity() < 4 * KEPT,
            "{}",
            outbox.frames.capacity()
        );
    }

    /// Takes so many octets in all.
    struct Stuck(usize);

    impl AsyncWrite for Stuck {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = self.0.min(octets.len());
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
        fn all_goes_out_in_its_order(
            parts in proptest::collection::vec((0..50_usize, 0..9_000_usize), 0..60),
            takes in proptest::collection::vec(0..20_000_usize, 0..100)) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (number, (frame, piece)) in parts.into_iter().enumerate() {
                let number = u8::try_from(number).unwrap();
                let frame = vec![number; frame];
                let piece = vec![number | 0x80; piece];
                expected.extend_from_slice(&frame);
                expected.extend_from_slice(&piece);
                outbox.frames().extend_from_slice(&frame);
                outbox.piece(piece.into());
            }
            prop_assert_eq!(outbox.len(), expected.len());
            let mut slow = Slow(Vec::new(), takes);
            let mut cx = Context::from_waker(Waker::noop());
            prop_assert!(outbox.poll_write(&mut slow, &mut cx).is_ready());
            prop_assert_eq!(slow.0, expected);
            prop_assert!(outbox.is_empty());
            prop_assert_eq!(outbox.frames.capacity(), 0);
        }
    }
}
