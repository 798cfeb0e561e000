//! How a request is written.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame};
use mesh_ingress_headers::framing::content_length;

use super::fault::Fault;
use super::outbox::Outbox;
use crate::body::RequestBody;

/// How the upstream knows where the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many octets are still to come.
    Length(u64),
    Chunked,
}

impl Framing {
    /// What is said of the body, by itself first: its own length is a fact, a field is a claim.
    /// `None` where there is none.
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body();
        if body.is_end_stream() {
            return None;
        }
        let claimed = || content_length(request.headers()).ok().flatten();
        Some(match body.size_hint().exact().or_else(claimed) {
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        })
    }

    /// Adds a piece of the body to what is to be sent; whether it was the last.
    pub(crate) fn add(&mut self, frame: Frame<Bytes>, outbox: &mut Outbox) -> Result<bool, Fault> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return self.end(&trailers, outbox).map(|()| true);
            }
        };
        match self {
            Self::Length(left) => {
                let more = left.checked_sub(data.len() as u64);
                *left = more.ok_or(Fault::RequestLength)?;
                outbox.piece(data);
                Ok(*left == 0)
            }
            // A chunk without octets would be the last (RFC 9112 §7.1).
            Self::Chunked if data.is_empty() => Ok(false),
            Self::Chunked => {
                outbox.chunk(data);
                Ok(false)
            }
        }
    }

    /// The body has ended.
    pub(crate) fn end(&mut self, trailers: &HeaderMap, outbox: &mut Outbox) -> Result<(), Fault> {
        match self {
            Self::Length(left) if *left > 0 => Err(Fault::RequestLength),
            Self::Chunked => {
                let out = outbox.framing();
                out.extend_from_slice(b"0\r\n");
                write_fields(out, trailers);
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Writes the head of a request in origin-form (RFC 9112 §3.2.1), with the one framing field that
/// tells the truth.
pub(crate) fn write_head(request: &Request<RequestBody>, out: &mut Vec<u8>) -> Option<Framing> {
    let framing = Framing::of(request);
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
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
            // `Content-Length: 0` says something: that a `POST` means to have no body.
            said |= framing.is_none() && *name == CONTENT_LENGTH && value == "0";
            continue;
        }
        write_field(out, name.as_str(), value.as_bytes());
    }
    // Writing to memory does not fail.
    let _ = match framing {
        None if said => out.write_all(b"content-length: 0\r\n"),
        None => Ok(()),
        Some(Framing::Length(length)) => write!(out, "content-length: {length}\r\n"),
        Some(Framing::Chunked) => out.write_all(b"transfer-encoding: chunked\r\n"),
    };
    out.extend_from_slice(b"\r\n");
    framing
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        write_field(out, name.as_str(), value.as_bytes());
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
