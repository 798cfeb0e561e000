//! The streams of a connection.

use std::sync::Arc;

use http::HeaderMap;

use super::connection::GONE;
use super::signals::Signals;
use super::stream::{Blocked, Slot};

/// Places of streams that have ended are kept for others, so many.
const SPARE: usize = 32;

/// The streams that are open, by their place and by their number.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) slots: Vec<Slot>,
    free: Vec<usize>,
    /// Numbers grow, and streams end in about the order they began in: a list is enough.
    open: Vec<(u32, usize)>,
    /// Room for the fields of requests.
    pub(super) spare: Vec<HeaderMap>,
    /// Who of those that wait has its turn next.
    first: usize,
    signals: Arc<Signals>,
}

impl Streams {
    pub(super) fn new(signals: &Arc<Signals>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            spare: Vec::new(),
            first: 0,
            signals: Arc::clone(signals),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The stream of this number, if it is open.
    pub(super) fn find(&mut self, id: u32) -> Option<&mut Slot> {
        let at = self.open.binary_search_by_key(&id, |open| open.0).ok()?;
        self.slots.get_mut(self.open[at].1)
    }

    /// A place for the stream of this number, which is greater than those before.
    pub(super) fn open(&mut self, id: u32) -> &mut Slot {
        let place = self.free.pop().unwrap_or_else(|| {
            let place = self.slots.len();
            self.slots.push(Slot::new(&self.signals, place));
            place
        });
        self.open.push((id, place));
        &mut self.slots[place]
    }

    /// The stream has ended; `why` is for whoever still reads from it.
    pub(super) fn close(&mut self, id: u32, why: &'static str) {
        let Ok(at) = self.open.binary_search_by_key(&id, |open| open.0) else {
            return;
        };
        let (_, place) = self.open.remove(at);
        self.free.push(place);
        let slot = &mut self.slots[place];
        slot.id = 0;
        slot.free(why);
        if self.spare.len() > SPARE {
            self.spare.truncate(SPARE);
        }
    }

    /// All of them have ended.
    pub(super) fn close_all(&mut self, why: &'static str) {
        while let Some(&(id, _)) = self.open.last() {
            self.close(id, why);
        }
    }

    /// Those that are open.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().filter(|slot| slot.id != 0)
    }

    /// Those that waited for this can go on, each time another one first: it may not be enough for
    /// all.
    pub(super) fn unblock(&mut self, from: Blocked) {
        let places = self.slots.len();
        let mut next = None;
        for place in (self.first..places).chain(0..self.first.min(places)) {
            let slot = &mut self.slots[place];
            if slot.blocked == from && slot.id != 0 {
                slot.blocked = Blocked::No;
                slot.bell.ring();
                next.get_or_insert(place + 1);
            }
        }
        self.first = next.unwrap_or(self.first);
    }

    /// Gives memory back that only many streams needed.
    pub(super) fn rest(&mut self) {
        if self.open.is_empty() {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.open = Vec::new();
            self.spare = Vec::new();
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.close_all(GONE);
    }
}
