//! What has been read and not been used yet.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// What is read at once to begin with.
const LEAST: usize = 8 * 1024;

/// Sizes of room, each twice the one before: up to 1 MiB.
const SIZES: usize = 8;

thread_local! {
    /// Room that no connection needs at this moment, of each size.
    static SPARE: [Cell<Option<(usize, BytesMut)>>; SIZES] = const { [const { Cell::new(None) }; SIZES] };
}

/// A buffer whose size follows what comes: a large body is read in large pieces, and a small one
/// does not take the memory of a large one.
///
/// Its room is the connection's only while there is something in it. What the next connection of
/// the thread reads it reads to the same memory, which the processor still has at hand: that spares
/// a body of 16 KiB a tenth of what it costs. And a connection that is idle has no buffer.
#[derive(Debug)]
pub struct Inbox {
    /// What has come.
    pub octets: BytesMut,
    held: Held,
    /// Room for the next read: one of [`SIZES`].
    size: usize,
    most: usize,
    /// The last read would have found room in half of it.
    shrinking: bool,
}

/// What the octets are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    /// Room of one of [`SIZES`], and how much that is: others can use it.
    Room(usize, usize),
    /// Something that has grown with what came in pieces.
    Own,
}

impl Inbox {
    /// Reads 8 KiB at once to begin with, more where more comes, and never more than `most` octets
    /// (or 1 MiB).
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            octets: BytesMut::new(),
            held: Held::Nothing,
            size: 0,
            most,
            shrinking: false,
        }
    }

    /// Reads what there is; `0` at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn poll_fill<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let room = self.room();
        self.settle();
        if self.octets.is_empty() {
            self.octets = take(self.size, room).unwrap_or_default();
            self.held = Held::Room(self.size, room);
        } else {
            // With what is in it, it may become larger.
            self.held = Held::Own;
        }
        // From its beginning again, if nobody has what was read to it before; else behind that, so
        // that many small pieces, each kept for a while, do not keep a room each.
        if !self.octets.try_reclaim(room) && self.left() < room / 2 {
            self.octets.reserve(room);
        }
        let left = self.left();
        let polled = poll_read_buf(Pin::new(stream), cx, &mut self.octets);
        match polled {
            Poll::Ready(Ok(read)) if read > 0 => self.follow(read, left.min(room)),
            _ => self.settle(),
        }
        polled
    }

    /// How much can be read without more room.
    fn left(&self) -> usize {
        self.octets.capacity() - self.octets.len()
    }

    fn room(&self) -> usize {
        (LEAST << self.size).min(self.most)
    }

    /// Follows what comes, when `room` could have been read, with the size of what is read at once.
    fn follow(&mut self, read: usize, room: usize) {
        if read >= room {
            if self.room() < self.most && self.size + 1 < SIZES {
                self.size += 1;
            }
            self.shrinking = false;
        } else if read < self.room() / 2 {
            if self.shrinking {
                self.size = self.size.saturating_sub(1);
            }
            self.shrinking = !self.shrinking;
        } else {
            self.shrinking = false;
        }
    }

    /// To be called when something has been taken out: room with nothing in it is for others.
    #[inline]
    pub fn settle(&mut self) {
        if self.held != Held::Nothing && self.octets.is_empty() {
            let octets = std::mem::take(&mut self.octets);
            if let Held::Room(size, room) = std::mem::replace(&mut self.held, Held::Nothing) {
                give(size, room, octets);
            }
        }
    }

    /// Begins anew with what is read at once: it may be long until something comes.
    pub fn rest(&mut self) {
        self.settle();
        if self.octets.is_empty() {
            *self = Self::new(self.most);
        }
    }
}

fn take(size: usize, room: usize) -> Option<BytesMut> {
    // Not at the end of the thread.
    let spare = SPARE.try_with(|spare| spare[size].take()).ok().flatten();
    // The largest is as large as whoever made it wanted.
    spare.and_then(|(spare, octets)| (spare == room).then_some(octets))
}

