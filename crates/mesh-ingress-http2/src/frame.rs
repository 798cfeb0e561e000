//! Frames (RFC 9113 §4.1, §6).

use bytes::Buf as _;

use crate::Reason;

/// The client connection preface (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub mod kind {
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// The header section of a message, or its trailers.
    pub const HEADERS: u8 = 1;
    /// Deprecated by RFC 9113.
    pub const PRIORITY: u8 = 2;
    /// Terminates a stream.
    pub const RST_STREAM: u8 = 3;
    /// The sender's settings.
    pub const SETTINGS: u8 = 4;
    /// Announces a pushed response.
    pub const PUSH_PROMISE: u8 = 5;
    /// Checks that the peer is alive.
    pub const PING: u8 = 6;
    /// Shuts the connection down.
    pub const GOAWAY: u8 = 7;
    /// Grants flow-control window.
    pub const WINDOW_UPDATE: u8 = 8;
    /// Continues a field section that does not fit into one frame.
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags; their meaning depends on the frame type.
pub mod flag {
    /// `DATA`, `HEADERS`: the last frame of the stream.
    pub const END_STREAM: u8 = 0x1;
    /// `SETTINGS`, `PING`: the acknowledgement.
    pub const ACK: u8 = 0x1;
    /// `HEADERS`, `CONTINUATION`: no `CONTINUATION` follows.
    pub const END_HEADERS: u8 = 0x4;
    /// `DATA`, `HEADERS`: the payload is padded.
    pub const PADDED: u8 = 0x8;
    /// `HEADERS`: five bytes of deprecated priority come first.
    pub const PRIORITY: u8 = 0x20;
}

/// The length of a frame header in bytes.
pub const HEADER_LEN: usize = 9;
/// The initial maximum payload of a frame in bytes (RFC 9113 §6.5.2).
pub const MAX_PAYLOAD: usize = 16_384;
/// The initial flow-control window of a connection and of its streams in bytes (RFC 9113 §6.9.2).
pub const WINDOW: u32 = 65_535;
/// The largest window (RFC 9113 §6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The length of the payload in bytes.
    pub length: usize,
    /// One of [`kind`].
    pub kind: u8,
    /// Flags of [`flag`].
    pub flags: u8,
    /// The stream identifier; 0 is the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a frame header, if it is complete.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = *bytes;
        Some(Self {
            length: u32::from_be_bytes([0, l1, l2, l3]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
        })
    }

    /// The header as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [_, l1, l2, l3] = (self.length as u32).to_be_bytes();
        let [s1, s2, s3, s4] = self.stream.to_be_bytes();
        [l1, l2, l3, self.kind, self.flags, s1, s2, s3, s4]
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A payload without its padding (RFC 9113 §6.1).
///
/// # Errors
/// When the padding is longer than the payload.
pub fn unpadded(head: FrameHeader, payload: &[u8]) -> Result<&[u8], Reason> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
    let length = rest.len().checked_sub(padding.into());
    length
        .and_then(|length| rest.get(..length))
        .ok_or(Reason::PROTOCOL_ERROR)
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len();
    let head = FrameHeader {
        length,
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&head.to_bytes());
    out.extend_from_slice(payload);
}

/// Writes the header of a `DATA` frame.
pub fn data(out: &mut Vec<u8>, stream: u32, length: usize, ends: bool) {
    let head = FrameHeader {
        length,
        kind: kind::DATA,
        flags: if ends { flag::END_STREAM } else { 0 },
        stream,
    };
    out.extend_from_slice(&head.to_bytes());
}

/// Writes a `RST_STREAM`.
pub fn reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    frame(
        out,
        kind::RST_STREAM,
        0,
        stream,
        &reason.code().to_be_bytes(),
    );
}

/// Writes a `PING`, or its acknowledgement.
pub fn ping(out: &mut Vec<u8>, bytes: [u8; 8], ack: bool) {
    let flags = if ack { flag::ACK } else { 0 };
    frame(out, kind::PING, flags, 0, &bytes);
}

/// Writes a `GOAWAY`.
pub fn goaway(out: &mut Vec<u8>, last: u32, reason: Reason) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&reason.code().to_be_bytes());
    frame(out, kind::GOAWAY, 0, 0, &payload);
}

