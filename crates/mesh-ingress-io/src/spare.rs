//! Spare buffers of each thread.
//!
//! A connection owns a buffer only while there is something in it. The next connection of the thread
//! gets the same memory, which the processor still has in its cache, and an idle connection holds none.

use std::cell::Cell;

use bytes::BytesMut;

/// Size classes of read buffers. Each is twice the one before.
pub(crate) const READ_CLASSES: usize = 8;

/// A write buffer with more capacity is freed instead of kept.
pub(crate) const MAX_WRITE: usize = 64 * 1024;

/// One spare buffer a kind. More would be cold when they are used.
struct Spare {
    write: Cell<Vec<u8>>,
    /// With its capacity when it was allocated.
    read: [Cell<Option<(usize, BytesMut)>>; READ_CLASSES],
}

thread_local! {
    static SPARE: Spare = const {
        Spare {
            write: Cell::new(Vec::new()),
            read: [const { Cell::new(None) }; READ_CLASSES],
        }
    };
}

/// An empty write buffer.
pub(crate) fn take_write() -> Vec<u8> {
    // The thread-local is gone while the thread ends.
    let spare = SPARE.try_with(|spare| spare.write.take());
    spare.unwrap_or_default()
}

/// Keeps a write buffer for the next connection.
pub(crate) fn give_write(mut buf: Vec<u8>) {
    if (1..=MAX_WRITE).contains(&buf.capacity()) {
        buf.clear();
        let _ = SPARE.try_with(|spare| spare.write.set(buf));
    }
}

/// A read buffer of this class with exactly this capacity, if there is one.
pub(crate) fn take_read(class: usize, capacity: usize) -> Option<BytesMut> {
    let spare = SPARE.try_with(|spare| spare.read[class].take());
    // The largest class has the capacity that its owner asked for.
    let (kept, buf) = spare.ok().flatten()?;
    (kept == capacity).then_some(buf)
}

/// Keeps a read buffer for the next connection.
pub(crate) fn give_read(class: usize, capacity: usize, buf: BytesMut) {
    let _ = SPARE.try_with(|spare| spare.read[class].set(Some((capacity, buf))));
}
