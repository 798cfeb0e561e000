//! One client's connection, driven by one task: it reads frames, polls the answers, and writes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_ingress::{BoxError, MeshConnection};
use mesh_ingress_http2::response::Writer;
use mesh_ingress_http2::{Reason, frame, hpack};
use mesh_ingress_io::{Conn, ReadBuf, WriteBuf};
use tokio::time::Instant;

use super::flood::Flood;
use super::frames::{Block, Incoming};
use super::idle::Idle;
use super::pulse::Pulse;
use super::signals::Signals;
use super::stream::{Blocked, OUT, Out, Progress};
use super::streams::Streams;
use super::{CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW};
use crate::http1::LIMITS;
use crate::linger::Linger;
use crate::stall::Stall;

/// What a client's table may have (the value without a setting).
const TABLE: usize = 4096;
/// How often the socket is looked at before it is others' turn.
const ROUNDS: usize = 16;
/// Why there is no more of a body.
pub(super) const GONE: &str = "the client has gone before the body was complete";
/// What tells the answer to the `PING` that goes with the first `GOAWAY` from others.
const LAST_CALL: [u8; 8] = *b"lastcall";

/// A client's connection.
///
/// * A client that stops reading is cut off after a minute, and so is a stream for which it does not
///   open a window for five.
/// * A client that says nothing is asked whether it is there, and one that asks for nothing is let go
///   after a time-out.
/// * A client that is still sending when its connection is closed gets its responses first.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) stream: Conn,
    pub(super) inbox: ReadBuf,
    /// What has been read when the connection begins has not been looked at.
    begun: bool,
    pub(super) out: Out,
    pub(super) mesh: MeshConnection,
    pub(super) streams: Streams,
    pub(super) signals: Arc<Signals>,
    ready: Vec<usize>,
    pub(super) decoder: hpack::Decoder,
    /// The client's settings have come, as they must first.
    pub(super) settled: bool,
    /// Where the frames of this moment have been read to.
    pub(super) room: usize,
    /// A piece of a body that has not come whole.
    pub(super) incoming: Option<Incoming>,
    /// A field section that has not come whole.
    pub(super) block: Option<Block>,
    /// The last stream that the client has begun.
    pub(super) last: u32,
    /// The last one that the client was told is served.
    told_last: Option<u32>,
    /// Streams that have been reset here not long ago: the client may not know.
    pub(super) reset: VecDeque<u32>,
    /// What the client may send.
    pub(super) recv_window: i64,
    /// Has come, and nobody will read it: others learn of it when they are asked.
    pub(super) released: usize,
    /// What the client takes of a stream that begins.
    pub(super) initial_window: i64,
    pub(super) flood: Flood,
    pulse: Pulse,
    pub(super) idle: Idle,
    stall: Stall,
    /// The socket has not taken all.
    full: bool,
    pub(super) phase: Phase,
}

/// Whether requests are taken.
#[derive(Debug)]
pub(super) enum Phase {
    Open,
    /// The client has been told that the end is near, and has not answered.
    LastCall {
        since: Instant,
    },
    /// The client knows: what it begins now is refused.
    Draining,
    /// Nothing is read any more.
    Closing {
        linger: Linger,
        sending: bool,
    },
}

