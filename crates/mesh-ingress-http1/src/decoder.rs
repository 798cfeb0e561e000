//! Decoding a body.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use httparse::Status;

use crate::{Limits, Malformed};

/// Bytes that all chunk extensions of one body may take together. Nobody uses them but attackers.
const EXTENSIONS: usize = 16 * 1024;

/// Whitespace behind the size of a chunk: some servers fill up to a fixed width.
const PADDING: usize = 64;

/// The end of nearly every chunked body: a line end, the last chunk, and no trailers.
const END: &[u8] = b"\r\n0\r\n\r\n";

/// Decodes a body: it knows what is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Nothing.
    Complete,
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks, the last of which is empty (RFC 9112 §7.1).
    Chunked {
        /// What the next byte belongs to.
        state: Chunk,
        /// Bytes that chunk extensions may still take.
        extensions: usize,
    },
    /// All bytes up to the end of the connection.
    UntilClose,
}

/// What the next byte of a chunked body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The line with the size of a chunk.
    Size,
    /// The data of a chunk: so many bytes, at least one.
    Data(u64),
    /// The line end behind the data.
    End,
    /// The trailer section, of which so many bytes have been searched for its end.
    Trailers(usize),
}

impl Decoder {
    /// A body of so many bytes.
    #[must_use]
    pub fn length(length: u64) -> Self {
        match length {
            0 => Self::Complete,
            _ => Self::Length(length),
        }
    }

    /// A body in chunks.
    #[must_use]
    pub fn chunked() -> Self {
        Self::Chunked {
            state: Chunk::Size,
            extensions: EXTENSIONS,
        }
    }

    /// Whether nothing is to come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        *self == Self::Complete
    }

    /// Takes the next frame of the body off `buf`. Data frames are never empty. `None` if more bytes are
    /// needed, or the body [is complete](Self::is_complete).
    ///
    /// # Errors
    /// When the bytes are no chunk, or no trailer section.
    pub fn next(
        &mut self,
        buf: &mut BytesMut,
        limits: Limits,
    ) -> Result<Option<Frame<Bytes>>, Malformed> {
        loop {
            match self {
                Self::Complete => return Ok(None),
                Self::Length(left) => {
                    let piece = take(buf, left);
                    if *left == 0 {
                        *self = Self::Complete;
                    }
                    return Ok(piece.map(Frame::data));
                }
                Self::UntilClose => {
                    let piece = (!buf.is_empty()).then(|| buf.split().freeze());
                    return Ok(piece.map(Frame::data));
                }
                Self::Chunked { state, extensions } => match state {
                    Chunk::Size => match size_line(buf, extensions)? {
                        None => return Ok(None),
                        Some(0) => *state = Chunk::Trailers(0),
                        Some(size) => *state = Chunk::Data(size),
                    },
                    Chunk::Data(left) => {
                        let piece = take(buf, left);
                        if *left == 0 {
                            *state = Chunk::End;
                            // Complete with its last frame, so that the caller need not ask again.
                            if buf.starts_with(END) {
                                buf.advance(END.len());
                                *self = Self::Complete;
                            }
                        }
                        return Ok(piece.map(Frame::data));
                    }
                    Chunk::End => match &buf[..buf.len().min(2)] {
                        b"\r\n" => {
                            buf.advance(2);
                            *state = Chunk::Size;
                        }
                        b"" | b"\r" => return Ok(None),
                        _ => return Err(Malformed::Chunk("no line end behind a chunk")),
                    },
                    Chunk::Trailers(seen) => {
                        let Some(end) = trailers_end(buf, *seen, limits)? else {
                            *seen = buf.len();
                            return Ok(None);
                        };
                        let trailers = trailers(&buf.split_to(end), limits)?;
                        *self = Self::Complete;
                        return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                    }
                },
            }
        }
    }
}

/// Takes the bytes that have come, up to `left`.
fn take(buf: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let bytes = usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len()));
    *left -= bytes as u64;
    (bytes > 0).then(|| buf.split_to(bytes).freeze())
}

/// Takes the size line of a chunk (RFC 9112 §7.1) off `buf`, if it is complete.
fn size_line(buf: &mut BytesMut, extensions: &mut usize) -> Result<Option<u64>, Malformed> {
    let mut size = 0_u64;
    let mut digits = 0;
    while let Some(digit) = buf.get(digits).and_then(|&byte| hex(byte)) {
        // Leading zeros would make it endless.
        if digits == 16 {
            return Err(Malformed::Chunk("a size of more than 16 digits"));
        }
        size = size << 4 | digit;
        digits += 1;
    }
    let rest = &buf[digits..];
    if rest.is_empty() {
        return Ok(None);
    }
    if digits == 0 {
        return Err(Malformed::Chunk("no size"));
    }
    if !matches!(rest[0], b'\r' | b';' | b' ' | b'\t') {
        return Err(Malformed::Chunk("a size with something behind it"));
    }
    // Whitespace and extensions have no meaning here and are dropped.
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = &rest[..end.unwrap_or(rest.len())];
    let extension = line.trim_ascii_start();
    if line.len() - extension.len() > PADDING {
        return Err(Malformed::Chunk("too much whitespace behind a size"));
    }
    if !extension.is_empty() && extension[0] != b';' {
        return Err(Malformed::Chunk("a size with something behind it"));
    }
    let left = extensions.checked_sub(extension.len());
    let left = left.ok_or(Malformed::Chunk("too many extensions"))?;
    let Some(end) = end else {
        return Ok(None);
    };
    match &rest[end..rest.len().min(end + 2)] {
        b"\r\n" => *extensions = left,
        b"\r" => return Ok(None),
        // Parsers disagree on whether this is a line end.
        _ => return Err(Malformed::Chunk("a line that does not end with CR LF")),
    }
    buf.advance(digits + end + 2);
    Ok(Some(size))
}

fn hex(byte: u8) -> Option<u64> {
    (byte as char).to_digit(16).map(u64::from)
}

/// The length of the trailer section, if it is complete. Its first `seen` bytes have been searched.
fn trailers_end(buf: &[u8], seen: usize, limits: Limits) -> Result<Option<usize>, Malformed> {
    for (at, _) in buf
        .iter()
        .enumerate()
        .skip(seen)
        .filter(|(_, o)| **o == b'\n')
    {
        let Some(line) = buf[..at].strip_suffix(b"\r") else {
            return Err(Malformed::Trailers(
                "a line that does not end with CR LF".into(),
            ));
        };
        if line.is_empty() || line.ends_with(b"\n") {
            return Ok(Some(at + 1));
        }
    }
    if buf.len() > limits.bytes {
        return Err(Malformed::TrailersTooLarge);
    }
    Ok(None)
}

fn trailers(section: &[u8], limits: Limits) -> Result<HeaderMap, Malformed> {
    let mut trailers = HeaderMap::new();
    if section == b"\r\n" {
        return Ok(trailers);
    }
    let mut parsed = vec![httparse::EMPTY_HEADER; limits.fields];
    let fields = match httparse::parse_headers(section, &mut parsed) {
        Ok(Status::Complete((length, fields))) if length <= limits.bytes => fields,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TrailersTooLarge),
        Err(error) => return Err(Malformed::Trailers(error.into())),
    };
    let too_large = |_| Malformed::TrailersTooLarge;
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|error| Malformed::Trailers(error.into()))?;
        let value = HeaderValue::from_bytes(field.value);
        let value = value.map_err(|error| Malformed::Trailers(error.into()))?;
        trailers.try_append(name, value).map_err(too_large)?;
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests;
