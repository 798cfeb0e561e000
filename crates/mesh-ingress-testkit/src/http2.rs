//! HTTP/2 frame by frame (RFC 9113 §4.1), for peers that send what no library would.
//!
//! Frames and field sections are written byte for byte as told: nothing is checked, nothing is
//! compressed, and no state is kept.
//!
//! ```
//! use mesh_ingress_testkit::http2::{END_STREAM, PREFACE, SETTINGS, frame, headers};
//!
//! let get = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
//! let mut bytes = PREFACE.to_vec();
//! bytes.extend(frame(SETTINGS, 0, 0, []));
//! bytes.extend(headers(1, END_STREAM, &get));
//! ```

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes of a client (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header, bytes.
pub const FRAME_HEADER_LEN: usize = 9;

/// Frame type (RFC 9113 §6.1).
pub const DATA: u8 = 0;
/// Frame type (RFC 9113 §6.2).
pub const HEADERS: u8 = 1;
/// Frame type (RFC 9113 §6.3).
pub const PRIORITY: u8 = 2;
/// Frame type (RFC 9113 §6.4).
pub const RST_STREAM: u8 = 3;
/// Frame type (RFC 9113 §6.5).
pub const SETTINGS: u8 = 4;
/// Frame type (RFC 9113 §6.6).
pub const PUSH_PROMISE: u8 = 5;
/// Frame type (RFC 9113 §6.7).
pub const PING: u8 = 6;
/// Frame type (RFC 9113 §6.8).
pub const GOAWAY: u8 = 7;
/// Frame type (RFC 9113 §6.9).
pub const WINDOW_UPDATE: u8 = 8;
/// Frame type (RFC 9113 §6.10).
pub const CONTINUATION: u8 = 9;

/// Flag of `DATA` and `HEADERS`.
pub const END_STREAM: u8 = 1;
/// Flag of `SETTINGS` and `PING`.
pub const ACK: u8 = 1;
/// Flag of `HEADERS`, `PUSH_PROMISE` and `CONTINUATION`.
pub const END_HEADERS: u8 = 4;

/// Error code (RFC 9113 §7).
pub const NO_ERROR: u32 = 0;
/// Error code (RFC 9113 §7).
pub const PROTOCOL_ERROR: u32 = 1;
/// Error code (RFC 9113 §7).
pub const REFUSED_STREAM: u32 = 7;
/// Error code (RFC 9113 §7).
pub const CANCEL: u32 = 8;
/// Error code (RFC 9113 §7).
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, without the reserved bit.
    pub stream: u32,
    /// Its payload.
    pub payload: Bytes,
}

impl Frame {
    /// The length of the payload that follows a header, bytes.
    #[must_use]
    pub fn payload_len(header: [u8; FRAME_HEADER_LEN]) -> usize {
        let [high, middle, low, ..] = header;
        u32::from_be_bytes([0, high, middle, low]) as usize
    }

    /// A frame of its header and its payload.
    #[must_use]
    pub fn new(header: [u8; FRAME_HEADER_LEN], payload: impl Into<Bytes>) -> Self {
        let [_, _, _, kind, flags, stream @ ..] = header;
        Self {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            payload: payload.into(),
        }
    }

    /// Reads the next frame.
    ///
    /// # Errors
    /// When reading fails, or the connection ends inside a frame or before it.
    pub async fn read(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut header = [0; FRAME_HEADER_LEN];
        connection.read_exact(&mut header).await?;
        let mut payload = vec![0; Self::payload_len(header)];
        connection.read_exact(&mut payload).await?;
        Ok(Self::new(header, payload))
    }

    /// The error code of `RST_STREAM` and `GOAWAY`; `None` of other frames and short ones.
    #[must_use]
    pub fn error_code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        code.try_into().ok().map(u32::from_be_bytes)
    }
}

/// A frame. Of the length of the payload the lower 24 bits are written.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let [.., high, middle, low] = payload.len().to_be_bytes();
    [
        &[high, middle, low, kind, flags],
        &stream.to_be_bytes()[..],
        payload,
    ]
    .concat()
}

/// A field section in one `HEADERS` frame, with `END_HEADERS` and these flags.
#[must_use]
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, field_section(fields))
}

/// `RST_STREAM`.
#[must_use]
pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// `GOAWAY` without debug data.
#[must_use]
pub fn goaway(last_stream: u32, code: u32) -> Vec<u8> {
    let payload = [last_stream.to_be_bytes(), code.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, payload)
}

/// A field section of literals without indexing and without Huffman coding (RFC 7541 §6.2.2).
#[must_use]
pub fn field_section(fields: &[(&str, &str)]) -> Vec<u8> {
    let literals = fields.iter().map(|(name, value)| literal(0, name, value));
    literals.collect::<Vec<_>>().concat()
}

/// A literal field with a literal name. The first byte says which kind of literal (RFC 7541 §6.2):
/// `0x40` with incremental indexing, `0x00` without indexing, `0x10` never indexed.
#[must_use]
pub fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![first];
    for text in [name, value] {
        write_integer(text.len(), 7, &mut bytes);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// An integer in the low `bits` of a byte, and in further bytes if it does not fit (RFC 7541 §5.1).
fn write_integer(value: usize, bits: u8, bytes: &mut Vec<u8>) {
    let max = (1 << bits) - 1;
    if value < max {
        bytes.push(value as u8);
        return;
    }
    bytes.push(max as u8);
    let mut rest = value - max;
    while rest >= 0x80 {
        bytes.push((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn written_frame_is_read_back() {
        let written = [frame(PING, ACK, 0, [7; 8]), rst_stream(3, CANCEL)].concat();
        let mut connection = &written[..];
        let ping = Frame::read(&mut connection).await.unwrap();
        assert_eq!((ping.kind, ping.flags, ping.stream), (PING, ACK, 0));
        assert_eq!((&ping.payload[..], ping.error_code()), (&[7; 8][..], None));
        let reset = Frame::read(&mut connection).await.unwrap();
        assert_eq!((reset.stream, reset.error_code()), (3, Some(CANCEL)));
        assert!(Frame::read(&mut connection).await.is_err());
    }

    #[test]
    fn rfc7541_5_1_integers_are_those_of_the_examples() {
        let integer = |value, bits| {
            let mut bytes = Vec::new();
            write_integer(value, bits, &mut bytes);
            bytes
        };
        // RFC 7541 appendix C.1.
        assert_eq!(integer(10, 5), [10]);
        assert_eq!(integer(1337, 5), [31, 154, 10]);
        assert_eq!(integer(42, 8), [42]);
    }
}
