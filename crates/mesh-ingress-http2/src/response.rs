//! The head of a response, and its trailers.

use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::frame::{HEAD, Head, flag, kind};
use crate::hpack::{self, Encoder};
use crate::request::number;

/// Writes the field sections of responses, as frames.
#[derive(Debug)]
pub struct Writer {
    encoder: Encoder,
    max_payload: usize,
}

/// What there is of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// None, whatever the fields say of one (RFC 9110 §6.4.1): to `HEAD`, or of a status without.
    Bodiless,
    /// So many bytes.
    Length(u64),
    /// That is not known.
    Unknown,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// One for a client that has not sent its settings yet.
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

    /// Writes the head of a response, with a length if there is one, and with a `Date` (RFC 9110
    /// §6.6.1). What is of the connection in HTTP/1.1 is left out (RFC 9113 §8.2.2). `ends` tells
    /// that nothing follows.
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
        // Never a length (RFC 9110 §8.6).
        let lengthless = status.is_informational() || status == StatusCode::NO_CONTENT;
        let (mut sized, mut dated) = (lengthless, status.is_informational());
        for (name, value) in fields {
            if *name == CONTENT_LENGTH {
                let is_true = match content {
                    _ if sized => false,
                    Content::Length(length) => number(value.as_bytes()) == Some(length),
                    Content::Bodiless | Content::Unknown => true,
                };
                if !is_true {
                    continue;
                }
                sized = true;
            } else if is_of_connection(name) {
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
            if !is_of_connection(name) {
                hpack::field(name, value, out);
            }
        }
        self.end(begin, stream, true, out);
    }

    /// Leaves room for the head of a frame, and tells where.
    fn begin(&mut self, out: &mut Vec<u8>) -> usize {
        let begin = out.len();
        out.extend_from_slice(&[0; HEAD]);
        self.encoder.begin(out);
        begin
    }

    /// Makes frames of what has been written since.
    fn end(&self, begin: usize, stream: u32, ends: bool, out: &mut Vec<u8>) {
        let section = begin + HEAD;
        let bytes = out.len() - section;
        let flags = if ends { flag::END_STREAM } else { 0 };
        let head = |length, kind, flags| Head {
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
fn is_of_connection(name: &HeaderName) -> bool {
    match *name {
        CONNECTION | TRANSFER_ENCODING | UPGRADE | TE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