/// Writes a `WINDOW_UPDATE`.
pub fn window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    frame(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// Setting identifiers (RFC 9113 §6.5.2).
pub mod setting {
    /// The maximum size of the peer's HPACK table in bytes.
    pub const HEADER_TABLE_SIZE: u16 = 1;
    /// Whether server push is allowed.
    pub const ENABLE_PUSH: u16 = 2;
    /// The maximum number of concurrent streams.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// The initial window of a stream in bytes.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    /// The maximum payload of a frame in bytes.
    pub const MAX_FRAME_SIZE: u16 = 5;
    /// The maximum size of a field section in bytes.
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// Whether extended `CONNECT` is allowed (RFC 8441 §3).
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Writes `SETTINGS`.
pub fn settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(settings.len() * 6);
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(out, kind::SETTINGS, 0, 0, &payload);
}

/// Acknowledges the peer's settings.
pub fn settings_ack(out: &mut Vec<u8>) {
    frame(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

/// Reads the payload of `SETTINGS`, and calls `apply` with each identifier and value.
///
/// # Errors
/// When a value is out of range.
pub fn each_setting(mut payload: &[u8], mut apply: impl FnMut(u16, u32)) -> Result<(), Reason> {
    if !payload.len().is_multiple_of(6) {
        return Err(Reason::FRAME_SIZE_ERROR);
    }
    while payload.has_remaining() {
        let (name, value) = (payload.get_u16(), payload.get_u32());
        match name {
            setting::ENABLE_PUSH | setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD as u32..1 << 24).contains(&value) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            _ => apply(name, value),
        }
    }
    Ok(())
}

/// The number in the four-byte payload of `RST_STREAM` or `WINDOW_UPDATE`.
///
/// # Errors
/// When the payload has another length.
pub fn number(payload: &[u8]) -> Result<u32, Reason> {
    let bytes = payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rfc9113_4_1_frame_header_round_trips() {
        let head = FrameHeader {
            length: 0x01_02_03,
            kind: kind::DATA,
            flags: flag::END_STREAM,
            stream: 0x7f_01_02_03,
        };
        assert_eq!(FrameHeader::read(&head.to_bytes()), Some(head));
        assert_eq!(FrameHeader::read(&head.to_bytes()[..8]), None);
        // The first bit of the stream identifier is reserved.
        let mut bytes = head.to_bytes();
        bytes[5] |= 0x80;
        assert_eq!(FrameHeader::read(&bytes), Some(head));
    }

    #[test]
    fn rfc9113_6_1_padding_longer_than_its_frame_is_refused() {
        let head = FrameHeader {
            length: 3,
            kind: kind::DATA,
            flags: flag::PADDED,
            stream: 1,
        };
        assert_eq!(unpadded(head, &[1, b'a', 0]).unwrap(), b"a");
        assert_eq!(unpadded(head, &[2, 0, 0]).unwrap(), b"");
        assert_eq!(unpadded(head, &[3, 0, 0]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(unpadded(head, &[]), Err(Reason::FRAME_SIZE_ERROR));
        let bare = FrameHeader { flags: 0, ..head };
        assert_eq!(unpadded(bare, &[3, 0, 0]).unwrap(), [3, 0, 0]);
    }

    #[test]
    fn rfc9113_6_5_2_settings_outside_their_range_are_refused() {
        let read = |settings: &[(u16, u32)]| {
            let mut out = Vec::new();
            super::settings(&mut out, settings);
            let mut applied = Vec::new();
            each_setting(&out[HEADER_LEN..], |name, value| {
                applied.push((name, value));
            })
            .map(|()| applied)
        };
        let good = [(1, 0), (2, 1), (4, MAX_WINDOW), (5, 16_384), (0xff, 7)];
        assert_eq!(read(&good).unwrap(), good);
        assert_eq!(read(&[(2, 2)]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(read(&[(4, 1 << 31)]), Err(Reason::FLOW_CONTROL_ERROR));
        assert_eq!(read(&[(5, 16_383)]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(read(&[(5, 1 << 24)]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(
            each_setting(&[0; 5], |_, _| {}),
            Err(Reason::FRAME_SIZE_ERROR)
        );
    }
}
