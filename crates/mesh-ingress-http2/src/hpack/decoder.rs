//! Decoding field sections.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

use super::field::{Field, Name};
use super::table::{Entry, OVERHEAD, Table};
use super::{DecodeError, huffman, number};

/// Decodes the field sections of the peer, one after the other.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

/// How much of a section was passed to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// All of it.
    Complete,
    /// The part within the limit. The rest was decoded, for the table, and dropped.
    TooLarge,
}

thread_local! {
    /// A buffer for values, one after the other.
    static VALUES: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Its size in bytes.
const BUFFER_SIZE: usize = 8 * 1024;

impl Decoder {
    /// A decoder whose peer may use a dynamic table of `table_size` bytes
    /// (`SETTINGS_HEADER_TABLE_SIZE`).
    #[must_use]
    pub fn new(table_size: usize) -> Self {
        Self {
            table: Table::new(table_size),
        }
    }

    /// Decodes a section, and passes its fields to `emit` until their total size (RFC 9113 §10.5.1)
    /// exceeds `limit`.
    ///
    /// # Errors
    /// When the bytes are no field section.
    pub fn decode(
        &mut self,
        section: &[u8],
        limit: usize,
        mut emit: impl FnMut(Field),
    ) -> Result<Decoded, DecodeError> {
        // Not available while the thread ends.
        let mut buffer = VALUES
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        let mut size = 0_usize;
        let decoded = self.decode_into(section, &mut buffer, |field, bytes| {
            size = size.saturating_add(bytes);
            if size <= limit {
                emit(field());
            }
        });
        if buffer.capacity() <= BUFFER_SIZE {
            let _ = VALUES.try_with(|values| values.set(Some(buffer)));
        }
        decoded?;
        Ok(match size <= limit {
            true => Decoded::Complete,
            false => Decoded::TooLarge,
        })
    }

    fn decode_into(
        &mut self,
        mut rest: &[u8],
        buffer: &mut BytesMut,
        mut emit: impl FnMut(&mut dyn FnMut() -> Field, usize),
    ) -> Result<(), DecodeError> {
        let mut has_fields = false;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first & 0x80 != 0 {
                // Indexed (RFC 7541 §6.1).
                let entry = self.entry(number::read(first, 7, &mut rest)?)?;
                emit(&mut || entry.field.clone(), entry.size);
            } else if first & 0x40 != 0 {
                // Literal, and indexed from now on (§6.2.1).
                let name = self.name(number::read(first, 6, &mut rest)?, &mut rest, buffer)?;
                let value = string(&mut rest, buffer)?;
                // The table may keep it for long, so it must not keep the buffer alive.
                let entry = Entry::new(name, Bytes::copy_from_slice(&value));
                emit(&mut || entry.field.clone(), entry.size);
                self.table.insert(entry);
            } else if first & 0x20 != 0 {
                // A table size update (§6.3), allowed only at the beginning (§4.2).
                if has_fields || !self.table.resize(number::read(first, 5, &mut rest)?) {
                    return Err(DecodeError("a table size update that is not allowed"));
                }
                continue;
            } else {
                // Literal (§6.2.2, §6.2.3).
                let name = self.name(number::read(first, 4, &mut rest)?, &mut rest, buffer)?;
                let value = string(&mut rest, buffer)?;
                let size = name.len() + value.len() + OVERHEAD;
                let mut value = Some(value);
                emit(
                    &mut || {
                        let mut field = name.with(value.take().unwrap_or_default());
                        // Never indexed, not by any later hop either (§6.2.3).
                        if let Field::Regular(_, value) = &mut field {
                            value.set_sensitive(first & 0x10 != 0);
                        }
                        field
                    },
                    size,
                );
            }
            has_fields = true;
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<&Entry, DecodeError> {
        let entry = self.table.get(index);
        entry.ok_or(DecodeError("an index outside the tables"))
    }

    fn name(
        &self,
        index: usize,
        rest: &mut &[u8],
        buffer: &mut BytesMut,
    ) -> Result<Name, DecodeError> {
        match index {
            0 => Ok(Name::of(&string(rest, buffer)?)),
            index => Ok(self.entry(index)?.name.clone()),
        }
    }
}

/// A string literal (RFC 7541 §5.2).
fn string(rest: &mut &[u8], buffer: &mut BytesMut) -> Result<Bytes, DecodeError> {
    let (&first, after) = rest
        .split_first()
        .ok_or(DecodeError("a string is missing"))?;
    *rest = after;
    let length = number::read(first, 7, rest)?;
    let Some((bytes, after)) = rest.split_at_checked(length) else {
        return Err(DecodeError("a string is longer than its section"));
    };
    *rest = after;
    if first & 0x80 == 0 && length > BUFFER_SIZE / 4 {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    // Drops the rest of a truncated string; complete ones have taken their bytes with them.
    buffer.clear();
    if buffer.capacity() < length * 8 / 5 {
        *buffer = BytesMut::with_capacity(BUFFER_SIZE.max(length * 8 / 5));
    }
    if first & 0x80 == 0 {
        buffer.extend_from_slice(bytes);
    } else if huffman::decode(bytes, buffer).is_none() {
        return Err(DecodeError("a string is not Huffman-coded"));
    }
    Ok(buffer.split().freeze())
}
