//! One HTTP/2 connection, driven by one task: it reads frames, polls the responses, and writes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mesh_ingress_core::BoxError;
use mesh_ingress_http2::response::Writer;
use mesh_ingress_http2::{Reason, frame, hpack};
use mesh_ingress_io::{Conn, ReadBuf, WriteBuf};
use tokio::time::Instant;

use super::frames::{FieldBlock, PartialData};
use super::idle_timeout::IdleTimeout;
use super::keep_alive::KeepAlive;
use super::ready_queue::ReadyQueue;
use super::reset_budget::ResetBudget;
use super::send::MAX_BUFFERED;
use super::stream::{Blocked, Progress, SendState, State};
use super::streams::Streams;
use super::{CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW};
use crate::connection::Session;
use crate::linger::Linger;
use crate::service::HttpService;
use crate::write_timeout::WriteTimeout;

/// Size of the client's HPACK table (the default without a setting).
const HEADER_TABLE: usize = 4096;
/// Bound of the fields of a section, as `SETTINGS_MAX_HEADER_LIST_SIZE` counts them.
pub(super) const MAX_HEADER_LIST: usize = crate::MAX_HEADER_BYTES;
/// How often the socket is read before other tasks have their turn.
const MAX_ROUNDS: usize = 16;
/// Why there is no more of a body.
pub(super) const CLIENT_GONE: &str = "the client has gone before the body was complete";
/// Payload of the `PING` that goes with the first `GOAWAY`.
const SHUTDOWN_PING: [u8; 8] = *b"shutdown";

/// A client's connection.
///
/// * A client that stops reading is disconnected after a minute, and a stream whose window stays closed is
///   reset after five.
/// * A silent client gets a `PING`, and one without requests a `GOAWAY` after a time-out.
/// * A client that is still sending when its connection is closed gets its responses first.
pub(super) struct Connection<S: HttpService> {
    pub(super) conn: Conn,
    pub(super) read_buf: ReadBuf,
    /// The bytes that had been read when the connection began have been parsed.
    begun: bool,
    pub(super) send: SendState,
    pub(super) session: Box<Session<S>>,
    pub(super) streams: Streams<S>,
    pub(super) queue: Arc<ReadyQueue>,
    ready: Vec<usize>,
    pub(super) decoder: hpack::Decoder,
    /// The client's first frame, which must be `SETTINGS`, has come.
    pub(super) settings_received: bool,
    /// Capacity of the buffer that the present frames were read into.
    pub(super) read_capacity: usize,
    pub(super) partial_data: Option<PartialData>,
    pub(super) field_block: Option<FieldBlock>,
    /// The last stream that the client has begun.
    pub(super) last_stream: u32,
    /// The last stream that the second `GOAWAY` promised to serve.
    promised_stream: Option<u32>,
    /// Streams that were reset here not long ago: the client may not know yet.
    pub(super) recently_reset: VecDeque<u32>,
    /// The connection's flow-control window for the client.
    pub(super) recv_window: i64,
    /// Bytes that have come and will not be read, and for which the client has no window yet.
    pub(super) released: usize,
    /// The send window of a stream that begins.
    pub(super) initial_send_window: i64,
    pub(super) reset_budget: ResetBudget,
    keep_alive: KeepAlive,
    pub(super) idle_timeout: IdleTimeout,
    write_timeout: WriteTimeout,
    /// The socket did not take all.
    socket_full: bool,
    pub(super) phase: Phase,
}

/// Whether requests are taken.
#[derive(Debug)]
pub(super) enum Phase {
    Open,
    /// The first `GOAWAY` and a `PING` have been sent, and the `PING` is not answered.
    ShutdownPing {
        since: Instant,
    },
    /// The second `GOAWAY` has been sent: new streams are refused.
    Draining,
    /// Nothing is read any more.
    Closing {
        linger: Linger,
        sending: bool,
    },
}

