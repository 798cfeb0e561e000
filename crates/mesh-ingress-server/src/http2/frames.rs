//! The client's frames (RFC 9113 §5, §6).

use bytes::{Buf as _, BytesMut};
use mesh_ingress_http2::Reason;
use mesh_ingress_http2::frame::{self, FrameHeader, flag, kind, setting};
use tokio::time::Instant;

use super::connection::Connection;
use super::stream::{Blocked, State};
use crate::service::HttpService;

/// Compressed size of a field section in several frames: twice the limit for its fields, so that a client
/// a little beyond that gets an answer.
const MAX_FIELD_BLOCK: usize = 128 * 1024;
/// Frames of such a field section.
const MAX_CONTINUATIONS: u32 = 1000;
/// How many streams that were reset by the server are remembered.
const MAX_RECENTLY_RESET: usize = 1000;

/// A `DATA` frame whose rest is to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialData {
    stream: u32,
    left: usize,
    ends: bool,
}

/// The begin of a field section.
#[derive(Debug)]
pub(super) struct FieldBlock {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    frames: u32,
    pub(super) since: Instant,
}

impl<S: HttpService> Connection<S> {
    /// Reads the frames that have come.
    pub(super) fn read_frames(&mut self) {
        let mut bytes = std::mem::take(self.read_buf.bytes_mut());
        self.read_capacity = bytes.capacity();
        let read = self.each_frame(&mut bytes);
        *self.read_buf.bytes_mut() = bytes;
        self.read_buf.settle();
        if let Err(reason) = read {
            self.read_buf.bytes_mut().clear();
            self.fail(reason);
        }
    }

    fn each_frame(&mut self, bytes: &mut BytesMut) -> Result<(), Reason> {
        loop {
            if self.partial_data.is_some() {
                self.take_data(bytes)?;
                if self.partial_data.is_some() {
                    return Ok(());
                }
            }
            let Some(head) = FrameHeader::read(bytes) else {
                return Ok(());
            };
            self.check(head)?;
            if head.kind == kind::DATA && !head.has(flag::PADDED) {
                bytes.advance(frame::HEADER_LEN);
                self.begin_data(head, head.length)?;
                continue;
            }
            let Some(payload) = bytes.get(frame::HEADER_LEN..frame::HEADER_LEN + head.length)
            else {
                return Ok(());
            };
            if head.kind == kind::DATA {
                let unpadded = frame::unpadded(head, payload)?.len();
                let padding = head.length - unpadded;
                bytes.advance(frame::HEADER_LEN + 1);
                self.begin_data(head, unpadded)?;
                self.take_data(bytes)?;
                // The padding, less the byte with its length.
                bytes.advance(padding - 1);
                self.released += padding;
                continue;
            }
            self.frame(head, payload)?;
            bytes.advance(frame::HEADER_LEN + head.length);
        }
    }

