//! The head of a request.

use std::io::Write as _;
use std::mem::MaybeUninit;

use bytes::{Buf as _, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Uri, Version};
use httparse::Status;
use mesh_ingress_headers::{PreparedFields, framing};

use crate::fields::{self, INLINE_FIELDS, Persistence, Span, has_token, within};
use crate::{Decoder, Framing, Limits, Malformed};

/// A parsed head.
#[derive(Debug)]
pub struct Head {
    /// The request without its body, and without a `Connection: keep-alive`.
    pub request: Request<()>,
    /// Decodes the body.
    pub body: Decoder,
    /// The client wants to reuse the connection (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client accepts trailers (`TE: trailers`, RFC 9110 §6.5.1).
    pub accepts_trailers: bool,
    /// The client waits for `100 Continue` (`Expect: 100-continue`, RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The client asks for another protocol (`Upgrade` or `CONNECT`, RFC 9110 §7.8, §9.3.6).
    pub wants_upgrade: bool,
}

/// A head before its fields are collected.
struct RawHead {
    length: usize,
    method: Method,
    target: (usize, usize),
    version: Version,
    fields: usize,
}

/// Takes a complete head off `buf`; `None` if more bytes are needed. `headers` is an empty map whose
/// capacity is reused.
///
/// The bytes are expected to have passed a
/// [`RequestGuard`](mesh_ingress_headers::guard::RequestGuard), which refuses what is ambiguous
/// about the end of a body.
///
/// # Errors
/// When the bytes are no HTTP/1 request, or exceed `limits`.
pub fn parse(
    buf: &mut BytesMut,
    limits: Limits,
    headers: &mut HeaderMap,
) -> Result<Option<Head>, Malformed> {
    let mut parsed = [const { MaybeUninit::uninit() }; INLINE_FIELDS];
    let mut spans = [Span::default(); INLINE_FIELDS];
    let few = INLINE_FIELDS.min(limits.fields);
    match scan(buf, limits, &mut parsed[..few], &mut spans) {
        Ok(None) => Ok(None),
        Ok(Some(raw)) => build(buf, headers, raw, &spans).map(Some),
        // There may just be more fields than fit inline.
        Err(Malformed::HeadTooLarge) if limits.fields > few => {
            let mut parsed = vec![MaybeUninit::uninit(); limits.fields];
            let mut spans = vec![Span::default(); limits.fields];
            match scan(buf, limits, &mut parsed, &mut spans)? {
                None => Ok(None),
                Some(raw) => build(buf, headers, raw, &spans).map(Some),
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
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buf, parsed) {
        Ok(Status::Complete(length)) if length <= limits.bytes => length,
        Ok(Status::Partial) if buf.len() < limits.bytes => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadTooLarge),
        Err(error) => return Err(Malformed::Head(error.into())),
    };
    fields::record(buf, request.headers, spans);
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    Ok(Some(RawHead {
        length,
        method: method.map_err(|error| Malformed::Head(error.into()))?,
        target: within(buf, request.path.unwrap_or_default().as_bytes()),
        version: match request.version {
            Some(1) => Version::HTTP_11,
            _ => Version::HTTP_10,
        },
        fields: request.headers.len(),
    }))
}

fn build(
    buf: &mut BytesMut,
    headers: &mut HeaderMap,
    raw: RawHead,
    spans: &[Span],
) -> Result<Head, Malformed> {
    let bytes = fields::copy_head(&buf[..raw.length]);
    buf.advance(raw.length);
    let (start, end) = raw.target;
    let target = Uri::from_maybe_shared(bytes.slice(start..end));
    let target = target.map_err(|error| Malformed::Head(error.into()))?;
    let mut persistence = Persistence::default();
    let (mut length, mut chunked) = (None, false);
    let (mut accepts_trailers, mut expects_continue, mut upgrade) = (false, false, false);
    let mut headers = std::mem::take(headers);
    fields::collect(&bytes, &spans[..raw.fields], &mut headers, |name, value| {
        if name == CONNECTION {
            persistence.observe(value);
        } else if name == CONTENT_LENGTH {
            length = framing::number(value);
        } else if name == TRANSFER_ENCODING {
            chunked = true;
        } else if name == TE {
            accepts_trailers |= has_token(value, b"trailers");
        } else if name == EXPECT {
            expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
        } else if name == UPGRADE {
            upgrade = true;
        }
    })?;
    let http11 = raw.version == Version::HTTP_11;
    let wants_upgrade = raw.method == Method::CONNECT || upgrade && http11;
    let mut request = Request::new(());
    *request.method_mut() = raw.method;
    *request.uri_mut() = target;
    *request.version_mut() = raw.version;
    *request.headers_mut() = headers;
    Ok(Head {
        request,
        body: match chunked {
            true => Decoder::chunked(),
            false => Decoder::length(length.unwrap_or_default()),
        },
        keep_alive: persistence.keep_alive(raw.version),
        accepts_trailers,
        expects_continue: expects_continue && http11,
        wants_upgrade,
    })
}

/// Writes the head of a request in origin-form (RFC 9112 §3.2.1), with exactly the framing field that is
/// true, and with `extra` fields.
pub fn write<B>(
    request: &Request<B>,
    extra: Option<&PreparedFields>,
    framing: Option<Framing>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = request.uri().path_and_query();
    let target = target.map_or("", |target| target.as_str());
    // An empty path is sent as a slash, also in front of a query.
    if !target.starts_with(['/', '*']) {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut said = false;
    for (name, value) in request.headers() {
        if *name == CONTENT_LENGTH {
            let truth = match framing {
                // A length of zero has a meaning: the `POST` has an empty body on purpose.
                None => Some(0),
                Some(Framing::Length(length)) => Some(length),
                Some(Framing::Chunked | Framing::UntilClose) => None,
            };
            if said || truth.is_none() || framing::number(value.as_bytes()) != truth {
                continue;
            }
            said = true;
        } else if *name == TRANSFER_ENCODING {
            continue;
        }
        fields::write_field(out, name.as_str(), value.as_bytes());
    }
    if let Some(extra) = extra {
        extra.write(out);
    }
    // Writing to memory does not fail.
    let _ = match framing {
        Some(Framing::Length(length)) if !said => write!(out, "content-length: {length}\r\n"),
        Some(Framing::Chunked) => out.write_all(b"transfer-encoding: chunked\r\n"),
        _ => Ok(()),
    };
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
