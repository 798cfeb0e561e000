//! Containers that store small contents inline. With a thousand hosts in use, none is in the
//! processor's caches when it is looked up, and each separate allocation costs a cache miss.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// A text that is stored inline up to `N` bytes.
#[derive(Clone)]
pub(crate) enum Text<const N: usize> {
    Short(u8, [u8; N]),
    Long(Box<[u8]>),
}

impl<const N: usize> Text<N> {
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut short = [0; N];
        match (short.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(inline), Ok(length)) => {
                inline.copy_from_slice(text);
                Self::Short(length, short)
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(length, text) => text.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }
}

impl<const N: usize> Borrow<[u8]> for Text<N> {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<const N: usize> Eq for Text<N> {}

/// The hash of its bytes, because it is looked up by a byte slice.
impl<const N: usize> Hash for Text<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self).fmt(f)
    }
}

/// A list that stores a single member inline, which is the common case.
#[derive(Clone, Debug)]
pub(crate) enum Few<T> {
    One(T),
    Several(Vec<T>),
}

impl<T> Few<T> {
    /// Inserts a member at this index.
    pub(crate) fn insert(&mut self, at: usize, member: T) {
        *self = match std::mem::take(self) {
            Self::Several(members) if members.is_empty() => Self::One(member),
            Self::Several(mut members) => {
                members.insert(at, member);
                Self::Several(members)
            }
            Self::One(first) if at == 0 => Self::Several(vec![member, first]),
            Self::One(first) => Self::Several(vec![first, member]),
        };
    }

    pub(crate) fn push(&mut self, member: T) {
        self.insert(self.len(), member);
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::One(member) => std::slice::from_ref(member),
            Self::Several(members) => members,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(member) => std::slice::from_mut(member),
            Self::Several(members) => members,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_and_boxed_texts_have_the_same_bytes() {
        for length in [0, 1, 7, 8, 9, 255, 256, 1000] {
            let text = vec![b'x'; length];
            let kept = Text::<8>::new(&text);
            assert_eq!(*kept, text);
            assert_eq!(matches!(kept, Text::Short(..)), length <= 8);
            assert_eq!(*Text::<300>::new(&text), text);
        }
    }

    #[test]
    fn members_keep_their_order() {
        let mut few = Few::default();
        for member in [3, 5, 7] {
            few.push(member);
        }
        few.insert(0, 1);
        few.insert(2, 4);
        assert_eq!(*few, [1, 3, 4, 5, 7]);
        let mut few = Few::One(2);
        few.insert(0, 1);
        assert_eq!(*few, [1, 2]);
    }
}
