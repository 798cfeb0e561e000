//! What is wrong with the bytes.

use mesh_ingress_core::BoxError;

/// Why a message cannot be read, or must not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The line that begins it, or its fields, are not those of a message of HTTP/1.
    #[error("what came is no message of HTTP/1")]
    Head(#[source] BoxError),
    /// There are more fields, or more bytes of them, than [`Limits`](crate::Limits) allow.
    #[error("the header section is too large")]
    HeadTooLarge,
    /// A chunk has no size, no end, or too much about it (RFC 9112 §7.1).
    #[error("the chunks are not well-formed: {0}")]
    Chunk(&'static str),
    /// The fields behind the body are not well-formed (RFC 9112 §7.1.2).
    #[error("the trailers are not well-formed")]
    Trailers(#[source] BoxError),
    /// There are more trailers than [`Limits`](crate::Limits) allow.
    #[error("the trailer section is too large")]
    TrailersTooLarge,
    /// A body to be written is longer or shorter than its head says (RFC 9110 §8.6).
    #[error("the body is not as long as its Content-Length says")]
    Length,
}
