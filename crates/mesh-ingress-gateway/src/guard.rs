//! The octets of a client, read with suspicion before hyper reads them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use mesh_ingress::headers::guard::{Part, Refused, RequestGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What may wait of a protocol that is not agreed on yet.
const MAX_WAITING: usize = 64 * 1024;

/// What hyper is given instead of an octet that is refused in a head: a NUL is not allowed
/// anywhere there, and hyper, which waits for an empty line before it looks at a head that comes
/// in pieces, gets one. It answers with 400 and closes.
const REFUSAL: &[u8] = b"\0\r\n\r\n";

/// A client's socket; of HTTP/1, only what a [`RequestGuard`] lets pass can be read from it.
///
/// What follows a request that asks for another protocol is kept here until that is answered. Only
/// then is it known to be that protocol, or to be HTTP and to be looked at.
#[derive(Debug)]
pub(crate) struct GuardedStream {
    input: Input,
    http1: Option<Http1>,
    /// The client has said all it had to say.
    read_to_end: bool,
    /// The client has been told that nothing follows.
    ended: bool,
}

/// A socket, and what was read from it and is not passed on yet.
#[derive(Debug)]
struct Input {
    stream: TcpStream,
    waiting: Vec<u8>,
    passed: usize,
}

#[derive(Debug)]
struct Http1 {
    guard: RequestGuard,
    answer: SwitchAnswer,
    switched: bool,
    refused: Option<Refused>,
    /// What is left to give of [`REFUSAL`].
    refusal: &'static [u8],
}

/// How a request that asks for another protocol was answered, told to the socket by the service.
#[derive(Clone, Debug, Default)]
pub(crate) struct SwitchAnswer(Arc<Answer>);

#[derive(Debug, Default)]
struct Answer {
    state: AtomicU8,
    reader: AtomicWaker,
}

const UNANSWERED: u8 = 0;
const STAYED: u8 = 1;
const SWITCHED: u8 = 2;

impl SwitchAnswer {
    /// To be called once for each request with `Upgrade` in HTTP/1.1 and each `CONNECT`, before
    /// its response is written.
    pub(crate) fn tell(&self, switched: bool) {
        let state = if switched { SWITCHED } else { STAYED };
        self.0.state.store(state, Ordering::Release);
        self.0.reader.wake();
    }

    fn take(&self) -> Option<bool> {
        match self.0.state.swap(UNANSWERED, Ordering::AcqRel) {
            STAYED => Some(false),
            SWITCHED => Some(true),
            _ => None,
        }
    }

    fn is_switched(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == SWITCHED
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<bool> {
        if let Some(switched) = self.take() {
            return Poll::Ready(switched);
        }
        self.0.reader.register(cx.waker());
        self.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl GuardedStream {
    /// Lets everything pass: HTTP/2, which has a frame for everything, needs no guard.
    pub(crate) fn open(begin: Vec<u8>, stream: TcpStream) -> Self {
        Self {
            input: Input {
                stream,
                waiting: begin,
                passed: 0,
            },
            http1: None,
            read_to_end: false,
            ended: false,
        }
    }

    /// HTTP/1.
    pub(crate) fn guarded(begin: Vec<u8>, stream: TcpStream) -> (Self, SwitchAnswer) {
        let answer = SwitchAnswer::default();
        let http1 = Http1 {
            guard: RequestGuard::new(),
            answer: answer.clone(),
            switched: false,
            refused: None,
            refusal: REFUSAL,
        };
        let guarded = Self {
            http1: Some(http1),
            ..Self::open(begin, stream)
        };
        (guarded, answer)
    }

    /// Whether a part of an HTTP/1 request has been read, and its rest is to come.
    pub(crate) fn is_amid_request(&self) -> bool {
        let http1 = self.http1.as_ref();
        http1.is_some_and(|http1| !http1.guard.is_between_requests())
    }

    /// Resolves when there is something to read, or the client has gone.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self.input.waiting.is_empty() {
            true => self.input.stream.readable().await,
            false => Ok(()),
        }
    }

    /// The socket itself, without a guard.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.input.stream
    }

