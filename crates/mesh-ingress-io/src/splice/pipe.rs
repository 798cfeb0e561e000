//! A pipe between two sockets: the kernel passes the pages on, and nothing is copied (`splice(2)`, Linux).

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Capacity of a pipe: about as much as is read at once where bytes are copied.
const CAPACITY: usize = 512 * 1024;

/// Empty pipes that each thread keeps for the next body: all but those of slow clients are empty again
/// at once.
const MAX_SPARE: usize = 8;

/// Pipes of this process at most. Those of slow clients stay filled, and must take neither the
/// descriptors that connections need nor all that the kernel allows one user's pipes to hold. A body
/// without a pipe is copied.
const MAX_PIPES: usize = 64;

/// How many pipes there are.
static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Boxed, because most bodies have none and are moved about.
    #[allow(clippy::vec_box)]
    static SPARE: RefCell<Vec<Box<Pipe>>> = const { RefCell::new(Vec::new()) };
}

/// A pipe between two sockets, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    /// Bytes that have been taken from the source and not been given to the target.
    len: usize,
    /// The target had no room.
    blocked: bool,
    _counted: Counted,
}

/// One of the [`PIPES`].
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> io::Result<Self> {
        static MAX: OnceLock<usize> = OnceLock::new();
        let max = *MAX.get_or_init(|| {
            let descriptors = getrlimit(Resource::Nofile).current;
            let descriptors = descriptors.and_then(|limit| usize::try_from(limit).ok());
            descriptors.map_or(MAX_PIPES, |limit| MAX_PIPES.min(limit / 16))
        });
        let counted = Self;
        match PIPES.fetch_add(1, Ordering::Relaxed) < max {
            true => Ok(counted),
            // `counted` is dropped, and subtracts it again.
            false => Err(io::ErrorKind::QuotaExceeded.into()),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// When there are enough pipes, or the kernel grants no more descriptors or memory.
    pub fn take() -> io::Result<Box<Self>> {
        // The thread-local is gone while the thread ends.
        let kept = SPARE.try_with(|spare| spare.borrow_mut().pop());
        if let Ok(Some(pipe)) = kept {
            return Ok(pipe);
        }
        let counted = Counted::new()?;
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused to a user with too many large ones. A small pipe is slower than a copy.
        fcntl_setpipe_size(&input, CAPACITY)?;
        Ok(Box::new(Self {
            output,
            input,
            len: 0,
            blocked: false,
            _counted: counted,
        }))
    }

    /// Keeps it for the next body, if nothing is left in it.
    pub fn put_back(self: Box<Self>) {
        if self.len == 0 {
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < MAX_SPARE {
                    spare.push(self);
                }
            });
        }
    }

    /// Whether it holds bytes that the target has not taken.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.len > 0
    }

    /// Splices what there is and the target takes, `left` bytes at most, and subtracts it from `left`.
    /// Returns how many bytes the target has taken.
    ///
    /// # Errors
    /// [`SpliceError`] tells which side failed.
    pub fn poll_splice(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        left: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, SpliceError>> {
        let before = *left;
        while *left > 0 {
            let polled = match self.len {
                0 => self.poll_fill(from, *left, cx).map_ok(|()| 0),
                _ => self.poll_drain(to, cx),
            };
            match polled {
                Poll::Ready(Ok(drained)) => *left -= drained as u64,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if *left == before => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        // At most a few times the capacity.
        Poll::Ready(Ok(usize::try_from(before - *left).unwrap_or(usize::MAX)))
    }

    /// Takes bytes from the source, `max` at most.
    fn poll_fill(
        &mut self,
        from: &TcpStream,
        max: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SpliceError>> {
        let max = usize::try_from(max).map_or(CAPACITY, |max| max.min(CAPACITY));
        loop {
            ready!(from.poll_read_ready(cx)).map_err(SpliceError::Source)?;
            let filled = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.input, None, max, FLAGS)?)
            });
            match filled {
                Ok(0) => return Poll::Ready(Err(SpliceError::Ended)),
                Ok(filled) => {
                    self.len = filled;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(SpliceError::Source(error))),
            }
        }
    }

    /// Gives the target what it takes, and returns how much that is.
    ///
    /// The runtime learns of room in a full socket only when a third of its buffer is free, which may
    /// take a slow reader minutes. A second poll before that tries without the runtime.
    fn poll_drain(
        &mut self,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, SpliceError>> {
        let (output, len, blocked) = (&self.output, self.len, &mut self.blocked);
        let drain = || Ok(splice(output, None, to, None, len, FLAGS)?);
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let drained = loop {
            match to.poll_write_ready(cx) {
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) => match to.try_io(Interest::WRITABLE, drain) {
                    Err(error) if is_full(&error) => {}
                    drained => break drained,
                },
                Poll::Pending if std::mem::replace(blocked, true) => match drain() {
                    Err(error) if is_full(&error) => return Poll::Pending,
                    drained => break drained,
                },
                Poll::Pending => return Poll::Pending,
            }
        };
        self.blocked = false;
        match drained {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                Poll::Ready(Err(SpliceError::Target(error)))
            }
            Ok(drained) => {
                self.len -= drained;
                Poll::Ready(Ok(drained))
            }
            Err(error) => Poll::Ready(Err(SpliceError::Target(error))),
        }
    }
}

/// Why bytes are not spliced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpliceError {
    /// The source has ended early.
    #[error("the source ended before all bytes had come")]
    Ended,
    /// Reading from the source failed.
    #[error("cannot splice from the source")]
    Source(#[source] io::Error),
    /// Writing to the target failed.
    #[error("cannot splice to the target")]
    Target(#[source] io::Error),
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
