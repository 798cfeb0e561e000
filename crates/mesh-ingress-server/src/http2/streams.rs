//! The streams of a connection.

use std::sync::Arc;

use http::HeaderMap;

use super::connection::CLIENT_GONE;
use super::ready_queue::ReadyQueue;
use super::stream::{Blocked, Stream};
use crate::service::HttpService;

/// How many header maps are kept for later requests.
const MAX_SPARE: usize = 32;

/// The streams that are open, by slot and by identifier. A slot is reused when its stream has ended.
pub(super) struct Streams<S: HttpService> {
    slots: Vec<Stream<S>>,
    free: Vec<usize>,
    /// Identifiers grow, and streams end in about the order they began in: a sorted list is enough.
    open: Vec<(u32, usize)>,
    /// Empty maps, for the fields of requests.
    pub(super) spare: Vec<HeaderMap>,
    /// The slot that is unblocked first the next time.
    first: usize,
    queue: Arc<ReadyQueue>,
}

impl<S: HttpService> Streams<S> {
    pub(super) fn new(queue: &Arc<ReadyQueue>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            spare: Vec::new(),
            first: 0,
            queue: Arc::clone(queue),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The stream with this identifier, if it is open.
    pub(super) fn find(&mut self, id: u32) -> Option<&mut Stream<S>> {
        let at = self.open.binary_search_by_key(&id, |open| open.0).ok()?;
        self.slots.get_mut(self.open[at].1)
    }

    /// The stream in this slot, open or not, and the spare header maps.
    pub(super) fn slot(&mut self, slot: usize) -> Option<(&mut Stream<S>, &mut Vec<HeaderMap>)> {
        Some((self.slots.get_mut(slot)?, &mut self.spare))
    }

    /// A slot for the stream with this identifier, which is greater than those before.
    pub(super) fn open(&mut self, id: u32) -> &mut Stream<S> {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.len();
            self.slots.push(Stream::new(&self.queue, slot));
            slot
        });
        self.open.push((id, slot));
        &mut self.slots[slot]
    }

    /// The stream has ended. `why` is the error for a service that still reads the request.
    pub(super) fn close(&mut self, id: u32, why: &'static str) {
        let Ok(at) = self.open.binary_search_by_key(&id, |open| open.0) else {
            return;
        };
        let (_, slot) = self.open.remove(at);
        self.free.push(slot);
        let stream = &mut self.slots[slot];
        stream.id = 0;
        stream.clear(why);
        if self.spare.len() > MAX_SPARE {
            self.spare.truncate(MAX_SPARE);
        }
    }

    /// All streams have ended.
    pub(super) fn close_all(&mut self, why: &'static str) {
        while let Some(&(id, _)) = self.open.last() {
            self.close(id, why);
        }
    }

    /// The open streams.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Stream<S>> {
        self.slots.iter_mut().filter(|stream| stream.id != 0)
    }

    /// Wakes the streams that were blocked for this reason, each time another one first: what became
    /// free may not be enough for all.
    pub(super) fn unblock(&mut self, reason: Blocked) {
        let slots = self.slots.len();
        let mut next = None;
        for slot in (self.first..slots).chain(0..self.first.min(slots)) {
            let stream = &mut self.slots[slot];
            if stream.blocked == reason && stream.id != 0 {
                stream.blocked = Blocked::No;
                stream.waker.notify();
                next.get_or_insert(slot + 1);
            }
        }
        self.first = next.unwrap_or(self.first);
    }

    /// Frees memory that only many streams needed, if none is open.
    pub(super) fn shrink(&mut self) {
        if self.open.is_empty() {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.open = Vec::new();
            self.spare = Vec::new();
        }
    }
}

impl<S: HttpService> Drop for Streams<S> {
    fn drop(&mut self) {
        self.close_all(CLIENT_GONE);
    }
}
