//! Reading field sections.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

use super::field::{Field, Name};
use super::table::{Entry, OVERHEAD, Table};
use super::{NotHpack, huffman, number};

/// Reads the field sections of one end of a connection, one after the other.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

/// How much of a section has been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// All of it.
    Whole,
    /// It is larger than the limit: what is beyond has only been read.
    TooLarge,
}

thread_local! {
    /// Room for values, one behind the other.
    static VALUES: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// So much of it at a time.
const ROOM: usize = 8 * 1024;

impl Decoder {
    /// One whose other end may have a table of so many bytes (`SETTINGS_HEADER_TABLE_SIZE`).
    #[must_use]
    pub fn new(table_size: usize) -> Self {
        Self {
            table: Table::new(table_size),
        }
    }

    /// Reads a section, and shows its fields until their sizes (RFC 9113 §10.5.1) make more than
    /// `limit`.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(
        &mut self,
        section: &[u8],
        limit: usize,
        mut show: impl FnMut(Field),
    ) -> Result<Decoded, NotHpack> {
        // Not at the end of the thread.
        let mut room = VALUES
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        let mut size = 0_usize;
        let decoded = self.decode_into(section, &mut room, |field, bytes| {
            size = size.saturating_add(bytes);
            if size <= limit {
                show(field());
            }
        });
        if room.capacity() <= ROOM {
            let _ = VALUES.try_with(|values| values.set(Some(room)));
        }
        decoded?;
        Ok(match size <= limit {
            true => Decoded::Whole,
            false => Decoded::TooLarge,
        })
    }

    fn decode_into(
        &mut self,
        mut rest: &[u8],
        room: &mut BytesMut,
        mut show: impl FnMut(&mut dyn FnMut() -> Field, usize),
    ) -> Result<(), NotHpack> {
        let mut begun = false;
        while let Some((&first, behind)) = rest.split_first() {
            rest = behind;
            if first & 0x80 != 0 {
                // Indexed (RFC 7541 §6.1).
                let entry = self.entry(number::read(first, 7, &mut rest)?)?;
                show(&mut || entry.field.clone(), entry.size);
            } else if first & 0x40 != 0 {
                // Literal, and indexed from now on (§6.2.1).
                let name = self.name(number::read(first, 6, &mut rest)?, &mut rest, room)?;
                let value = text(&mut rest, room)?;
                // It may be kept for long, and must not keep what is beside it.
                let entry = Entry::new(name, Bytes::copy_from_slice(&value));
                show(&mut || entry.field.clone(), entry.size);
                self.table.insert(entry);
            } else if first & 0x20 != 0 {
                // The table gets another size (§6.3), only at the beginning (§4.2).
                if begun || !self.table.resize(number::read(first, 5, &mut rest)?) {
                    return Err(NotHpack("a size of the table that was not offered"));
                }
                continue;
            } else {
                // Literal (§6.2.2, §6.2.3).
                let name = self.name(number::read(first, 4, &mut rest)?, &mut rest, room)?;
                let value = text(&mut rest, room)?;
                let size = name.len() + value.len() + OVERHEAD;
                let mut value = Some(value);
                show(
                    &mut || {
                        let mut field = name.with(value.take().unwrap_or_default());
                        // Never indexed: not by anybody on its way (§6.2.3).
                        if let Field::Regular(_, value) = &mut field {
                            value.set_sensitive(first & 0x10 != 0);
                        }
                        field
                    },
                    size,
                );
            }
            begun = true;
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<&Entry, NotHpack> {
        let entry = self.table.get(index);
        entry.ok_or(NotHpack("an index that is in no table"))
    }

    fn name(&self, index: usize, rest: &mut &[u8], room: &mut BytesMut) -> Result<Name, NotHpack> {
        match index {
            0 => Ok(Name::of(&text(rest, room)?)),
            index => Ok(self.entry(index)?.name.clone()),
        }
    }
}

/// RFC 7541 §5.2
fn text(rest: &mut &[u8], room: &mut BytesMut) -> Result<Bytes, NotHpack> {
    let (&first, behind) = rest.split_first().ok_or(NotHpack("a text is missing"))?;
    *rest = behind;
    let length = number::read(first, 7, rest)?;
    let Some((bytes, behind)) = rest.split_at_checked(length) else {
        return Err(NotHpack("a text is longer than its section"));
    };
    *rest = behind;
    if first & 0x80 == 0 && length > ROOM / 4 {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    // Of a text that was not to its end; all others have taken theirs with them.
    room.clear();
    if room.capacity() < length * 8 / 5 {
        *room = BytesMut::with_capacity(ROOM.max(length * 8 / 5));
    }
    if first & 0x80 == 0 {
        room.extend_from_slice(bytes);
    } else if huffman::decode(bytes, room).is_none() {
        return Err(NotHpack("a text is not of the Huffman code"));
    }
    Ok(room.split().freeze())
}
