//! Who has a wire.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use replace_with::replace_with_or_abort_and_return;

use super::Wire;

/// A [`Wire`] that the body of a request may borrow. It belongs to whoever serves the connection: when
/// that has ended there is no socket any more, whoever may still have a body.
#[derive(Debug)]
pub(crate) enum Shared {
    /// No request has had a body yet, and most connections never have one that has: there is nobody to
    /// lock against. It would be locked eight times a request, which costs a hundredth of what a request
    /// does even if nobody contends: what has been written to memory before is waited for.
    Own(Box<Wire>),
    /// A request has had one, and for the rest of the connection another may.
    Lent(Arc<Mutex<Wire>>),
}

/// What the body of a request has of a [`Shared`].
#[derive(Debug)]
pub(crate) struct Lent(Weak<Mutex<Wire>>);

/// A wire that nobody else works with meanwhile.
#[derive(Debug)]
pub(crate) enum Guard<'w> {
    Own(&'w mut Wire),
    Lent(MutexGuard<'w, Wire>),
}

impl Lent {
    /// Works with the wire, if that is still there.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Wire) -> T) -> Option<T> {
        let wire = self.0.upgrade()?;
        let mut wire = wire.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&mut wire))
    }
}

impl Shared {
    pub(crate) fn new(wire: Wire) -> Self {
        Self::Own(Box::new(wire))
    }

    #[inline]
    pub(crate) fn lock(&mut self) -> Guard<'_> {
        match self {
            Self::Own(wire) => Guard::Own(wire),
            Self::Lent(wire) => Guard::Lent(wire.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    pub(crate) fn lend(&mut self) -> Lent {
        // In place: with a state in between, all others would have to do something about that.
        replace_with_or_abort_and_return(self, |shared| {
            let wire = match shared {
                Self::Own(wire) => Arc::new(Mutex::new(*wire)),
                Self::Lent(wire) => wire,
            };
            (Lent(Arc::downgrade(&wire)), Self::Lent(wire))
        })
    }

    /// The wire, if nobody else works with it.
    pub(crate) fn into_inner(self) -> Option<Wire> {
        match self {
            Self::Own(wire) => Some(*wire),
            Self::Lent(wire) => {
                let wire = Arc::into_inner(wire)?;
                Some(wire.into_inner().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

impl Deref for Guard<'_> {
    type Target = Wire;

    #[inline]
    fn deref(&self) -> &Wire {
        match self {
            Self::Own(wire) => wire,
            Self::Lent(wire) => wire,
        }
    }
}

impl DerefMut for Guard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Wire {
        match self {
            Self::Own(wire) => wire,
            Self::Lent(wire) => wire,
        }
    }
}
