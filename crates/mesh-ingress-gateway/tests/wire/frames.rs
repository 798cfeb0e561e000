//! HTTP/2 frame by frame, for what no library would send.

use crate::reply::Client;
use crate::world::World;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// Pseudo-fields of a good GET, without their end.
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

/// Fields, and more of them.
pub(crate) fn with<'f>(
    fields: &[(&'f str, &'f str)],
    more: &[(&'f str, &'f str)],
) -> Vec<(&'f str, &'f str)> {
    [fields, more].concat()
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// A number in the low `bits` of an octet, and more if it needs more (RFC 7541 §5.1).
fn number(value: usize, bits: u8, high: u8) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![high | u8::try_from(value).unwrap()];
    }
    let mut octets = vec![high | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 0x80 {
        octets.push(u8::try_from(rest % 0x80).unwrap() | 0x80);
        rest /= 0x80;
    }
    octets.push(u8::try_from(rest).unwrap());
    octets
}

fn text(text: &str) -> Vec<u8> {
    [number(text.len(), 7, 0), text.as_bytes().to_vec()].concat()
}

/// A literal field: `how` is 0x00 for one that is not indexed, 0x40 for one that is.
pub(crate) fn literal(how: u8, name: &str, value: &str) -> Vec<u8> {
    [vec![how], text(name), text(value)].concat()
}

/// A field section, nothing of it indexed or squeezed.
pub(crate) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| literal(0, name, value));
    fields.collect::<Vec<_>>().concat()
}

/// A field section in one frame.
pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, section(fields))
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub(crate) fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        [last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

/// What has become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    Reset(u32),
    /// With the whole connection.
    GoAway(u32),
    Closed,
}

/// A client that sends frames.
pub(crate) struct FrameClient {
    pub(crate) client: Client,
}

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl FrameClient {
    pub(crate) async fn connect(world: &World) -> Self {
        // No table, so that a field means the same wherever it is.
        let no_table = frame(SETTINGS, 0, 0, [0, 1, 0, 0, 0, 0]);
        let client = world.send([PREFACE, &no_table].concat()).await;
        Self { client }
    }

    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.client.send_and_read(octets.as_ref()).await;
    }

    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.client.exactly_or_end(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = self.client.exactly_or_end(length.try_into().unwrap());
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: payload.await?,
        })
    }

    /// Reads on until it is known what has become of a stream.
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
                    return Outcome::Reset(code(&frame.payload));
                }
                GOAWAY if code(&frame.payload[4..]) != NO_ERROR => {
                    return Outcome::GoAway(code(&frame.payload[4..]));
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

fn code(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().unwrap())
}

/// The status at the beginning of a field section: from the static table, or as a literal.
pub(crate) fn status(section: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Behind an announcement of the size of the table.
    let at = section.iter().position(|octet| octet >> 5 != 1).unwrap();
    let octet = section[at];
    if octet & 0x80 != 0 {
        return KNOWN[usize::from(octet & 0x7f) - 8];
    }
    assert!([0x48, 0x08, 0x18].contains(&octet), "{section:02x?}");
    let length = section[at + 1];
    let value = &section[at + 2..][..usize::from(length & 0x7f)];
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    let mut bits = value
        .iter()
        .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1));
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
