//! Bytes that have been read and not been used yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::spare::{self, READ_CLASSES};

/// Capacity of the smallest class: the first read of a connection.
const SMALLEST: usize = 8 * 1024;

/// A read buffer whose capacity follows the traffic: a large body is read in large pieces, and a small
/// one does not take the memory of a large one.
///
/// Its memory belongs to the connection only while there is something in it. The next connection of the
/// thread reads into the same memory, which the processor still has in its cache: a body of 16 KiB costs
/// a tenth less that way. An idle connection has no buffer.
#[derive(Debug)]
pub struct ReadBuf {
    bytes: BytesMut,
    memory: Memory,
    /// Class of the next read's capacity.
    class: usize,
    max: usize,
    /// The last read would have fitted half of the capacity.
    shrinking: bool,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    None,
    /// In a buffer of a class with this capacity, which others can reuse.
    Class(usize, usize),
    /// In a buffer that has grown with what came in pieces.
    Grown,
}

impl ReadBuf {
    /// Reads 8 KiB at once to begin with, more where more comes, and never more than `max` bytes
    /// (nor 1 MiB).
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            memory: Memory::None,
            class: 0,
            max,
            shrinking: false,
        }
    }

    /// Bytes that have been read and not been taken.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &BytesMut {
        &self.bytes
    }

    /// The same, to take from. [`settle`](Self::settle) is to be called afterwards.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The bytes that have been read and not been taken; the buffer is not needed any more.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }

    /// Reads what there is; `0` at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_fill<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let capacity = self.capacity();
        self.settle();
        if self.bytes.is_empty() {
            self.bytes = spare::take_read(self.class, capacity).unwrap_or_default();
            self.memory = Memory::Class(self.class, capacity);
        } else {
            // With what is in it, it may become larger.
            self.memory = Memory::Grown;
        }
        // Read to the beginning of the memory if nobody holds bytes of it. Else read behind them, so
        // that many small pieces that are held for a while share one allocation.
        if !self.bytes.try_reclaim(capacity) && self.room() < capacity / 2 {
            self.bytes.reserve(capacity);
        }
        let room = self.room();
        let polled = poll_read_buf(Pin::new(stream), cx, &mut self.bytes);
        match polled {
            Poll::Ready(Ok(read)) if read > 0 => self.adapt(read, room.min(capacity)),
            _ => self.settle(),
        }
        polled
    }

    /// How much can be read without another allocation.
    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    fn capacity(&self) -> usize {
        (SMALLEST << self.class).min(self.max)
    }

    /// Adapts the class to a read of `read` bytes where `room` could have been read.
    fn adapt(&mut self, read: usize, room: usize) {
        if read >= room {
            if self.capacity() < self.max && self.class + 1 < READ_CLASSES {
                self.class += 1;
            }
            self.shrinking = false;
        } else if read < self.capacity() / 2 {
            if self.shrinking {
                self.class = self.class.saturating_sub(1);
            }
            self.shrinking = !self.shrinking;
        } else {
            self.shrinking = false;
        }
    }

    /// Gives the memory to the next connection if nothing is left in it. To be called whenever bytes
    /// have been taken out.
    #[inline]
    pub fn settle(&mut self) {
        if self.memory != Memory::None && self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            if let Memory::Class(class, capacity) =
                std::mem::replace(&mut self.memory, Memory::None)
            {
                spare::give_read(class, capacity, bytes);
            }
        }
    }

    /// Begins anew with the smallest class: it may be long until something comes.
    pub fn reset(&mut self) {
        self.settle();
        if self.bytes.is_empty() {
            *self = Self::new(self.max);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads what there is from a stream of exactly that.
    fn fill(buf: &mut ReadBuf, mut stream: &[u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match buf.poll_fill(&mut stream, &mut cx) {
            Poll::Ready(read) => read.unwrap(),
            Poll::Pending => unreachable!("memory is always ready"),
        }
    }

    #[test]
    fn an_emptied_buffer_is_reused_by_the_next_connection() {
        let (mut one, mut other) = (ReadBuf::new(64 * 1024), ReadBuf::new(64 * 1024));
        fill(&mut one, b"one");
        let memory = one.bytes.as_ptr();
        drop(one.bytes.split());
        one.settle();
        assert_eq!(one.bytes.capacity(), 0);
        fill(&mut other, b"other");
        assert_eq!(other.bytes.as_ptr(), memory);
    }

    #[test]
    fn bytes_still_held_are_not_overwritten() {
        let (mut one, mut other) = (ReadBuf::new(64 * 1024), ReadBuf::new(64 * 1024));
        fill(&mut one, b"one");
        let kept = one.bytes.split().freeze();
        one.settle();
        fill(&mut other, b"other");
        assert_eq!(&kept[..], b"one");
        assert_eq!(&other.bytes[..], b"other");
    }

    #[test]
    fn small_held_pieces_share_an_allocation() {
        let (mut one, mut other) = (ReadBuf::new(64 * 1024), ReadBuf::new(64 * 1024));
        let mut kept = Vec::new();
        for number in 0..2000_u16 {
            for buf in [&mut one, &mut other] {
                fill(buf, &number.to_be_bytes());
                kept.push((number, buf.bytes.split().freeze()));
                buf.settle();
            }
        }
        assert!(
            kept.iter()
                .all(|(number, bytes)| **bytes == number.to_be_bytes())
        );
        let mut places: Vec<_> = kept
            .iter()
            .map(|(_, bytes)| bytes.as_ptr().addr())
            .collect();
        places.sort_unstable();
        let buffers = places
            .windows(2)
            .filter(|next| next[1] - next[0] > 2)
            .count()
            + 1;
        assert!(buffers <= 2, "{buffers} buffers of 8 KiB for 8,000 bytes");
    }

    #[test]
    fn bytes_not_taken_stay() {
        let mut buf = ReadBuf::new(64 * 1024);
        fill(&mut buf, b"one");
        buf.settle();
        fill(&mut buf, b", two");
        assert_eq!(&buf.bytes[..], b"one, two");
        buf.reset();
        assert_eq!(&buf.bytes[..], b"one, two");
    }

    #[test]
    fn a_grown_buffer_is_freed() {
        let mut buf = ReadBuf::new(64 * 1024);
        fill(&mut buf, b"one");
        fill(&mut buf, b", two");
        buf.bytes.clear();
        buf.settle();
        assert_eq!(buf.bytes.capacity(), 0);
    }

    #[test]
    fn a_read_never_exceeds_the_maximum() {
        let body = vec![0; 1 << 20];
        for max in [416 * 1024, 40 * 1024, 100] {
            let mut buf = ReadBuf::new(max);
            let mut read = 0;
            for _ in 0..8 {
                read = fill(&mut buf, &body);
                buf.bytes.clear();
            }
            assert_eq!(read, max);
        }
    }

    #[test]
    fn no_memory_is_held_while_nothing_comes() {
        let mut buf = ReadBuf::new(64 * 1024);
        let (mut stream, _client) = tokio::io::duplex(16);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(buf.poll_fill(&mut stream, &mut cx).is_pending());
        assert_eq!(buf.bytes.capacity(), 0);
        assert_eq!(fill(&mut buf, b""), 0);
        assert_eq!(buf.bytes.capacity(), 0);
    }

    #[test]
    fn capacity_follows_the_traffic() {
        let mut buf = ReadBuf::new(64 * 1024);
        let body = vec![0; 1 << 20];
        let mut next = |from: &[u8]| {
            let read = fill(&mut buf, from);
            buf.bytes.clear();
            read
        };
        let sizes = [8, 16, 32, 64, 64].map(|kib| kib * 1024);
        for size in sizes {
            assert_eq!(next(&body), size);
        }
        // Not after the first small one.
        assert_eq!(next(b"small"), 5);
        assert_eq!(next(&body), 64 * 1024);
        for _ in 0..8 {
            next(b"small");
        }
        assert_eq!(next(&body), 8 * 1024);
    }
}
