//! How a body is written, and what is said of it before.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use mesh_ingress_headers::framing::content_length;

use crate::{Malformed, Outbox, fields};

/// How the receiver knows where a body ends that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many octets are still to come.
    Length(u64),
    /// It comes in chunks, the last of which is empty (RFC 9112 §7.1).
    Chunked,
    /// It ends with the connection: for clients of HTTP/1.0 only (RFC 9112 §6.3).
    UntilClose,
}

impl Framing {
    /// What is said of a body, by itself first: its own length is a fact, a field is a claim. `None`
    /// where there is none.
    pub fn of<B: Body>(body: &B, headers: &HeaderMap) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        let claimed = || content_length(headers).ok().flatten();
        Some(match body.size_hint().exact().or_else(claimed) {
            Some(length) => Self::Length(length),
            None => Self::Chunked,
        })
    }

    /// Adds a piece of the body to what is to be written; whether it was the last.
    ///
    /// # Errors
    /// [`Malformed::Length`] when there is more of it than was said.
    pub fn add(&mut self, frame: Frame<Bytes>, outbox: &mut Outbox) -> Result<bool, Malformed> {
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
                *left = more.ok_or(Malformed::Length)?;
                outbox.piece(data);
                Ok(*left == 0)
            }
            // A chunk without octets would be the last (RFC 9112 §7.1).
            Self::Chunked if data.is_empty() => Ok(false),
            Self::Chunked => {
                outbox.chunk(data);
                Ok(false)
            }
            Self::UntilClose => {
                outbox.piece(data);
                Ok(false)
            }
        }
    }

    /// The body has ended. Only chunks can be followed by trailers, and these not before the last
    /// chunk has gone out.
    ///
    /// # Errors
    /// [`Malformed::Length`] when there is less of it than was said.
    pub fn end(&mut self, trailers: &HeaderMap, outbox: &mut Outbox) -> Result<(), Malformed> {
        match self {
            Self::Length(left) if *left > 0 => Err(Malformed::Length),
            Self::Chunked if trailers.is_empty() => {
                outbox.last_chunk();
                Ok(())
            }
            Self::Chunked => {
                let out = outbox.framing();
                out.extend_from_slice(b"0\r\n");
                fields::write(out, trailers);
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