fn give(size: usize, room: usize, octets: BytesMut) {
    let _ = SPARE.try_with(|spare| spare[size].set(Some((room, octets))));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads what there is from a stream of exactly that.
    fn fill(inbox: &mut Inbox, mut stream: &[u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match inbox.poll_fill(&mut stream, &mut cx) {
            Poll::Ready(read) => read.unwrap(),
            Poll::Pending => unreachable!("memory is always ready"),
        }
    }

    #[test]
    fn room_with_nothing_in_it_is_read_to_by_the_next() {
        let (mut one, mut other) = (Inbox::new(64 * 1024), Inbox::new(64 * 1024));
        fill(&mut one, b"one");
        let room = one.octets.as_ptr();
        drop(one.octets.split());
        one.settle();
        assert_eq!(one.octets.capacity(), 0);
        fill(&mut other, b"other");
        assert_eq!(other.octets.as_ptr(), room);
    }

    #[test]
    fn what_somebody_still_has_is_not_written_over() {
        let (mut one, mut other) = (Inbox::new(64 * 1024), Inbox::new(64 * 1024));
        fill(&mut one, b"one");
        let kept = one.octets.split().freeze();
        one.settle();
        fill(&mut other, b"other");
        assert_eq!(&kept[..], b"one");
        assert_eq!(&other.octets[..], b"other");
    }

    #[test]
    fn small_pieces_do_not_keep_a_room_each() {
        let (mut one, mut other) = (Inbox::new(64 * 1024), Inbox::new(64 * 1024));
        let mut kept = Vec::new();
        for number in 0..2000_u16 {
            for inbox in [&mut one, &mut other] {
                fill(inbox, &number.to_be_bytes());
                kept.push((number, inbox.octets.split().freeze()));
                inbox.settle();
            }
        }
        assert!(
            kept.iter()
                .all(|(number, octets)| **octets == number.to_be_bytes())
        );
        let mut places: Vec<_> = kept
            .iter()
            .map(|(_, octets)| octets.as_ptr().addr())
            .collect();
        places.sort_unstable();
        let rooms = places
            .windows(2)
            .filter(|next| next[1] - next[0] > 2)
            .count()
            + 1;
        assert!(rooms <= 2, "{rooms} rooms of 8 KiB for 8,000 octets");
    }

    #[test]
    fn what_has_not_been_taken_stays() {
        let mut inbox = Inbox::new(64 * 1024);
        fill(&mut inbox, b"one");
        inbox.settle();
        fill(&mut inbox, b", two");
        assert_eq!(&inbox.octets[..], b"one, two");
        inbox.rest();
        assert_eq!(&inbox.octets[..], b"one, two");
    }

    #[test]
    fn nothing_is_held_of_what_came_in_pieces() {
        let mut inbox = Inbox::new(64 * 1024);
        fill(&mut inbox, b"one");
        fill(&mut inbox, b", two");
        inbox.octets.clear();
        inbox.settle();
        assert_eq!(inbox.octets.capacity(), 0);
    }

    #[test]
    fn not_more_is_read_at_once_than_was_said() {
        let body = vec![0; 1 << 20];
        for most in [416 * 1024, 40 * 1024, 100] {
            let mut inbox = Inbox::new(most);
            let mut read = 0;
            for _ in 0..8 {
                read = fill(&mut inbox, &body);
                inbox.octets.clear();
            }
            assert_eq!(read, most);
        }
    }

    #[test]
    fn nothing_is_held_while_nothing_comes() {
        let mut inbox = Inbox::new(64 * 1024);
        let (mut stream, _client) = tokio::io::duplex(16);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(inbox.poll_fill(&mut stream, &mut cx).is_pending());
        assert_eq!(inbox.octets.capacity(), 0);
        assert_eq!(fill(&mut inbox, b""), 0);
        assert_eq!(inbox.octets.capacity(), 0);
    }

    #[test]
    fn what_is_read_at_once_follows_what_comes() {
        let mut inbox = Inbox::new(64 * 1024);
        let body = vec![0; 1 << 20];
        let mut next = |from: &[u8]| {
            let read = fill(&mut inbox, from);
            inbox.octets.clear();
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