impl<S: HttpService> Connection<S> {
    /// `read_buf` holds what has been read, from the preface on.
    pub(super) fn new(conn: Conn, mut read_buf: ReadBuf, session: Box<Session<S>>) -> Self {
        bytes::Buf::advance(read_buf.bytes_mut(), frame::PREFACE.len());
        let queue = ReadyQueue::new();
        let mut buf = WriteBuf::default();
        let frames = buf.buffer();
        let settings = [
            (frame::setting::MAX_CONCURRENT_STREAMS, MAX_STREAMS as u32),
            (frame::setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (frame::setting::MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST as u32),
            // WebSockets (RFC 8441).
            (frame::setting::ENABLE_CONNECT_PROTOCOL, 1),
        ];
        frame::settings(frames, &settings);
        frame::window_update(frames, 0, CONNECTION_WINDOW - frame::WINDOW);
        Self {
            idle_timeout: IdleTimeout::new(session.context.timeouts.http2_idle),
            conn,
            session,
            read_buf,
            begun: false,
            send: SendState {
                buf,
                writer: Writer::new(),
                window: frame::WINDOW.into(),
                data_sent: false,
                max_frame: frame::MAX_PAYLOAD,
            },
            streams: Streams::new(&queue),
            queue,
            ready: Vec::new(),
            decoder: hpack::Decoder::new(HEADER_TABLE),
            settings_received: false,
            read_capacity: 0,
            partial_data: None,
            field_block: None,
            last_stream: 0,
            promised_stream: None,
            recently_reset: VecDeque::new(),
            recv_window: CONNECTION_WINDOW.into(),
            released: 0,
            initial_send_window: frame::WINDOW.into(),
            reset_budget: ResetBudget::new(),
            keep_alive: KeepAlive::new(),
            write_timeout: WriteTimeout::default(),
            socket_full: false,
            phase: Phase::Open,
        }
    }

    /// Finishes the requests under way, and takes no other (RFC 9113 §6.8).
    pub(super) fn graceful_shutdown(&mut self) {
        if matches!(self.phase, Phase::Open) {
            let frames = self.send.buf.buffer();
            frame::goaway(frames, frame::MAX_WINDOW, Reason::NO_ERROR);
            frame::ping(frames, SHUTDOWN_PING, false);
            let since = Instant::now();
            self.phase = Phase::ShutdownPing { since };
        }
    }

    /// The client has answered a `PING`.
    pub(super) fn ping_answered(&mut self, payload: [u8; 8]) {
        if payload == SHUTDOWN_PING {
            self.refuse_new_streams();
        }
    }

    /// The client knows of the shutdown: only what it has begun until now is served.
    pub(super) fn refuse_new_streams(&mut self) {
        if matches!(self.phase, Phase::ShutdownPing { .. }) {
            self.promised_stream = Some(self.last_stream);
            frame::goaway(self.send.buf.buffer(), self.last_stream, Reason::NO_ERROR);
            self.phase = Phase::Draining;
        }
    }

    /// Ends the connection with an error.
    pub(super) fn fail(&mut self, reason: Reason) {
        tracing::debug!("client connection over HTTP/2: {reason}");
        // A promise of streams to be served must not be extended (RFC 9113 §6.8).
        let last = self.promised_stream.unwrap_or(self.last_stream);
        frame::goaway(self.send.buf.buffer(), last, reason);
        self.streams
            .close_all("the connection was closed before the body was complete");
        self.close(Linger::default(), true);
    }

    fn close(&mut self, linger: Linger, sending: bool) {
        self.phase = Phase::Closing { linger, sending };
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut readable = true;
        for _ in 0..MAX_ROUNDS {
            if let Phase::Closing { .. } = self.phase {
                return self.poll_close(cx);
            }
            let mut progressed = false;
            if !std::mem::replace(&mut self.begun, true) {
                progressed = true;
                self.read_frames();
            } else if readable && self.send.buf.len() < 2 * MAX_BUFFERED {
                match self.read_buf.poll_fill(&mut self.conn, cx) {
                    // The client wants no more responses. Those that wait are still its own.
                    Poll::Ready(Ok(0)) => {
                        self.streams.close_all(CLIENT_GONE);
                        self.close(Linger::default(), false);
                        continue;
                    }
                    Poll::Ready(Ok(_)) => {
                        progressed = true;
                        self.keep_alive.received();
                        self.read_frames();
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => readable = false,
                }
            }
            progressed |= self.run_streams();
            let was_full = self.send.buf.len() >= MAX_BUFFERED;
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if was_full && self.send.buf.len() < MAX_BUFFERED {
                self.streams.unblock(Blocked::Buffer);
                progressed = true;
            }
            if self.is_drained() {
                // The client may have much of it still to read.
                self.close(Linger::until_read(), true);
            } else if !progressed {
                match self.keep_alive.poll(cx) {
                    Poll::Ready(tick) => self.tick(tick),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether a drain has ended.
    fn is_drained(&self) -> bool {
        matches!(self.phase, Phase::Draining) && self.streams.is_empty() && self.send.buf.is_empty()
    }

    /// Polls the ready streams. Returns whether there were any.
    fn run_streams(&mut self) -> bool {
        let mut ready = std::mem::take(&mut self.ready);
        let released = std::mem::take(&mut self.released);
        let grows = self.queue.take(&mut ready, released, self.recv_window);
        self.grow_recv_window(grows);
        for &slot in &ready {
            let Some((stream, spare)) = self.streams.slot(slot) else {
                continue;
            };
            stream.waker.dequeued();
            let id = stream.id;
            if id == 0 {
                continue;
            }
            let Session {
                client, context, ..
            } = &mut *self.session;
            let progress = stream.poll(&mut self.send, spare, client, context);
            self.on_progress(id, progress);
        }
        let any = !ready.is_empty();
        ready.clear();
        self.ready = ready;
        any
    }

    fn on_progress(&mut self, id: u32, progress: Progress) {
        let Some(stream) = self.streams.find(id) else {
            return;
        };
        match progress {
            Progress::Pending => {
                if !matches!(*stream.state, State::EndStreamSent) || stream.is_read() {
                    return;
                }
            }
            Progress::EndStreamSent => {
                self.reset_budget.on_response();
                stream.state.set(State::EndStreamSent);
                if stream.receiving && stream.is_read() {
                    return;
                }
            }
            Progress::Broken(reason) => {
                self.reset(id, reason);
                return;
            }
        }
        match stream.receiving {
            // The rest of the request is of no use (RFC 9113 §8.1).
            true => self.reset(id, Reason::NO_ERROR),
            false => self.streams.close(id, "the response is complete"),
        }
    }

    /// Lets the client send more.
    fn grow_recv_window(&mut self, bytes: usize) {
        if bytes > 0 {
            let bytes = u32::try_from(bytes).unwrap_or_default();
            frame::window_update(self.send.buf.buffer(), 0, bytes);
            self.recv_window += i64::from(bytes);
        }
    }

    /// Writes what waits.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.send.buf.len();
        if before == 0 {
            return Poll::Ready(Ok(()));
        }
        let wrote = self.send.buf.poll_write(&mut self.conn, cx);
        let was_full = std::mem::replace(&mut self.socket_full, wrote.is_pending());
        if self.send.buf.len() < before {
            self.write_timeout.reset();
            self.keep_alive.wrote(before - self.send.buf.len());
            // A client that makes room is there, even if its answers are far behind.
            if was_full {
                self.keep_alive.received();
            }
        }
        let (buf, conn) = (&mut self.send.buf, &self.conn);
        let left = buf.len();
        let wrote = self.write_timeout.poll(wrote, cx, || buf.try_flush(conn));
        self.keep_alive.wrote(left - self.send.buf.len());
        if self.write_timeout.take_progressed() {
            self.keep_alive.received();
        }
        wrote
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // No stream is open any more.
        self.queue.take(&mut self.ready, 0, i64::MAX);
        self.ready.clear();
        match self.poll_write(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => {}
        }
        let Phase::Closing { linger, sending } = &mut self.phase else {
            return Poll::Pending;
        };
        linger.poll(&mut self.conn, *sending, cx).map(Ok)
    }
}

impl<S: HttpService> Future for Connection<S> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.queue.begin_poll(cx);
        let polled = this.run(cx);
        if polled.is_pending() {
            this.queue.pause();
        }
        polled
    }
}

/// Nothing in it is pinned: streams have their pinned state in boxes.
impl<S: HttpService> Unpin for Connection<S> {}
