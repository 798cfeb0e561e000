//! Threads, numbered.

use std::sync::atomic::{AtomicUsize, Ordering};

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Threads that are started together get numbers in a row, which fall into different shards.
    static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
}

/// The number of this thread; to be taken modulo the number of shards.
pub(crate) fn of_this_thread() -> usize {
    // While a thread ends it may have none any more.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}
