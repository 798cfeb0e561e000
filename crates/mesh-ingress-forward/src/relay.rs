//! Octets that go from one socket to another without being looked at: the kernel passes the pages
//! on, and nothing is copied (`splice(2)`, Linux).

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

/// What a pipe is to hold: as much as is read at once where octets are read.
const ROOM: usize = 512 * 1024;

/// Pipes that each thread keeps for the next one: all but those of clients that are slow are empty
/// again at once.
const KEPT: usize = 8;

/// Pipes of this process at most: those of slow clients stay filled, and neither the descriptors
/// that connections need nor what the kernel allows one user's pipes to hold may go there. Who gets
/// none has the octets copied.
const MOST: usize = 64;

/// How many there are.
static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // In boxes: most bodies have none, and are moved about.
    #[allow(clippy::vec_box)]
    static EMPTY: RefCell<Vec<Box<Pipe>>> = const { RefCell::new(Vec::new()) };
}

/// What is between two sockets.
#[derive(Debug)]
pub(crate) struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    /// Octets that have come and not gone.
    held: usize,
    /// Where they are to go there was no room for them.
    waits: bool,
    _counted: Counted,
}

/// One of the pipes there may be.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> io::Result<Self> {
        static MAX: OnceLock<usize> = OnceLock::new();
        let max = *MAX.get_or_init(|| {
            let descriptors = getrlimit(Resource::Nofile).current;
            let descriptors = descriptors.and_then(|most| usize::try_from(most).ok());
            descriptors.map_or(MOST, |most| MOST.min(most / 16))
        });
        let counted = Self;
        match PIPES.fetch_add(1, Ordering::Relaxed) < max {
            true => Ok(counted),
            // Gone again with `counted`.
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
    /// An empty one.
    pub(crate) fn take() -> io::Result<Box<Self>> {
        // Not at the end of the thread.
        let kept = EMPTY.try_with(|empty| empty.borrow_mut().pop());
        if let Ok(Some(pipe)) = kept {
            return Ok(pipe);
        }
        let counted = Counted::new()?;
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused where one user has too many large ones; a small one is slower than to copy.
        fcntl_setpipe_size(&input, ROOM)?;
        Ok(Box::new(Self {
            output,
            input,
            held: 0,
            waits: false,
            _counted: counted,
        }))
    }

    /// Keeps it for the next one, if nothing is left in it.
    pub(crate) fn put_back(self: Box<Self>) {
        if self.held == 0 {
            let _ = EMPTY.try_with(|empty| {
                let mut empty = empty.borrow_mut();
                if empty.len() < KEPT {
                    empty.push(self);
                }
            });
        }
    }

    /// Whether octets have come that have not gone.
    pub(crate) fn is_filled(&self) -> bool {
        self.held > 0
    }

    /// Moves what there is, and of it what is taken, `left` octets at most; that is less then. Tells
    /// how many have gone.
    pub(crate) fn poll_move(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        left: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Stuck>> {
        let before = *left;
        while *left > 0 {
            let polled = match self.held {
                0 => self.poll_fill(from, *left, cx).map_ok(|()| 0),
                _ => self.poll_drain(to, cx),
            };
            match polled {
                Poll::Ready(Ok(gone)) => *left -= gone as u64,
                Poll::Ready(Err(stuck)) => return Poll::Ready(Err(stuck)),
                Poll::Pending if *left == before => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        // Not more than there is room for, several times over.
        Poll::Ready(Ok(usize::try_from(before - *left).unwrap_or(usize::MAX)))
    }

    /// Takes octets from a socket, `most` at most.
    fn poll_fill(
        &mut self,
        from: &TcpStream,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stuck>> {
        let most = usize::try_from(most).map_or(ROOM, |most| most.min(ROOM));
        loop {
            ready!(from.poll_read_ready(cx)).map_err(Stuck::Sender)?;
            let filled = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.input, None, most, FLAGS)?)
            });
            match filled {
                Ok(0) => return Poll::Ready(Err(Stuck::Ended)),
                Ok(filled) => {
                    self.held = filled;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(Stuck::Sender(error))),
            }
        }
    }

    /// Gives what there is to a socket, as far as that takes it, and tells how much that is.
    ///
    /// Of a socket that was full, the runtime learns only when a third of it is free again, which
    /// may take a slow reader minutes. Asked again before, it is tried without the runtime.
    fn poll_drain(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<usize, Stuck>> {
        let (output, held, waits) = (&self.output, self.held, &mut self.waits);
        let drain = || Ok(splice(output, None, to, None, held, FLAGS)?);
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let drained = loop {
            match to.poll_write_ready(cx) {
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) => match to.try_io(Interest::WRITABLE, drain) {
                    Err(error) if is_full(&error) => {}
                    drained => break drained,
                },
                Poll::Pending if std::mem::replace(waits, true) => match drain() {
                    Err(error) if is_full(&error) => return Poll::Pending,
                    drained => break drained,
                },
                Poll::Pending => return Poll::Pending,
            }
        };
        self.waits = false;
        match drained {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                Poll::Ready(Err(Stuck::Receiver(error)))
            }
            Ok(drained) => {
                self.held -= drained;
                Poll::Ready(Ok(drained))
            }
            Err(error) => Poll::Ready(Err(Stuck::Receiver(error))),
        }
    }
}

/// Why no more octets are moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error("there are less octets than there were to be")]
    Ended,
    #[error("they cannot be taken from where they come from")]
    Sender(#[source] io::Error),
    #[error("they cannot be given to where they are to go")]
    Receiver(#[source] io::Error),
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