    /// Checks what the head of a frame tells.
    fn check(&mut self, head: FrameHeader) -> Result<(), Reason> {
        if head.length > frame::MAX_PAYLOAD {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        // Even streams are pushed ones, and there are none (§5.1.1).
        let is_pushed = head.stream != 0 && head.stream.is_multiple_of(2);
        if is_pushed && head.kind != kind::PRIORITY && head.kind <= kind::CONTINUATION {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.settings_received && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let continues =
            |block: &FieldBlock| head.kind == kind::CONTINUATION && head.stream == block.stream;
        let is_continuation = head.kind == kind::CONTINUATION;
        match &self.field_block {
            Some(block) if !continues(block) => Err(Reason::PROTOCOL_ERROR),
            None if is_continuation => Err(Reason::PROTOCOL_ERROR),
            _ => Ok(()),
        }
    }

    /// A frame that has come as a whole.
    fn frame(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.rst_stream(head, frame::number(payload)?),
            kind::SETTINGS => self.settings(head, payload),
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY if head.stream != 0 => Err(Reason::PROTOCOL_ERROR),
            kind::GOAWAY if payload.len() < 8 => Err(Reason::FRAME_SIZE_ERROR),
            kind::WINDOW_UPDATE => {
                self.window_update(head, frame::number(payload)? & frame::MAX_WINDOW)
            }
            // A client that goes away closes the connection when it has its responses. Unknown frames
            // are ignored (§5.5).
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        if head.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let mut section = frame::unpadded(head, payload)?;
        if head.has(flag::PRIORITY) {
            section = section.get(5..).ok_or(Reason::FRAME_SIZE_ERROR)?;
        }
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.field_section(head.stream, ends, section);
        }
        self.field_block = Some(FieldBlock {
            stream: head.stream,
            ends,
            bytes: section.to_vec(),
            frames: 1,
            since: Instant::now(),
        });
        Ok(())
    }

    /// RFC 9113 §6.10. Bounded in memory and time (CVE-2024-27316).
    fn continuation(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        let Some(block) = &mut self.field_block else {
            return Err(Reason::PROTOCOL_ERROR);
        };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        if block.bytes.len() > MAX_FIELD_BLOCK || block.frames > MAX_CONTINUATIONS {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        match self.field_block.take() {
            Some(block) => self.field_section(block.stream, block.ends, &block.bytes),
            None => Ok(()),
        }
    }

    /// Deprecated (RFC 9113 §5.3.2), but its form is checked.
    fn priority(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        match (head.stream, payload.len()) {
            (0, _) => Err(Reason::PROTOCOL_ERROR),
            (_, 5) => Ok(()),
            _ => Err(Reason::FRAME_SIZE_ERROR),
        }
    }

    fn rst_stream(&mut self, head: FrameHeader, code: u32) -> Result<(), Reason> {
        if head.stream == 0 || head.stream > self.last_stream {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let Some(stream) = self.streams.find(head.stream) {
            tracing::debug!(
                "stream {}: reset by the client: {}",
                stream.id,
                Reason::from(code)
            );
            // Then the client does not wait for a response any more.
            let is_answered = matches!(*stream.state, State::EndStreamSent);
            self.streams.close(
                head.stream,
                "the client has reset the stream before the body was complete",
            );
            if !is_answered {
                self.count_reset()?;
            }
        }
        Ok(())
    }

    /// A request has ended before its response, by the client's doing.
    pub(super) fn count_reset(&mut self) -> Result<(), Reason> {
        let exceeded = |_| Reason::ENHANCE_YOUR_CALM;
        self.reset_budget.on_reset().map_err(exceeded)
    }

    fn settings(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.has(flag::ACK) {
            return match payload.is_empty() {
                true => Ok(()),
                false => Err(Reason::FRAME_SIZE_ERROR),
            };
        }
        self.settings_received = true;
        let mut window = None;
        let send = &mut self.send;
        frame::each_setting(payload, |name, value| match name {
            setting::HEADER_TABLE_SIZE => send.writer.table_size(value),
            setting::INITIAL_WINDOW_SIZE => window = Some(value),
            setting::MAX_FRAME_SIZE => {
                send.writer.max_payload(value as usize);
                // Larger frames would keep other streams waiting.
                send.max_frame = frame::MAX_PAYLOAD;
            }
            _ => {}
        })?;
        if let Some(window) = window {
            self.set_initial_window(window.into())?;
        }
        frame::settings_ack(self.send.buf.buffer());
        Ok(())
    }

    /// RFC 9113 §6.9.2
    fn set_initial_window(&mut self, window: i64) -> Result<(), Reason> {
        let more = window - self.initial_send_window;
        self.initial_send_window = window;
        for stream in self.streams.all() {
            stream.send_window += more;
            if stream.send_window > frame::MAX_WINDOW.into() {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
        }
        if more > 0 {
            self.streams.unblock(Blocked::Window);
        }
        Ok(())
    }

    fn ping(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let payload = payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)?;
        match head.has(flag::ACK) {
            true => self.ping_answered(payload),
            false => frame::ping(self.send.buf.buffer(), payload, true),
        }
        Ok(())
    }

    fn window_update(&mut self, head: FrameHeader, increment: u32) -> Result<(), Reason> {
        const MAX: i64 = frame::MAX_WINDOW as i64;
        if increment == 0 || head.stream > self.last_stream {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.stream == 0 {
            self.send.window += i64::from(increment);
            if self.send.window > MAX {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            self.streams.unblock(Blocked::Window);
            return Ok(());
        }
        let Some(stream) = self.streams.find(head.stream) else {
            return Ok(());
        };
        stream.send_window += i64::from(increment);
        if stream.send_window > MAX {
            return self.refuse(head.stream, Reason::FLOW_CONTROL_ERROR);
        }
        if stream.blocked == Blocked::Window {
            stream.waker.notify();
        }
        Ok(())
    }

    /// Resets a stream for what the client has done wrong.
    pub(super) fn refuse(&mut self, id: u32, reason: Reason) -> Result<(), Reason> {
        self.reset(id, reason);
        self.count_reset()
    }

    /// Resets a stream.
    pub(super) fn reset(&mut self, id: u32, reason: Reason) {
        self.send_reset(id, reason);
        self.streams
            .close(id, "the stream was reset before the body was complete");
    }

    /// Tells the client that a stream is reset, and remembers that frames may still come for it.
    pub(super) fn send_reset(&mut self, id: u32, reason: Reason) {
        frame::reset(self.send.buf.buffer(), id, reason);
        if self.recently_reset.len() >= MAX_RECENTLY_RESET {
            self.recently_reset.pop_front();
        }
        self.recently_reset.push_back(id);
    }

    /// A `DATA` frame begins, of which `length` bytes are not padding (RFC 9113 §6.1).
    fn begin_data(&mut self, head: FrameHeader, length: usize) -> Result<(), Reason> {
        if head.stream == 0 || head.stream > self.last_stream {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.recv_window -= head.length as i64;
        if self.recv_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        let ends = head.has(flag::END_STREAM);
        match length {
            0 if !ends => self
                .reset_budget
                .on_empty_frame()
                .map_err(|_| Reason::ENHANCE_YOUR_CALM)?,
            _ => self.reset_budget.on_useful_frame(),
        }
        self.partial_data = Some(PartialData {
            stream: head.stream,
            left: length,
            ends,
        });
        let Some(stream) = self.streams.find(head.stream) else {
            // The client may not know of a reset yet. For other streams it is told.
            if !self.recently_reset.contains(&head.stream) {
                self.refuse(head.stream, Reason::STREAM_CLOSED)?;
            }
            return Ok(());
        };
        let sent = u32::try_from(head.length).unwrap_or(u32::MAX);
        let window = stream.recv_window.checked_sub(sent);
        let left = stream.body_left;
        let left = left.map(|left| left.checked_sub(length as u64));
        match (window, left) {
            _ if !stream.receiving => self.refuse(head.stream, Reason::STREAM_CLOSED),
            (None, _) => self.refuse(head.stream, Reason::FLOW_CONTROL_ERROR),
            // Longer than its content-length (§8.1.1).
            (_, Some(None)) => self.refuse(head.stream, Reason::PROTOCOL_ERROR),
            (Some(window), left) => {
                // Nobody reads the padding.
                stream.recv_window = window + (sent - length as u32);
                if sent > length as u32 {
                    let padding = sent - length as u32;
                    frame::window_update(self.send.buf.buffer(), head.stream, padding);
                }
                stream.body_left = left.flatten();
                Ok(())
            }
        }
    }

    /// Takes what has come of a `DATA` frame.
    fn take_data(&mut self, bytes: &mut BytesMut) -> Result<(), Reason> {
        let Some(mut data) = self.partial_data.take() else {
            return Ok(());
        };
        let taken = data.left.min(bytes.len());
        data.left -= taken;
        let piece = bytes.split_to(taken);
        let body = self
            .streams
            .find(data.stream)
            .and_then(|stream| stream.request_body.as_ref());
        match body {
            Some(body) if taken > 0 => {
                if body.push(piece.freeze(), self.read_capacity).is_err() {
                    self.released += taken;
                }
            }
            _ => self.released += taken,
        }
        if data.left > 0 {
            self.partial_data = Some(data);
        } else if data.ends {
            return self.end_request(data.stream, None);
        }
        Ok(())
    }
}
