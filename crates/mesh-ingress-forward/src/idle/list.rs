//! What is idle, in the order it was used.

use std::collections::VecDeque;

/// From what has been unused for longest to what was used last.
///
/// What was used last is kept apart: mostly it is what is wanted, and where there are a thousand
/// upstreams with one connection each, the way to it is shorter by a line of memory.
#[derive(Debug)]
pub(super) struct List<T> {
    /// Used after all others, if it is there.
    newest: Option<T>,
    older: VecDeque<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            newest: None,
            older: VecDeque::new(),
        }
    }
}

impl<T> List<T> {
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

    /// Drops what is not good.
    pub(super) fn retain(&mut self, mut is_good: impl FnMut(&mut T) -> bool) {
        self.older.retain_mut(&mut is_good);
        self.newest.take_if(|newest| !is_good(newest));
    }

    /// Puts others in front, which have been unused for longer than all here.
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

    /// It is what a deque is.
    #[test]
    fn the_order_is_that_of_use() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let (mut list, mut model) = (List::default(), VecDeque::new());
            let mut numbers = 0..;
            let mut push = |list: &mut List<u32>, model: &mut VecDeque<u32>, count: u8| {
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
