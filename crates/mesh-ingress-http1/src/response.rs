//! The head of a response.

use std::io::Write as _;
use std::mem::MaybeUninit;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::Body;
use httparse::Status;
use mesh_ingress_headers::framing;

use crate::fields::{self, INLINE_FIELDS, Persistence, Span, has_token, within};
use crate::{Decoder, Framing, Limits, Malformed};

/// A parsed head.
#[derive(Debug)]
pub struct Head {
    /// The response without its body, and without a `Connection: keep-alive`. A [`ReasonPhrase`] other than
    /// the canonical one is its only extension.
    pub response: Response<()>,
    /// Decodes the body.
    pub body: Decoder,
    /// The connection may be reused behind the body.
    pub keep_alive: bool,
}

/// An extension of a response: its reason phrase (RFC 9112 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonPhrase(pub Bytes);

/// A head before its fields are collected.
struct RawHead {
    length: usize,
    status: StatusCode,
    reason: Option<(usize, usize)>,
    version: Version,
    fields: usize,
}

/// Takes a complete head off `buf`; `None` if more bytes are needed. `headers` is an empty map whose
/// capacity is reused.
///
/// # Errors
/// When the bytes are no HTTP/1 response, or exceed `limits`.
pub fn parse(
    buf: &mut BytesMut,
    method: &Method,
    limits: Limits,
    headers: &mut HeaderMap,
) -> Result<Option<Head>, Malformed> {
    let mut parsed = [const { MaybeUninit::uninit() }; INLINE_FIELDS];
    let mut spans = [Span::default(); INLINE_FIELDS];
    let few = INLINE_FIELDS.min(limits.fields);
    match scan(buf, limits, &mut parsed[..few], &mut spans) {
        Ok(None) => Ok(None),
        Ok(Some(raw)) => build(buf, method, headers, &raw, &spans).map(Some),
        // There may just be more fields than fit inline.
        Err(Malformed::HeadTooLarge) if limits.fields > few => {
            let mut parsed = vec![MaybeUninit::uninit(); limits.fields];
            let mut spans = vec![Span::default(); limits.fields];
            match scan(buf, limits, &mut parsed, &mut spans)? {
                None => Ok(None),
                Some(raw) => build(buf, method, headers, &raw, &spans).map(Some),
            }
        }
        Err(malformed) => Err(malformed),
    }
}

fn scan<'b>(
    buf: &'b [u8],
    limits: Limits,
    parsed: &mut [MaybeUninit<httparse::Header<'b>>],
    spans: &mut [Span],
) -> Result<Option<RawHead>, Malformed> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, buf, parsed) {
        Ok(Status::Complete(length)) if length <= limits.bytes => length,
        Ok(Status::Partial) if buf.len() < limits.bytes => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadTooLarge),
        Err(error) => return Err(Malformed::Head(error.into())),
    };
    fields::record(buf, response.headers, spans);
    let status = StatusCode::from_u16(response.code.unwrap_or_default())
        .map_err(|error| Malformed::Head(error.into()))?;
    // The canonical phrase is not worth keeping.
    let reason = response
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason());
    Ok(Some(RawHead {
        length,
        status,
        reason: reason.map(|reason| within(buf, reason.as_bytes())),
        version: match response.version {
            Some(1) => Version::HTTP_11,
            _ => Version::HTTP_10,
        },
        fields: response.headers.len(),
    }))
}

fn build(
    buf: &mut BytesMut,
    method: &Method,
    headers: &mut HeaderMap,
    raw: &RawHead,
    spans: &[Span],
) -> Result<Head, Malformed> {
    let bytes = buf.split_to(raw.length).freeze();
    let mut persistence = Persistence::default();
    let mut length = BodyLength::default();
    let mut headers = std::mem::take(headers);
    fields::collect(&bytes, &spans[..raw.fields], &mut headers, |name, value| {
        if name == CONNECTION {
            persistence.observe(value);
        } else if name == CONTENT_LENGTH {
            length.length(value);
        } else if name == TRANSFER_ENCODING {
            length.transfer_encoding(value);
        }
    })?;
    let body = length.decoder(method, raw.status, raw.version);
    let mut response = Response::new(());
    *response.status_mut() = raw.status;
    *response.version_mut() = raw.version;
    *response.headers_mut() = headers;
    if let Some((start, end)) = raw.reason {
        let reason = ReasonPhrase(Bytes::copy_from_slice(&bytes[start..end]));
        response.extensions_mut().insert(reason);
    }
    Ok(Head {
        response,
        body,
        keep_alive: persistence.keep_alive(raw.version),
    })
}

/// The fields about the body's length.
#[derive(Default)]
struct BodyLength {
    length: Option<u64>,
    transfer_encoding: bool,
    chunked: bool,
    /// Parsers may disagree about them.
    ambiguous: bool,
}

