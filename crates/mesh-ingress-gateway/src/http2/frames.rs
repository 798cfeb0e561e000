//! What a client says, frame by frame (RFC 9113 §5, §6).

use bytes::{Buf as _, BytesMut};
use mesh_ingress_http2::Reason;
use mesh_ingress_http2::frame::{self, FrameHeader, flag, kind, setting};

use tokio::time::Instant;

use super::connection::Connection;
use super::stream::Blocked;

/// A field section that comes in several frames may be so large, compressed: twice the limit for
/// what is in it, so that who is a little beyond that gets an answer.
const MAX_BLOCK: usize = 128 * 1024;
/// And may come in so many.
const MAX_PIECES: u32 = 1000;
/// Streams that have been reset here and are remembered.
const REMEMBERED: usize = 1000;

/// The rest of a `DATA` frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    stream: u32,
    left: usize,
    ends: bool,
}

/// The begin of a field section.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    octets: Vec<u8>,
    pieces: u32,
    pub(super) since: Instant,
}

impl Connection {
    /// Reads what there is of frames.
    pub(super) fn read_frames(&mut self) {
        let mut octets = std::mem::take(self.inbox.bytes_mut());
        self.room = octets.capacity();
        let read = self.each_frame(&mut octets);
        *self.inbox.bytes_mut() = octets;
        self.inbox.settle();
        if let Err(reason) = read {
            self.inbox.bytes_mut().clear();
            self.fail(reason);
        }
    }

    fn each_frame(&mut self, octets: &mut BytesMut) -> Result<(), Reason> {
        loop {
            if self.incoming.is_some() {
                self.take_data(octets)?;
                if self.incoming.is_some() {
                    return Ok(());
                }
            }
            let Some(head) = FrameHeader::read(octets) else {
                return Ok(());
            };
            self.check(head)?;
            if head.kind == kind::DATA && !head.has(flag::PADDED) {
                octets.advance(frame::HEADER_LEN);
                self.begin_data(head, head.length)?;
                continue;
            }
            let Some(payload) = octets.get(frame::HEADER_LEN..frame::HEADER_LEN + head.length)
            else {
                return Ok(());
            };
            if head.kind == kind::DATA {
                let unpadded = frame::unpadded(head, payload)?.len();
                let padding = head.length - unpadded;
                octets.advance(frame::HEADER_LEN + 1);
                self.begin_data(head, unpadded)?;
                self.take_data(octets)?;
                // What is behind it has the length of the padding, less the octet that says so.
                octets.advance(padding - 1);
                self.released += padding;
                continue;
            }
            self.frame(head, payload)?;
            octets.advance(frame::HEADER_LEN + head.length);
        }
    }

    /// What the head of a frame tells.
    fn check(&mut self, head: FrameHeader) -> Result<(), Reason> {
        if head.length > frame::MAX_PAYLOAD {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        // Those are for pushes, which there are none of (§5.1.1).
        let is_pushed = head.stream != 0 && head.stream.is_multiple_of(2);
        if is_pushed && head.kind != kind::PRIORITY && head.kind <= kind::CONTINUATION {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let continues =
            |block: &Block| head.kind == kind::CONTINUATION && head.stream == block.stream;
        let is_continuation = head.kind == kind::CONTINUATION;
        match &self.block {
            Some(block) if !continues(block) => Err(Reason::PROTOCOL_ERROR),
            None if is_continuation => Err(Reason::PROTOCOL_ERROR),
            _ => Ok(()),
        }
    }

    /// A frame that has come whole.
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
            // A client that goes away closes the connection when it has its answers; and what is
            // unknown is passed over (§5.5).
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
            return self.section(head.stream, ends, section);
        }
        self.block = Some(Block {
            stream: head.stream,
            ends,
            octets: section.to_vec(),
            pieces: 1,
            since: Instant::now(),
        });
        Ok(())
    }