impl Connection {
    /// `begun` has been read from the stream, and begins with the preface.
    pub(crate) fn new(
        stream: Conn,
        mut begun: ReadBuf,
        mesh: MeshConnection,
        idle_timeout: Option<Duration>,
    ) -> Self {
        bytes::Buf::advance(begun.bytes_mut(), frame::PREFACE.len());
        let signals = Signals::new();
        let mut outbox = WriteBuf::default();
        let frames = outbox.buffer();
        let settings = [
            (frame::setting::MAX_CONCURRENT_STREAMS, MAX_STREAMS as u32),
            (frame::setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (frame::setting::MAX_HEADER_LIST_SIZE, LIMITS.bytes as u32),
            // WebSockets (RFC 8441).
            (frame::setting::ENABLE_CONNECT_PROTOCOL, 1),
        ];
        frame::settings(frames, &settings);
        frame::window_update(frames, 0, CONNECTION_WINDOW - frame::WINDOW);
        Self {
            stream,
            inbox: begun,
            begun: false,
            out: Out {
                outbox,
                writer: Writer::new(),
                window: frame::WINDOW.into(),
                sent: false,
                max_payload: frame::MAX_PAYLOAD,
            },
            mesh,
            streams: Streams::new(&signals),
            signals,
            ready: Vec::new(),
            decoder: hpack::Decoder::new(TABLE),
            settled: false,
            room: 0,
            incoming: None,
            block: None,
            last: 0,
            told_last: None,
            reset: VecDeque::new(),
            recv_window: CONNECTION_WINDOW.into(),
            released: 0,
            initial_window: frame::WINDOW.into(),
            flood: Flood::new(),
            pulse: Pulse::new(),
            idle: Idle::new(idle_timeout),
            stall: Stall::default(),
            full: false,
            phase: Phase::Open,
        }
    }

    /// Finishes the requests under way, and takes no other (RFC 9113 §6.8).
    pub(crate) fn graceful_shutdown(&mut self) {
        if matches!(self.phase, Phase::Open) {
            let frames = self.out.outbox.buffer();
            frame::goaway(frames, frame::MAX_WINDOW, Reason::NO_ERROR);
            frame::ping(frames, LAST_CALL, false);
            let since = Instant::now();
            self.phase = Phase::LastCall { since };
        }
    }

    /// The client has answered a `PING`.
    pub(super) fn answered(&mut self, octets: [u8; 8]) {
        if octets == LAST_CALL {
            self.last_called();
        }
    }

    /// The client knows that the end is near: what it has begun until now is served.
    pub(super) fn last_called(&mut self) {
        if matches!(self.phase, Phase::LastCall { .. }) {
            self.told_last = Some(self.last);
            frame::goaway(self.out.outbox.buffer(), self.last, Reason::NO_ERROR);
            self.phase = Phase::Draining;
        }
    }

    /// Ends the connection, and says why.
    pub(super) fn fail(&mut self, reason: Reason) {
        tracing::debug!("client connection over HTTP/2: {reason}");
        // What was refused is not served after all (RFC 9113 §6.8).
        let last = self.told_last.unwrap_or(self.last);
        frame::goaway(self.out.outbox.buffer(), last, reason);
        self.streams
            .close_all("the connection was closed before the body was complete");
        self.close(Linger::default(), true);
    }

    fn close(&mut self, linger: Linger, sending: bool) {
        self.phase = Phase::Closing { linger, sending };
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut readable = true;
        for _ in 0..ROUNDS {
            if let Phase::Closing { .. } = self.phase {
                return self.poll_close(cx);
            }
            let mut moved = false;
            if !std::mem::replace(&mut self.begun, true) {
                moved = true;
                self.read_frames();
            } else if readable && self.out.outbox.len() < 2 * OUT {
                match self.inbox.poll_fill(&mut self.stream, cx) {
                    // It wants no more answers, but those that are there are its own.
                    Poll::Ready(Ok(0)) => {
                        self.streams.close_all(GONE);
                        self.close(Linger::default(), false);
                        continue;
                    }
                    Poll::Ready(Ok(_)) => {
                        moved = true;
                        self.pulse.hear();
                        self.read_frames();
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => readable = false,
                }
            }
            moved |= self.run_streams();
            let waited = self.out.outbox.len() >= OUT;
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if waited && self.out.outbox.len() < OUT {
                self.streams.unblock(Blocked::Room);
                moved = true;
            }
            if self.is_over() {
                // The client may have much of it still to read.
                self.close(Linger::until_read(), true);
            } else if !moved {
                match self.pulse.poll(cx) {
                    Poll::Ready(beat) => self.beat(beat),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether all has been said.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Draining)
            && self.streams.is_empty()
            && self.out.outbox.is_empty()
    }

    /// Goes on with the streams that can. Tells whether there were any.
    fn run_streams(&mut self) -> bool {
        let mut ready = std::mem::take(&mut self.ready);
        let released = std::mem::take(&mut self.released);
        let due = self.signals.take(&mut ready, released, self.recv_window);
        self.pay(due);
        for &place in &ready {
            let Some(slot) = self.streams.slots.get_mut(place) else {
                continue;
            };
            slot.bell.hear();
            let id = slot.id;
            if id == 0 {
                continue;
            }
            let progress = slot.poll(&mut self.out, &mut self.streams.spare);
            self.progress(id, progress);
        }
        let any = !ready.is_empty();
        ready.clear();
        self.ready = ready;
        any
    }

    fn progress(&mut self, id: u32, progress: Progress) {
        let Some(slot) = self.streams.find(id) else {
            return;
        };
        match progress {
            Progress::Waiting => {
                if !matches!(*slot.state, super::stream::State::Over) || slot.is_heard() {
                    return;
                }
            }
            Progress::Told => {
                self.flood.answered();
                slot.state.set(super::stream::State::Over);
                if slot.receiving && slot.is_heard() {
                    return;
                }
            }
            Progress::Broken(reason) => {
                self.reset(id, reason);
                return;
            }
        }
        match slot.receiving {
            // The rest of the request is of no use to anybody (RFC 9113 §8.1).
            true => self.reset(id, Reason::NO_ERROR),
            false => self.streams.close(id, "the response is complete"),
        }
    }

    /// Lets the client send more, if more has been read.
    fn pay(&mut self, octets: usize) {
        if octets > 0 {
            let octets = u32::try_from(octets).unwrap_or_default();
            frame::window_update(self.out.outbox.buffer(), 0, octets);
            self.recv_window += i64::from(octets);
        }
    }

    /// Writes what there is.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.out.outbox.len();
        if before == 0 {
            return Poll::Ready(Ok(()));
        }
        let wrote = self.out.outbox.poll_write(&mut self.stream, cx);
        let full = std::mem::replace(&mut self.full, wrote.is_pending());
        if self.out.outbox.len() < before {
            self.stall.moved();
            self.pulse.wrote(before - self.out.outbox.len());
            // Who makes room is there, even if its answers are far behind.
            if full {
                self.pulse.hear();
            }
        }
        let (outbox, stream) = (&mut self.out.outbox, &self.stream);
        let left = outbox.len();
        let wrote = self.stall.check(wrote, cx, || outbox.try_flush(stream));
        self.pulse.wrote(left - self.out.outbox.len());
        if self.stall.has_moved() {
            self.pulse.hear();
        }
        wrote
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Nobody waits for any stream any more.
        self.signals.take(&mut self.ready, 0, i64::MAX);
        self.ready.clear();
        match self.poll_write(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => {}
        }
        let Phase::Closing { linger, sending } = &mut self.phase else {
            return Poll::Pending;
        };
        linger.poll(&mut self.stream, *sending, cx).map(Ok)
    }
}

impl Future for Connection {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.signals.drive(cx);
        let polled = self.run(cx);
        if polled.is_pending() {
            self.signals.pause();
        }
        polled
    }
}