impl BodyLength {
    fn length(&mut self, value: &[u8]) {
        let number = framing::number(value);
        self.ambiguous |= number.is_none() || self.length.is_some_and(|said| number != Some(said));
        self.length = number;
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        let only = value.eq_ignore_ascii_case(b"chunked");
        self.chunked = only && !self.transfer_encoding;
        self.transfer_encoding = true;
    }

    /// RFC 9112 §6.3. An ambiguous response is refused where it is forwarded (`check_response` says why).
    /// Until then it is decoded in the one harmless way: all bytes belong to it, and the connection ends
    /// with it.
    fn decoder(&self, method: &Method, status: StatusCode, version: Version) -> Decoder {
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || method == Method::HEAD;
        match (self.transfer_encoding, self.length) {
            _ if bodiless => Decoder::Complete,
            (false, Some(length)) if !self.ambiguous => Decoder::length(length),
            (true, None) if self.chunked && !self.ambiguous && version == Version::HTTP_11 => {
                Decoder::chunked()
            }
            _ => Decoder::UntilClose,
        }
    }
}

/// Whether a response may begin with these bytes. Another protocol is found out at once that way, and not
/// only at the first line end.
#[must_use]
pub fn may_begin(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = bytes.len().min(BEGIN.len());
    bytes[..length] == BEGIN[..length]
}

/// Facts about the request that the encoding of its response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// The client's version: it is answered in the same.
    pub version: Version,
    /// The method is `HEAD`: the response has no body, whatever its fields say.
    pub head: bool,
    /// The connection may be reused.
    pub keep_alive: bool,
}

/// Writes the head of a response, with exactly the framing field that is true, the right `Connection`, and a
/// `Date` (RFC 9110 §6.6.1). `reason` replaces the canonical reason phrase. Returns the framing of the body,
/// if there is one, and whether the connection may be reused.
///
/// A `Content-Length` of a response without a body is kept: it is the length that a `GET` would have got
/// (RFC 9110 §8.6).
pub fn write<B: Body>(
    response: &Response<B>,
    reason: Option<&[u8]>,
    context: RequestContext,
    out: &mut Vec<u8>,
) -> (Option<Framing>, bool) {
    let status = response.status();
    let headers = response.headers();
    // Neither a length (RFC 9110 §8.6) nor a body.
    let lengthless = status.is_informational() || status == StatusCode::NO_CONTENT;
    let bodiless = lengthless || status == StatusCode::NOT_MODIFIED || context.head;
    let framing = match bodiless {
        true => None,
        false => Framing::of(response.body(), headers),
    };
    let framing = match framing {
        Some(Framing::Chunked) if context.version == Version::HTTP_10 => Some(Framing::UntilClose),
        framing => framing,
    };
    let mut keep_alive = context.keep_alive && framing != Some(Framing::UntilClose);
    write_status_line(response.status(), reason, context.version, out);
    let (mut sized, mut dated) = (lengthless, false);
    let (mut says_close, mut says_keep_alive) = (false, false);
    for (name, value) in headers {
        if *name == CONTENT_LENGTH {
            let length = match framing {
                _ if sized => false,
                Some(Framing::Length(length)) => framing::number(value.as_bytes()) == Some(length),
                _ => bodiless,
            };
            if !length {
                continue;
            }
            sized = true;
        } else if *name == TRANSFER_ENCODING
            || *name == TRAILER && framing != Some(Framing::Chunked)
        {
            continue;
        } else if *name == CONNECTION {
            let value = value.as_bytes();
            let close = has_token(value, b"close");
            keep_alive &= !close;
            says_close |= close;
            says_keep_alive |= has_token(value, b"keep-alive");
        } else if *name == DATE {
            dated = true;
        }
        fields::write_field(out, name.as_str(), value.as_bytes());
    }
    let http10 = context.version == Version::HTTP_10;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        // `close` wins over other options.
        if !keep_alive && !says_close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if keep_alive && http10 && !says_keep_alive {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
    // Writing to memory does not fail.
    let _ = match framing {
        None if sized || bodiless => Ok(()),
        None => out.write_all(b"content-length: 0\r\n"),
        Some(Framing::Length(_)) if sized => Ok(()),
        Some(Framing::Length(length)) => write!(out, "content-length: {length}\r\n"),
        Some(Framing::Chunked) => out.write_all(b"transfer-encoding: chunked\r\n"),
        Some(Framing::UntilClose) => Ok(()),
    };
    if !dated {
        let _ = write!(
            out,
            "date: {}\r\n",
            httpdate::HttpDate::from(SystemTime::now())
        );
    }
    out.extend_from_slice(b"\r\n");
    (framing, keep_alive)
}

/// RFC 9112 §4.
#[inline]
fn write_status_line(
    status: StatusCode,
    reason: Option<&[u8]>,
    version: Version,
    out: &mut Vec<u8>,
) {
    // Nearly every response, in one copy.
    if status == StatusCode::OK && version == Version::HTTP_11 && reason.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let canonical = || status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(reason.unwrap_or_else(canonical));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