    /// RFC 9113 §6.10. Without bounds it takes memory or time (CVE-2024-27316).
    fn continuation(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        let Some(block) = &mut self.block else {
            return Err(Reason::PROTOCOL_ERROR);
        };
        block.octets.extend_from_slice(payload);
        block.pieces += 1;
        if block.octets.len() > MAX_BLOCK || block.pieces > MAX_PIECES {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        match self.block.take() {
            Some(block) => self.section(block.stream, block.ends, &block.octets),
            None => Ok(()),
        }
    }

    /// Means nothing any more (RFC 9113 §5.3.2), but has a form.
    fn priority(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Reason> {
        match (head.stream, payload.len()) {
            (0, _) => Err(Reason::PROTOCOL_ERROR),
            (_, 5) => Ok(()),
            _ => Err(Reason::FRAME_SIZE_ERROR),
        }
    }

    fn rst_stream(&mut self, head: FrameHeader, code: u32) -> Result<(), Reason> {
        if head.stream == 0 || head.stream > self.last {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if let Some(slot) = self.streams.find(head.stream) {
            tracing::debug!(
                "stream {}: reset by the client: {}",
                slot.id,
                Reason::from(code)
            );
            // Nobody waited for an answer any more.
            let is_told = matches!(*slot.state, super::stream::State::Over);
            self.streams.close(
                head.stream,
                "the client has reset the stream before the body was complete",
            );
            if !is_told {
                self.spoilt()?;
            }
        }
        Ok(())
    }

    pub(super) fn spoilt(&mut self) -> Result<(), Reason> {
        let calm = |_| Reason::ENHANCE_YOUR_CALM;
        self.flood.spoilt().map_err(calm)
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
        self.settled = true;
        let mut window = None;
        let out = &mut self.out;
        frame::each_setting(payload, |name, value| match name {
            setting::HEADER_TABLE_SIZE => out.writer.table_size(value),
            setting::INITIAL_WINDOW_SIZE => window = Some(value),
            setting::MAX_FRAME_SIZE => {
                out.writer.max_payload(value as usize);
                // Larger ones would keep other streams waiting.
                out.max_payload = frame::MAX_PAYLOAD;
            }
            _ => {}
        })?;
        if let Some(window) = window {
            self.initial_window(window.into())?;
        }
        frame::settings_ack(self.out.outbox.buffer());
        Ok(())
    }

    /// RFC 9113 §6.9.2
    fn initial_window(&mut self, window: i64) -> Result<(), Reason> {
        let more = window - self.initial_window;
        self.initial_window = window;
        for slot in self.streams.all() {
            slot.window += more;
            if slot.window > frame::MAX_WINDOW.into() {
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
        let octets = payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)?;
        match head.has(flag::ACK) {
            true => self.answered(octets),
            false => frame::ping(self.out.outbox.buffer(), octets, true),
        }
        Ok(())
    }

    fn window_update(&mut self, head: FrameHeader, octets: u32) -> Result<(), Reason> {
        const MOST: i64 = frame::MAX_WINDOW as i64;
        if octets == 0 || head.stream > self.last {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if head.stream == 0 {
            self.out.window += i64::from(octets);
            if self.out.window > MOST {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            self.streams.unblock(Blocked::Window);
            return Ok(());
        }
        let Some(slot) = self.streams.find(head.stream) else {
            return Ok(());
        };
        slot.window += i64::from(octets);
        if slot.window > MOST {
            return self.refuse(head.stream, Reason::FLOW_CONTROL_ERROR);
        }
        if slot.blocked == Blocked::Window {
            slot.bell.ring();
        }
        Ok(())
    }

    /// Ends a stream for what the client has done wrong.
    pub(super) fn refuse(&mut self, id: u32, reason: Reason) -> Result<(), Reason> {
        self.reset(id, reason);
        self.spoilt()
    }

    /// Ends a stream before its time.
    pub(super) fn reset(&mut self, id: u32, reason: Reason) {
        self.tell_reset(id, reason);
        self.streams
            .close(id, "the stream was reset before the body was complete");
    }

    /// Tells the client that a stream has ended, and remembers that it may not know.
    pub(super) fn tell_reset(&mut self, id: u32, reason: Reason) {
        frame::reset(self.out.outbox.buffer(), id, reason);
        if self.reset.len() >= REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// The begin of a piece of a body, of which `length` octets are not padding (RFC 9113 §6.1).
    fn begin_data(&mut self, head: FrameHeader, length: usize) -> Result<(), Reason> {
        if head.stream == 0 || head.stream > self.last {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.recv_window -= head.length as i64;
        if self.recv_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        let ends = head.has(flag::END_STREAM);
        match length {
            0 if !ends => self.flood.empty().map_err(|_| Reason::ENHANCE_YOUR_CALM)?,
            _ => self.flood.useful(),
        }
        self.incoming = Some(Incoming {
            stream: head.stream,
            left: length,
            ends,
        });
        let Some(slot) = self.streams.find(head.stream) else {
            // One that has been reset here may not know; another one is told.
            if !self.reset.contains(&head.stream) {
                self.refuse(head.stream, Reason::STREAM_CLOSED)?;
            }
            return Ok(());
        };
        let sent = u32::try_from(head.length).unwrap_or(u32::MAX);
        let (window, octets) = (slot.recv_window.checked_sub(sent), length as u64);
        let left = slot.left.map(|left| left.checked_sub(octets));
        match (window, left) {
            _ if !slot.receiving => self.refuse(head.stream, Reason::STREAM_CLOSED),
            (None, _) => self.refuse(head.stream, Reason::FLOW_CONTROL_ERROR),
            // Longer than it was said to be (§8.1.1).
            (_, Some(None)) => self.refuse(head.stream, Reason::PROTOCOL_ERROR),
            (Some(window), left) => {
                // Padding is nobody's to read.
                slot.recv_window = window + (sent - length as u32);
                if sent > length as u32 {
                    let padding = sent - length as u32;
                    frame::window_update(self.out.outbox.buffer(), head.stream, padding);
                }
                slot.left = left.flatten();
                Ok(())
            }
        }
    }

    /// Takes what there is of a piece of a body.
    fn take_data(&mut self, octets: &mut BytesMut) -> Result<(), Reason> {
        let Some(mut incoming) = self.incoming.take() else {
            return Ok(());
        };
        let taken = incoming.left.min(octets.len());
        incoming.left -= taken;
        let piece = octets.split_to(taken);
        let upload = self
            .streams
            .find(incoming.stream)
            .and_then(|slot| slot.upload.as_ref());
        match upload {
            Some(upload) if taken > 0 => {
                if upload.push(piece.freeze(), self.room).is_err() {
                    self.released += taken;
                }
            }
            _ => self.released += taken,
        }
        if incoming.left > 0 {
            self.incoming = Some(incoming);
        } else if incoming.ends {
            return self.end_of_request(incoming.stream, None);
        }
        Ok(())
    }
}
