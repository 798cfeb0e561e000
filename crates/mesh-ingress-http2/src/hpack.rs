//! HPACK (RFC 7541): header compression of HTTP/2.

mod decoder;
mod encoder;
mod field;
mod huffman;
mod number;
mod table;

pub use self::decoder::{Decoded, Decoder};
pub(crate) use self::encoder::{Encoder, field, status};
pub use self::field::Field;

/// A field section that cannot be decoded. It is a connection error, because the two ends no longer
/// have the same dynamic table (RFC 7541 §2.3.3, RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field section is not HPACK: {0}")]
pub struct DecodeError(&'static str);

#[cfg(test)]
mod tests;
