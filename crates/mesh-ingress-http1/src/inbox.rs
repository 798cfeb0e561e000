//! What has been read and not been used yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// What is read at once to begin with, and kept of the room by a connection that rests.
const LEAST: usize = 8 * 1024;

/// A buffer whose size follows what comes: a large body is read in large pieces, and a small one
/// does not take the memory of a large one.
#[derive(Debug)]
pub struct Inbox {
    /// What has come.
    pub octets: BytesMut,
    /// Room for the next read.
    next: usize,
    most: usize,
    /// The last read would have found room in half of it.
    shrinking: bool,
}

impl Inbox {
    /// Reads `most` octets at once at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            octets: BytesMut::new(),
            next: LEAST.min(most),
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
        self.octets.reserve(self.next);
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.octets))?;
        if read >= self.next {
            self.next = (self.next * 2).min(self.most);
            self.shrinking = false;
        } else if read < self.next / 2 {
            if self.shrinking {
                self.next = (self.next / 2).max(LEAST.min(self.most));
            }
            self.shrinking = !self.shrinking;
        } else {
            self.shrinking = false;
        }
        Poll::Ready(Ok(read))
    }

    /// Gives room back that is not needed while nothing comes.
    pub fn rest(&mut self) {
        if self.octets.is_empty() && (self.next > LEAST || self.octets.capacity() > LEAST) {
            *self = Self::new(self.most);
        }
    }
}
