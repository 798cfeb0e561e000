//! Frames (RFC 9113 §4.1, §6).

use bytes::Buf as _;

use crate::Reason;

/// How a connection of a client begins (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a frame is.
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// The begin of a message, or its trailers.
    pub const HEADERS: u8 = 1;
    /// Means nothing any more.
    pub const PRIORITY: u8 = 2;
    /// A stream ends.
    pub const RST_STREAM: u8 = 3;
    /// What the sender wants or allows.
    pub const SETTINGS: u8 = 4;
    /// A response nobody has asked for.
    pub const PUSH_PROMISE: u8 = 5;
    /// Is there anybody?
    pub const PING: u8 = 6;
    /// The connection ends.
    pub const GOAWAY: u8 = 7;
    /// More may be sent.
    pub const WINDOW_UPDATE: u8 = 8;
    /// The rest of what did not fit into `HEADERS`.
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames. What is set of them depends on the kind.
pub mod flag {
    /// The last frame of the stream, of `DATA` and `HEADERS`.
    pub const END_STREAM: u8 = 0x1;
    /// The answer to such a frame, of `SETTINGS` and `PING`.
    pub const ACK: u8 = 0x1;
    /// No `CONTINUATION` follows.
    pub const END_HEADERS: u8 = 0x4;
    /// There is padding, of `DATA` and `HEADERS`.
    pub const PADDED: u8 = 0x8;
    /// There are five bytes that mean nothing any more, of `HEADERS`.
    pub const PRIORITY: u8 = 0x20;
}

/// How long the head of a frame is.
pub const HEAD: usize = 9;
/// What the payload of a frame may have, unless the receiver allows more (RFC 9113 §6.5.2).
pub const MAX_PAYLOAD: usize = 16_384;
/// The window of a connection, and of its streams, at its begin (RFC 9113 §6.9.2).
pub const WINDOW: u32 = 65_535;
/// The largest window (RFC 9113 §6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;

/// What is in front of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes that follow.
    pub length: usize,
    /// One of [`kind`].
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// The stream it is about, or 0 if that is the connection.
    pub stream: u32,
}

impl Head {
    /// Reads the head of a frame, if it is complete.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD] = bytes.first_chunk()?;
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4] = *bytes;
        Some(Self {
            length: u32::from_be_bytes([0, l1, l2, l3]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]),
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEAD] {
        let [_, l1, l2, l3] = (self.length as u32).to_be_bytes();
        let [s1, s2, s3, s4] = self.stream.to_be_bytes();
        [l1, l2, l3, self.kind, self.flags, s1, s2, s3, s4]
    }

    /// Whether one of the flags is set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A payload without its padding (RFC 9113 §6.1).
///
/// # Errors
/// When there is more padding than payload.
pub fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Reason> {
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
    let head = Head {
        length,
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&head.to_bytes());
    out.extend_from_slice(payload);
}

/// Writes the head of a `DATA` frame.
pub fn data(out: &mut Vec<u8>, stream: u32, length: usize, ends: bool) {
    let head = Head {
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

/// Writes a `PING`, or the answer to one.
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

/// Settings, and their numbers (RFC 9113 §6.5.2).
pub mod setting {
    /// How large a table the other end of HPACK may have.
    pub const HEADER_TABLE_SIZE: u16 = 1;
    /// Whether responses nobody has asked for are welcome.
    pub const ENABLE_PUSH: u16 = 2;
    /// How many streams may be open at once.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// The window of a stream at its begin.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    /// The largest payload of a frame.
    pub const MAX_FRAME_SIZE: u16 = 5;
    /// The largest field section.
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// Whether there may be an extended `CONNECT` (RFC 8441 §3).
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

/// Writes that the settings of the other end are in force.
pub fn settings_ack(out: &mut Vec<u8>) {
    frame(out, kind::SETTINGS, flag::ACK, 0, &[]);
}

/// Reads the payload of `SETTINGS`, and shows each one that can be.
///
/// # Errors
/// When there is one that cannot be.
pub fn each_setting(mut payload: &[u8], mut show: impl FnMut(u16, u32)) -> Result<(), Reason> {
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
            _ => show(name, value),
        }
    }
    Ok(())
}

/// The number in a payload of four bytes: that of `RST_STREAM` and `WINDOW_UPDATE`.
///
/// # Errors
/// When there are more bytes, or less.
pub fn number(payload: &[u8]) -> Result<u32, Reason> {
    let bytes = payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rfc9113_4_1_a_head_is_read_as_it_was_written() {
        let head = Head {
            length: 0x01_02_03,
            kind: kind::DATA,
            flags: flag::END_STREAM,
            stream: 0x7f_01_02_03,
        };
        assert_eq!(Head::read(&head.to_bytes()), Some(head));
        assert_eq!(Head::read(&head.to_bytes()[..8]), None);
        // The first bit of the stream means nothing.
        let mut bytes = head.to_bytes();
        bytes[5] |= 0x80;
        assert_eq!(Head::read(&bytes), Some(head));
    }

    #[test]
    fn rfc9113_6_1_padding_is_not_longer_than_its_frame() {
        let head = Head {
            length: 3,
            kind: kind::DATA,
            flags: flag::PADDED,
            stream: 1,
        };
        assert_eq!(unpadded(head, &[1, b'a', 0]).unwrap(), b"a");
        assert_eq!(unpadded(head, &[2, 0, 0]).unwrap(), b"");
        assert_eq!(unpadded(head, &[3, 0, 0]), Err(Reason::PROTOCOL_ERROR));
        assert_eq!(unpadded(head, &[]), Err(Reason::FRAME_SIZE_ERROR));
        let bare = Head { flags: 0, ..head };
        assert_eq!(unpadded(bare, &[3, 0, 0]).unwrap(), [3, 0, 0]);
    }

    #[test]
    fn rfc9113_6_5_2_settings_are_what_they_can_be() {
        let read = |settings: &[(u16, u32)]| {
            let mut out = Vec::new();
            super::settings(&mut out, settings);
            let mut shown = Vec::new();
            each_setting(&out[HEAD..], |name, value| shown.push((name, value))).map(|()| shown)
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
