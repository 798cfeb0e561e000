//! Idle connections in the order they were used.

use std::collections::VecDeque;

use crate::h1;

/// Connections, from the one that has been unused for longest to the one used last. Boxed: a
/// connection is large, and moves from owner to owner.
///
/// The one used last is kept apart: mostly it is the one that is wanted, and where there are a
/// thousand upstreams with one connection each, the way to it is shorter by a line of memory.
#[derive(Debug, Default)]
pub(super) struct List {
    /// Used after all others, if it is there.
    newest: Option<Box<h1::Connection>>,
    older: VecDeque<Box<h1::Connection>>,
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.older.len() + usize::from(self.newest.is_some())
    }

    pub(super) fn oldest(&self) -> Option<&h1::Connection> {
        let oldest = self.older.front().or(self.newest.as_ref());
        oldest.map(|connection| &**connection)
    }

    pub(super) fn push(&mut self, connection: Box<h1::Connection>) {
        self.older.extend(self.newest.replace(connection));
    }

    pub(super) fn pop_newest(&mut self) -> Option<Box<h1::Connection>> {
        self.newest.take().or_else(|| self.older.pop_back())
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Box<h1::Connection>> {
        self.older.pop_front().or_else(|| self.newest.take())
    }

    /// Closes those that are not good.
    pub(super) fn retain(&mut self, mut is_good: impl FnMut(&mut h1::Connection) -> bool) {
        self.older.retain_mut(|connection| is_good(connection));
        self.newest.take_if(|connection| !is_good(connection));
    }

    /// Puts others where those belong that have been unused for longer than all here.
    pub(super) fn put_before(&mut self, mut others: Self) {
        others.older.extend(others.newest.take());
        others.older.append(&mut self.older);
        others.newest = self.newest.take();
        *self = others;
    }
}
