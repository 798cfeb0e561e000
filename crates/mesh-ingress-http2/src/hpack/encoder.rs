//! Writing field sections.

use http::{HeaderName, HeaderValue, StatusCode};

use super::{huffman, number, table};

/// Writes the field sections of one end of a connection. Nothing of what it writes is to be kept by
/// the other end: every section stands for itself, and no table has to be looked through.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// The other end has made its table smaller, and waits to hear that this end knows (RFC 7541
    /// §4.2).
    resized: bool,
}

impl Encoder {
    /// The other end has said how large its table is.
    pub(crate) fn table_size(&mut self, size: u32) {
        const DEFAULT: u32 = 4096;
        self.resized |= size < DEFAULT;
    }

    /// To be called before a section is written.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.resized) {
            number::write(0x20, 5, 0, out);
        }
    }
}

/// `:status`
pub(crate) fn status(status: StatusCode, out: &mut Vec<u8>) {
    let place = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            number::write(0, 4, 8, out);
            text(status.as_str().as_bytes(), out);
            return;
        }
    };
    number::write(0x80, 7, place, out);
}

pub(crate) fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    // Whoever passes it on must not keep it either (RFC 7541 §6.2.3).
    let how = if value.is_sensitive() { 0x10 } else { 0 };
    let name = name.as_str();
    match table::place_of(name) {
        Some(place) => number::write(how, 4, place, out),
        None => {
            out.push(how);
            text(name.as_bytes(), out);
        }
    }
    text(value.as_bytes(), out);
}

/// As codes, if that is shorter.
fn text(text: &[u8], out: &mut Vec<u8>) {
    let length = huffman::encoded_len(text);
    if length < text.len() {
        number::write(0x80, 7, length, out);
        huffman::encode(text, out);
    } else {
        number::write(0, 7, text.len(), out);
        out.extend_from_slice(text);
    }
}
