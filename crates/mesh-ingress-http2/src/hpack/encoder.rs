//! Encoding field sections.

use http::{HeaderName, HeaderValue, StatusCode};

use super::{huffman, number, table};

/// Encodes field sections without the dynamic table: each section stands for itself, and no table has
/// to be searched.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// The peer has reduced its table size, which the next section must acknowledge (RFC 7541 §4.2).
    resized: bool,
}

impl Encoder {
    /// Takes the peer's `SETTINGS_HEADER_TABLE_SIZE`.
    pub(crate) fn table_size(&mut self, size: u32) {
        const DEFAULT: u32 = 4096;
        self.resized |= size < DEFAULT;
    }

    /// Must be called before each section.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.resized) {
            number::write(0x20, 5, 0, out);
        }
    }
}

/// `:status`
pub(crate) fn status(status: StatusCode, out: &mut Vec<u8>) {
    let index = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            number::write(0, 4, 8, out);
            string(status.as_str().as_bytes(), out);
            return;
        }
    };
    number::write(0x80, 7, index, out);
}

pub(crate) fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    // A later hop must not index it either (RFC 7541 §6.2.3).
    let representation = if value.is_sensitive() { 0x10 } else { 0 };
    let name = name.as_str();
    match table::static_index(name) {
        Some(index) => number::write(representation, 4, index, out),
        None => {
            out.push(representation);
            string(name.as_bytes(), out);
        }
    }
    string(value.as_bytes(), out);
}

/// A string literal, Huffman-coded if that is shorter (RFC 7541 §5.2).
fn string(text: &[u8], out: &mut Vec<u8>) {
    let length = huffman::encoded_len(text);
    if length < text.len() {
        number::write(0x80, 7, length, out);
        huffman::encode(text, out);
    } else {
        number::write(0, 7, text.len(), out);
        out.extend_from_slice(text);
    }
}
