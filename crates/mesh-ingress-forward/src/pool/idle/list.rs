//! A list in the order of use.

use std::collections::VecDeque;

/// Items from the least recently to the most recently used.
///
/// The most recently used item is stored inline: mostly it is the next to be used, and with a
/// thousand upstreams of one connection each, that saves one cache line.
#[derive(Debug)]
pub(super) struct IdleList<T> {
    /// Used after all of `older`, if there is one.
    newest: Option<T>,
    older: VecDeque<T>,
}

impl<T> Default for IdleList<T> {
    fn default() -> Self {
        Self {
            newest: None,
            older: VecDeque::new(),
        }
    }
}

impl<T> IdleList<T> {
    pub(super) fn len(&self) -> usize {
        self.older.len() + usize::from(self.newest.is_some())
    }

    pub(super) fn oldest(&self) -> Option<&T> {
        self.older.front().or(self.newest.as_ref())
    }

    pub(super) fn push(&mut self, used: T) {
        self.older.extend(self.newest.replace(used));
    }

    pub(super) fn pop_newest(&mut self) -> Option<T> {
        self.newest.take().or_else(|| self.older.pop_back())
    }

    pub(super) fn pop_oldest(&mut self) -> Option<T> {
        self.older.pop_front().or_else(|| self.newest.take())
    }

    /// Drops the items that are not good.
    pub(super) fn retain(&mut self, mut is_good: impl FnMut(&mut T) -> bool) {
        self.older.retain_mut(&mut is_good);
        self.newest.take_if(|newest| !is_good(newest));
    }

    /// Puts items in front that were used before all in this list.
    pub(super) fn put_before(&mut self, mut others: Self) {
        if self.len() > 0 {
            others.older.extend(others.newest.take());
            others.older.append(&mut self.older);
            others.newest = self.newest.take();
        }
        *self = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_behaves_like_a_deque() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let (mut list, mut model) = (IdleList::default(), VecDeque::new());
            let mut numbers = 0..;
            let mut push = |list: &mut IdleList<u32>, model: &mut VecDeque<u32>, count: u8| {
                for number in numbers.by_ref().take(count.into()) {
                    list.push(number);
                    model.push_back(number);
                }
            };
            for _ in 0..random.u8(0..40) {
                match random.u8(0..8) {
                    0..3 => push(&mut list, &mut model, 1),
                    3..5 => assert_eq!(list.pop_newest(), model.pop_back()),
                    5 => assert_eq!(list.pop_oldest(), model.pop_front()),
                    6 => {
                        let every = random.u32(2..5);
                        list.retain(|number| *number % every != 0);
                        model.retain(|number| number % every != 0);
                    }
                    _ => {
                        let others = std::mem::take(&mut list);
                        push(&mut list, &mut model, random.u8(0..3));
                        list.put_before(others);
                    }
                }
                assert_eq!(list.len(), model.len());
                assert_eq!(list.oldest(), model.front());
            }
            let rest: Vec<_> = std::iter::from_fn(|| list.pop_oldest()).collect();
            assert_eq!(rest, Vec::from(model));
        }
    }
}
