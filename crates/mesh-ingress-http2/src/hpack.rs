//! HPACK (RFC 7541): how fields are written in HTTP/2.

mod decoder;
mod encoder;
mod field;
mod huffman;
mod number;
mod table;

pub use self::decoder::{Decoded, Decoder};
pub(crate) use self::encoder::{Encoder, field, status};
pub use self::field::Field;

/// Bytes that are no field section: the connection cannot go on, as its two ends do not have the
/// same table any more (RFC 7541 §2.3.3, RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field section is not HPACK: {0}")]
pub struct NotHpack(&'static str);

#[cfg(test)]
mod tests;
