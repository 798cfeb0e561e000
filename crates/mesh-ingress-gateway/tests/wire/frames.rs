//! An HTTP/2 client that sends frames which no library would.

pub(crate) use mesh_ingress_testkit::http2::*;

use crate::reply::Client;
use crate::world::World;

/// Pseudo-fields of a valid GET.
pub(crate) const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "shop.example.com"),
    (":path", "/"),
];
pub(crate) const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "shop.example.com"),
    (":path", "/"),
];

/// These fields, then those.
pub(crate) fn with<'f>(
    fields: &[(&'f str, &'f str)],
    more: &[(&'f str, &'f str)],
) -> Vec<(&'f str, &'f str)> {
    [fields, more].concat()
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    Reset(u32),
    /// The whole connection ended with this error.
    GoAway(u32),
    Closed,
}

/// A client that sends frames.
pub(crate) struct FrameClient {
    pub(crate) client: Client,
}

impl FrameClient {
    pub(crate) async fn connect(world: &World) -> Self {
        // No dynamic table, so that each field section can be read by itself.
        let no_table = frame(SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0]);
        let client = world.send([PREFACE, &no_table].concat()).await;
        Self { client }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send_and_read(bytes.as_ref()).await;
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let header = self.client.exactly_or_end(FRAME_HEADER_LEN).await?;
        let header = header.try_into().unwrap();
        let payload = self.client.exactly_or_end(Frame::payload_len(header));
        Some(Frame::new(header, payload.await?))
    }

    /// Reads until the outcome of a stream is known.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some(frame) = self.next().await else {
                return Outcome::Closed;
            };
            match frame.kind {
                HEADERS if frame.stream == stream => {
                    return Outcome::Status(status(&frame.payload));
                }
                RST_STREAM if frame.stream == stream => {
                    return Outcome::Reset(frame.error_code().unwrap());
                }
                GOAWAY if frame.error_code() != Some(NO_ERROR) => {
                    return Outcome::GoAway(frame.error_code().unwrap());
                }
                _ => {}
            }
        }
    }

    /// The outcome of one stream with these fields and nothing else.
    pub(crate) async fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) -> Outcome {
        self.send(headers(stream, END_STREAM, fields)).await;
        self.outcome(stream).await
    }
}

/// The status at the beginning of a field section: from the static table, or as a literal.
pub(crate) fn status(section: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // After a dynamic table size update.
    let at = section.iter().position(|byte| byte >> 5 != 1).unwrap();
    let byte = section[at];
    if byte & 0x80 != 0 {
        return KNOWN[usize::from(byte & 0x7f) - 8];
    }
    assert!([0x48, 0x08, 0x18].contains(&byte), "{section:02x?}");
    let length = section[at + 1];
    let value = &section[at + 2..][..usize::from(length & 0x7f)];
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    let mut bits = value
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut take = |count: usize| {
        let bits = bits.by_ref().take(count);
        bits.fold(0_u16, |value, bit| value << 1 | u16::from(bit))
    };
    // 0, 1 and 2 have five bits, the other digits six, from 011001 on (RFC 7541 Appendix B).
    (0..3).fold(0, |status, _| {
        let digit = match take(5) {
            digit @ 0..3 => digit,
            high => (high << 1 | take(1)) - 0b01_1001 + 3,
        };
        status * 10 + digit
    })
}
