//! How the body of a message is delimited when it is written.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use mesh_ingress_headers::framing::content_length;

use crate::{Malformed, fields};

/// How the receiver knows where the body ends (RFC 9112 §6).
///
/// It encodes the frames of a body. Encoded bytes go to anything that has a `Vec<u8>` for copied bytes
/// ([`AsMut`]) and takes pieces without a copy ([`Extend`]), in the order of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`: so many bytes are still to come.
    Length(u64),
    /// `Transfer-Encoding: chunked`: an empty chunk is the last (RFC 9112 §7.1).
    Chunked,
    /// The end of the connection: for HTTP/1.0 clients only (RFC 9112 §6.3).
    UntilClose,
}

impl Framing {
    /// The framing of a body; `None` if there is no body. The body's own length is a fact and counts
    /// first, a `Content-Length` field is a claim.
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

    /// Encodes a frame and returns whether it was the last.
    ///
    /// # Errors
    /// [`Malformed::Length`] when there are more bytes than the length says.
    pub fn encode<O>(&mut self, frame: Frame<Bytes>, out: &mut O) -> Result<bool, Malformed>
    where
        O: AsMut<Vec<u8>> + Extend<Bytes>,
    {
        match frame.into_data() {
            Ok(data) => self.encode_data(data, out),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.finish(&trailers, out).map(|()| true)
            }
        }
    }

    /// Encodes a piece of the body and returns whether it was the last.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_data<O>(&mut self, data: Bytes, out: &mut O) -> Result<bool, Malformed>
    where
        O: AsMut<Vec<u8>> + Extend<Bytes>,
    {
        match self {
            Self::Length(left) => {
                let more = left.checked_sub(data.len() as u64);
                *left = more.ok_or(Malformed::Length)?;
                out.extend([data]);
                Ok(*left == 0)
            }
            // An empty chunk would be the last (RFC 9112 §7.1).
            Self::Chunked if data.is_empty() => Ok(false),
            Self::Chunked => {
                fields::write_chunk_size(out.as_mut(), data.len());
                out.extend([data]);
                out.as_mut().extend_from_slice(b"\r\n");
                Ok(false)
            }
            Self::UntilClose => {
                out.extend([data]);
                Ok(false)
            }
        }
    }

    /// Encodes the end of the body. Trailers are written only behind chunks: nothing else can be
    /// followed by them.
    ///
    /// # Errors
    /// [`Malformed::Length`] when there were fewer bytes than the length says.
    pub fn finish<O>(&mut self, trailers: &HeaderMap, out: &mut O) -> Result<(), Malformed>
    where
        O: AsMut<Vec<u8>>,
    {
        match self {
            Self::Length(left) if *left > 0 => Err(Malformed::Length),
            Self::Chunked => {
                let out = out.as_mut();
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
