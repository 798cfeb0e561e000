//! The chunked transfer coding (RFC 9112 §7.1).

use super::byte_class;
use super::fields::FieldSection;
use super::head::StepResult;
use crate::RequestRule;

/// The maximum number of digits in a chunk size: 64 bits.
const MAX_DIGITS: u8 = 16;

/// The maximum size of a chunk's extensions in bytes. They are not in use, and a reader has to skip
/// them (CVE-2023-39326).
const MAX_EXTENSION: u16 = 256;

/// The position of the next byte in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    Size {
        digits: u8,
        size: u64,
    },
    /// Whitespace after a size, where only an extension may follow.
    Space {
        length: u16,
        size: u64,
    },
    Extension {
        length: u16,
        size: u64,
    },
    SizeLf(u64),
    /// In a chunk with this many bytes left.
    Data(u64),
    DataCr,
    DataLf,
    Trailers(FieldSection),
}

impl Chunked {
    pub(super) const NEW: Self = Self::Size { digits: 0, size: 0 };

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Trailers(FieldSection::Done))
    }

    #[inline]
    pub(super) fn step(&mut self, bytes: &[u8]) -> StepResult {
        let Some(&first) = bytes.first() else {
            return Ok(0);
        };
        *self = match *self {
            Self::Size { digits, size } => match (first, char::from(first).to_digit(16)) {
                (_, Some(_)) if digits == MAX_DIGITS => return Err((0, RequestRule::ChunkSize)),
                (_, Some(digit)) => Self::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                },
                _ if digits == 0 => return Err((0, RequestRule::ChunkSize)),
                (b'\r', _) => Self::SizeLf(size),
                (b';', _) => Self::Extension { length: 1, size },
                (b' ' | b'\t', _) => Self::Space { length: 1, size },
                (b'\n', _) => return Err((0, RequestRule::LineEnd)),
                _ => return Err((0, RequestRule::ChunkSize)),
            },
            Self::Space { length, .. } if length >= MAX_EXTENSION => {
                return Err((0, RequestRule::ChunkExtension));
            }
            Self::Space { length, size } => match first {
                b' ' | b'\t' => Self::Space {
                    length: length + 1,
                    size,
                },
                b';' => Self::Extension { length, size },
                _ => return Err((0, RequestRule::ChunkSize)),
            },
            Self::Extension { length, size } => return self.extension(length, size, bytes),
            Self::SizeLf(_) | Self::DataLf if first != b'\n' => {
                return Err((0, RequestRule::LineEnd));
            }
            Self::SizeLf(0) => Self::Trailers(FieldSection::NEW),
            Self::SizeLf(size) => Self::Data(size),
            Self::Data(size) => {
                let taken = usize::try_from(size).map_or(bytes.len(), |size| size.min(bytes.len()));
                *self = match size - taken as u64 {
                    0 => Self::DataCr,
                    left => Self::Data(left),
                };
                return Ok(taken);
            }
            Self::DataCr if first != b'\r' => return Err((0, RequestRule::ChunkEnd)),
            Self::DataCr => Self::DataLf,
            Self::DataLf => Self::NEW,
            Self::Trailers(mut fields) => {
                let step = fields.step(bytes, None);
                *self = Self::Trailers(fields);
                return step;
            }
        };
        Ok(1)
    }

    fn extension(&mut self, length: u16, size: u64, bytes: &[u8]) -> StepResult {
        let text = byte_class::text(bytes);
        let allowed = usize::from(MAX_EXTENSION.saturating_sub(length));
        if text > allowed {
            return Err((allowed, RequestRule::ChunkExtension));
        }
        match bytes.get(text) {
            None => {
                // At most `allowed`, which fits a u16.
                let length = length.saturating_add(u16::try_from(text).unwrap_or(u16::MAX));
                *self = Self::Extension { length, size };
                Ok(text)
            }
            Some(b'\r') => {
                *self = Self::SizeLf(size);
                Ok(text + 1)
            }
            Some(_) => Err((text, RequestRule::ChunkExtension)),
        }
    }
}
