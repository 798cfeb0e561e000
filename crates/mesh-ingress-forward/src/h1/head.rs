//! How the head of a response is read.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use httparse::Status;
use hyper::ext::ReasonPhrase;
use mesh_ingress_headers::framing;

use super::decode::Decoder;
use super::fault::Fault;

/// Fields that are read without an allocation. To clear room for as many as there may be would cost
/// more than to read those there are.
const FIELDS: usize = 32;

/// Bounds to a header section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) octets: usize,
    pub(crate) fields: usize,
}

/// A head, and what it says of what follows.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: Response<()>,
    pub(crate) body: Decoder,
    /// The connection may be used again behind the body.
    pub(crate) keeps_alive: bool,
}

/// Where a field is.
#[derive(Clone, Copy, Default)]
struct Span {
    name: (usize, usize),
    value: (usize, usize),
}

/// What the first look at a head finds.
struct Outline {
    length: usize,
    status: StatusCode,
    reason: Option<(usize, usize)>,
    version: Version,
    fields: usize,
}

/// Takes a complete head off `buf`, if there is one. `headers` is an empty map whose room it gets.
pub(crate) fn take(
    buf: &mut BytesMut,
    method: &Method,
    limits: Limits,
    headers: &mut HeaderMap,
) -> Result<Option<Head>, Fault> {
    let mut parsed = [const { MaybeUninit::uninit() }; FIELDS];
    let mut spans = [Span::default(); FIELDS];
    let few = FIELDS.min(limits.fields);
    match outline(buf, limits, &mut parsed[..few], &mut spans) {
        Ok(None) => Ok(None),
        Ok(Some(outline)) => build(buf, method, headers, &outline, &spans).map(Some),
        // It may only be that there are more fields.
        Err(Fault::HeadTooLarge) if limits.fields > few => {
            let mut parsed = vec![MaybeUninit::uninit(); limits.fields];
            let mut spans = vec![Span::default(); limits.fields];
            match outline(buf, limits, &mut parsed, &mut spans)? {
                None => Ok(None),
                Some(outline) => build(buf, method, headers, &outline, &spans).map(Some),
            }
        }
        Err(fault) => Err(fault),
    }
}

fn outline<'b>(
    buf: &'b [u8],
    limits: Limits,
    parsed: &mut [MaybeUninit<httparse::Header<'b>>],
    spans: &mut [Span],
) -> Result<Option<Outline>, Fault> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, buf, parsed) {
        Ok(Status::Complete(length)) if length <= limits.octets => length,
        Ok(Status::Partial) if buf.len() < limits.octets => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Fault::HeadTooLarge),
        Err(error) => return Err(Fault::Head(error.into())),
    };
    // What is empty need not be within.
    let within = |part: &[u8]| match part.len() {
        0 => (0, 0),
        length => {
            let start = part.as_ptr().addr() - buf.as_ptr().addr();
            (start, start + length)
        }
    };
    for (field, span) in response.headers.iter().zip(spans) {
        span.name = within(field.name.as_bytes());
        span.value = within(field.value);
    }
    let status = StatusCode::from_u16(response.code.unwrap_or_default())
        .map_err(|error| Fault::Head(error.into()))?;
    // Only what says more than the number does.
    let reason = response
        .reason
        .filter(|reason| Some(*reason) != status.canonical_reason());
    Ok(Some(Outline {
        length,
        status,
        reason: reason.map(|reason| within(reason.as_bytes())),
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
    outline: &Outline,
    spans: &[Span],
) -> Result<Head, Fault> {
    let octets = buf.split_to(outline.length).freeze();
    let mut keeps_alive = outline.version == Version::HTTP_11;
    let mut closes = false;
    let mut framed = Framed::default();
    let mut headers = std::mem::take(headers);
    let too_large = |_| Fault::HeadTooLarge;
    headers.try_reserve(outline.fields).map_err(too_large)?;
    for span in spans.iter().take(outline.fields) {
        let name = HeaderName::from_bytes(&octets[span.name.0..span.name.1]);
        let name = name.map_err(|error| Fault::Head(error.into()))?;
        let value = HeaderValue::from_maybe_shared(octets.slice(span.value.0..span.value.1));
        let value = value.map_err(|error| Fault::Head(error.into()))?;
        if name == CONNECTION {
            // Said once on any line, it holds.
            closes |= has_token(&value, b"close");
            keeps_alive |= has_token(&value, b"keep-alive");
        } else if name == CONTENT_LENGTH {
            framed.length(&value);
        } else if name == TRANSFER_ENCODING {
            framed.transfer_encoding(&value);
        }
        headers.try_append(name, value).map_err(too_large)?;
    }
    let body = framed.decoder(method, outline.status, outline.version);
    let mut response = Response::new(());
    *response.status_mut() = outline.status;
    *response.version_mut() = outline.version;
    *response.headers_mut() = headers;
    if let Some((start, end)) = outline.reason
        && let Ok(reason) = ReasonPhrase::try_from(Bytes::copy_from_slice(&octets[start..end]))
    {
        response.extensions_mut().insert(reason);
    }
    Ok(Head {
        response,
        body,
        keeps_alive: keeps_alive && !closes,
    })
}

fn has_token(value: &HeaderValue, token: &[u8]) -> bool {
    let mut tokens = value.as_bytes().split(|&octet| octet == b',');
    tokens.any(|word| word.trim_ascii().eq_ignore_ascii_case(token))
}

/// What the fields say of the body's length.
#[derive(Default)]
struct Framed {
    length: Option<u64>,
    transfer_encoding: bool,
    chunked: bool,
    /// They can be read in two ways.
    doubtful: bool,
}

impl Framed {
    fn length(&mut self, value: &HeaderValue) {
        let number = framing::number(value.as_bytes());
        self.doubtful |= number.is_none() || self.length.is_some_and(|said| number != Some(said));
        self.length = number;
    }

    fn transfer_encoding(&mut self, value: &HeaderValue) {
        let only = value.as_bytes().eq_ignore_ascii_case(b"chunked");
        self.chunked = only && !self.transfer_encoding;
        self.transfer_encoding = true;
    }

    /// RFC 9112 §6.3. What is in doubt is refused by whoever relays the response
    /// (`check_response`, which also says why); until then it is read in the one way that harms
    /// nobody: all that comes belongs to it, and the connection ends with it.
    fn decoder(&self, method: &Method, status: StatusCode, version: Version) -> Decoder {
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || method == Method::HEAD;
        match (self.transfer_encoding, self.length) {
            _ if bodiless => Decoder::Complete,
            (false, Some(length)) if !self.doubtful => Decoder::length(length),
            (true, None) if self.chunked && !self.doubtful && version == Version::HTTP_11 => {
                Decoder::chunked()
            }
            _ => Decoder::UntilClose,
        }
    }
}

/// Whether these may be the begin of a response: without a line end it could take a while to find
/// out that somebody speaks something else.
pub(crate) fn may_begin(octets: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = octets.len().min(BEGIN.len());
    octets[..length] == BEGIN[..length]
}

#[cfg(test)]
mod tests;
