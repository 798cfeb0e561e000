//! A transport that does not take heads without end, and remembers the request.
//!
//! An upstream may send interim responses (`1xx`) before the final one. hyper skips them and sets
//! no bound to their number; here all that comes before the final head is complete is bounded.
//! Until it comes, the request may have to be sent once more: see [`Record`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::record::Record;
use crate::stream::Stream;

/// What a transport is to do until the head of a response is there.
#[derive(Clone, Debug)]
pub(crate) struct HeadBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// How many bytes may be read.
    left: AtomicUsize,
    record: AtomicU8,
}

/// Nothing is remembered.
const IDLE: u8 = 0;
/// What is written next begins a request to remember.
const BEGIN: u8 = 1;
/// What is written next goes on with it.
const GO_ON: u8 = 2;

impl Default for HeadBudget {
    fn default() -> Self {
        Self(Arc::new(Shared {
            left: AtomicUsize::new(usize::MAX),
            record: AtomicU8::new(IDLE),
        }))
    }
}

impl HeadBudget {
    /// A request is going to be sent, and remembered if `record`.
    pub(crate) fn begin(&self, bytes: usize, record: bool) {
        self.set(bytes);
        let record = if record { BEGIN } else { IDLE };
        self.0.record.store(record, Ordering::Relaxed);
    }

    /// The head of the response is there.
    pub(crate) fn lift(&self) {
        self.begin(usize::MAX, false);
    }

    /// Whether the last request was remembered, and no response has come.
    pub(crate) fn is_recorded(&self) -> bool {
        self.0.record.load(Ordering::Relaxed) == GO_ON
    }

    fn set(&self, bytes: usize) {
        self.0.left.store(bytes, Ordering::Relaxed);
    }

    /// Only whoever drives the connection spends, and nobody sets meanwhile.
    fn spend(&self, bytes: usize) -> io::Result<()> {
        match self.0.left.load(Ordering::Relaxed) {
            usize::MAX => Ok(()),
            left => {
                let left = left.checked_sub(bytes).ok_or_else(too_much)?;
                self.set(left);
                Ok(())
            }
        }
    }
}

fn too_much() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "interim responses without end, and no final one",
    )
}

/// A transport with a budget.
#[derive(Debug)]
pub(crate) struct Budgeted {
    stream: Stream,
    heads: HeadBudget,
    record: Record,
}

impl Budgeted {
    pub(crate) fn new(stream: Stream, heads: HeadBudget) -> Self {
        let record = Record::default();
        Self {
            stream,
            heads,
            record,
        }
    }

    /// What was written of the last request.
    pub(crate) fn into_record(self) -> Record {
        self.record
    }

    /// Where to note what is written, if it is to be.
    fn recording(&mut self) -> Option<&mut Record> {
        let state = &self.heads.0.record;
        match state.load(Ordering::Relaxed) {
            IDLE => return None,
            BEGIN => {
                self.record.begin();
                state.store(GO_ON, Ordering::Relaxed);
            }
            _ => {}
        }
        Some(&mut self.record)
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(octets)) = written
            && let Some(record) = self.recording()
        {
            record.take(octets);
        }
        written
    }

    pub(crate) fn into_inner(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Budgeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.heads.spend(buf.filled().len() - before))
    }
}

impl AsyncWrite for Budgeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(record) = self.recording() {
            record.offer(buf);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(record) = self.recording() {
            record.offer_vectored(bufs);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
