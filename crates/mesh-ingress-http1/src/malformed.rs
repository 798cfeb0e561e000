//! Errors of the codec.

use mesh_ingress_core::BoxError;

/// Why a message cannot be read, or must not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The start line or the fields are not those of an HTTP/1 message.
    #[error("the bytes are no HTTP/1 message")]
    Head(#[source] BoxError),
    /// There are more fields or bytes than [`Limits`](crate::Limits) allow.
    #[error("the header section is too large")]
    HeadTooLarge,
    /// A chunk has no size, no line end, or too many extensions (RFC 9112 §7.1).
    #[error("the chunks are not well-formed: {0}")]
    Chunk(&'static str),
    /// The trailer section is not well-formed (RFC 9112 §7.1.2).
    #[error("the trailers are not well-formed")]
    Trailers(#[source] BoxError),
    /// There are more trailers than [`Limits`](crate::Limits) allow.
    #[error("the trailer section is too large")]
    TrailersTooLarge,
    /// A body to be written is longer or shorter than its Content-Length (RFC 9110 §8.6).
    #[error("the body is not as long as its Content-Length says")]
    Length,
}
