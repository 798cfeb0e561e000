//! Writes the heads and trailers of responses.

use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::frame::{FrameHeader, HEADER_LEN, flag, kind};
use crate::hpack::{self, Encoder};
use crate::request::number;

/// Writes the field sections of responses, as frames.
#[derive(Debug)]
pub struct Writer {
    encoder: Encoder,
    max_payload: usize,
}

/// What is known of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// No body, even if `Content-Length` announces one (RFC 9110 §6.4.1): a response to `HEAD`, or a
    /// status without a body.
    Bodiless,
    /// A body of this many bytes.
    Length(u64),
    /// A body of unknown length.
    Unknown,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A writer with the initial settings of a client.
    #[must_use]
    pub fn new() -> Self {
        Self {
            encoder: Encoder::default(),
            max_payload: crate::frame::MAX_PAYLOAD,
        }
    }

    /// `SETTINGS_HEADER_TABLE_SIZE` of the client.
    pub fn table_size(&mut self, size: u32) {
        self.encoder.table_size(size);
    }

    /// `SETTINGS_MAX_FRAME_SIZE` of the client.
    pub fn max_payload(&mut self, bytes: usize) {
        self.max_payload = bytes;
    }

    /// Writes the head of a response, with a `Content-Length` if the length is known, and with a `Date`
    /// (RFC 9110 §6.6.1). Connection-specific fields are left out (RFC 9113 §8.2.2). `ends` ends the
    /// stream.
    pub fn head(
        &mut self,
        stream: u32,
        status: StatusCode,
        fields: &HeaderMap,
        content: Content,
        ends: bool,
        out: &mut Vec<u8>,
    ) {
        let begin = self.begin(out);
        hpack::status(status, out);
        // These never have a length (RFC 9110 §8.6).
        let lengthless = status.is_informational() || status == StatusCode::NO_CONTENT;
        let (mut sized, mut dated) = (lengthless, status.is_informational());
        for (name, value) in fields {
            if *name == CONTENT_LENGTH {
                let agrees = match content {
                    _ if sized => false,
                    Content::Length(length) => number(value.as_bytes()) == Some(length),
                    Content::Bodiless | Content::Unknown => true,
                };
                if !agrees {
                    continue;
                }
                sized = true;
            } else if is_connection_specific(name) {
                continue;
            } else if *name == DATE {
                dated = true;
            }
            hpack::field(name, value, out);
        }
        if let Content::Length(length) = content
            && !sized
            && length > 0
        {
            hpack::field(&CONTENT_LENGTH, &HeaderValue::from(length), out);
        }
        let date = || HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()));
        if !dated && let Ok(date) = date() {
            hpack::field(&DATE, &date, out);
        }
        self.end(begin, stream, ends, out);
    }

    /// Writes trailers, which end the stream.
    pub fn trailers(&mut self, stream: u32, fields: &HeaderMap, out: &mut Vec<u8>) {
        let begin = self.begin(out);
        for (name, value) in fields {
            if !is_connection_specific(name) {
                hpack::field(name, value, out);
            }
        }
        self.end(begin, stream, true, out);
    }

    /// Reserves space for a frame header, and returns its position.
    fn begin(&mut self, out: &mut Vec<u8>) -> usize {
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER_LEN]);
        self.encoder.begin(out);
        begin
    }

    /// Makes frames of the bytes written since `begin`.
    fn end(&self, begin: usize, stream: u32, ends: bool, out: &mut Vec<u8>) {
        let section = begin + HEADER_LEN;
        let bytes = out.len() - section;
        let flags = if ends { flag::END_STREAM } else { 0 };
        let head = |length, kind, flags| FrameHeader {
            length,
            kind,
            flags,
            stream,
        };
        if bytes <= self.max_payload {
            let head = head(bytes, kind::HEADERS, flags | flag::END_HEADERS);
            out[begin..section].copy_from_slice(&head.to_bytes());
            return;
        }
        let rest = out.split_off(section + self.max_payload);
        let first = head(self.max_payload, kind::HEADERS, flags);
        out[begin..section].copy_from_slice(&first.to_bytes());
        let mut pieces = rest.chunks(self.max_payload).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() {
                flag::END_HEADERS
            } else {
                0
            };
            let head = head(piece.len(), kind::CONTINUATION, flags);
            out.extend_from_slice(&head.to_bytes());
            out.extend_from_slice(piece);
        }
    }
}

/// RFC 9113 §8.2.2
fn is_connection_specific(name: &HeaderName) -> bool {
    match *name {
        CONNECTION | TRANSFER_ENCODING | UPGRADE | TE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