    /// Whether another protocol than HTTP is spoken by now.
    pub(crate) fn is_switched(&self) -> bool {
        let http1 = self.http1.as_ref();
        http1.is_some_and(|http1| http1.switched || http1.answer.is_switched())
    }

    /// Whether both sides have said all they had to say.
    pub(crate) fn is_complete(&self) -> bool {
        self.read_to_end && self.ended
    }

    /// The same, to read from.
    pub(crate) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.input.stream
    }
}

impl Input {
    /// Reads something, whether good or not.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let waiting = self.waiting.get(self.passed..).unwrap_or_default();
        if waiting.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let taken = waiting.len().min(buf.remaining());
        let (taken, _) = waiting.split_at(taken);
        buf.put_slice(taken);
        self.passed += taken.len();
        if self.passed == self.waiting.len() {
            // Gives the memory back: the connection may live long.
            self.waiting = Vec::new();
            self.passed = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the answer to a request that asks for another protocol, with an eye on the
    /// client: if that leaves meanwhile there is no answer.
    fn poll_answer(
        &mut self,
        answer: &SwitchAnswer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<bool>>> {
        loop {
            if let Poll::Ready(switched) = answer.poll(cx) {
                return Poll::Ready(Ok(Some(switched)));
            }
            if self.waiting.len() >= MAX_WAITING {
                return Poll::Pending;
            }
            let mut octets = [0; 4096];
            let mut octets = ReadBuf::new(&mut octets);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut octets))?;
            match octets.filled() {
                [] if self.waiting.is_empty() => return Poll::Ready(Ok(None)),
                // It has said all it has to say, and may well wait for an answer to that.
                [] => return Poll::Pending,
                octets => self.waiting.extend_from_slice(octets),
            }
        }
    }
}

impl Http1 {
    /// Reads what the guard lets pass.
    fn poll_good(
        &mut self,
        input: &mut Input,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(refused) = self.refused {
                return Poll::Ready(self.refuse(refused, buf));
            }
            if self.guard.is_undecided() {
                match ready!(input.poll_answer(&self.answer, cx))? {
                    Some(true) => self.switch(),
                    Some(false) => self.guard.stayed(),
                    None => return Poll::Ready(Ok(())),
                }
            } else if self.answer.is_switched() {
                // Answered with 101 in the middle of a request: refused, unless switched already.
                self.switch();
                continue;
            }
            let before = buf.filled().len();
            ready!(input.poll_fill(cx, buf))?;
            let octets = buf.filled().get(before..).unwrap_or_default();
            let good = match self.guard.feed(octets) {
                Ok(good) if good == octets.len() => return Poll::Ready(Ok(())),
                Ok(good) => {
                    let (_, kept) = octets.split_at(good);
                    input.waiting.splice(..input.passed, kept.iter().copied());
                    input.passed = 0;
                    good
                }
                Err(refused) => {
                    tracing::debug!("client connection: {refused}");
                    self.refused = Some(refused);
                    refused.good()
                }
            };
            buf.set_filled(before + good);
            if good > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn switch(&mut self) {
        self.refused = self.guard.switched().err();
        self.switched = self.refused.is_none();
    }

    /// Gives hyper something that it refuses, too, or an error.
    fn refuse(&mut self, refused: Refused, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        if refused.part() == Part::Content || self.refusal.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, refused));
        }
        let given = self.refusal.len().min(buf.remaining());
        let (given, left) = self.refusal.split_at(given);
        buf.put_slice(given);
        self.refusal = left;
        Ok(())
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(http1) = &mut this.http1 else {
            return this.input.poll_fill(cx, buf);
        };
        let before = buf.filled().len();
        let read = http1.poll_good(&mut this.input, cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            this.read_to_end = buf.remaining() > 0;
        }
        read
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.input.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.input.stream).poll_shutdown(cx))?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
