//! The largest of many items, in memory for as many as are kept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Keeps the largest items of those that it is offered, at most `max`.
#[derive(Debug)]
pub(crate) struct Largest<T> {
    max: usize,
    /// The least of those that are kept is on top.
    items: BinaryHeap<Reverse<T>>,
}

// ===== impl Largest =====

impl<T: Ord> Largest<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, items: BinaryHeap::new() }
    }

    /// Offers an item, which is only made if `may_exceed` the least of those that are kept, or there is room.
    pub(crate) fn offer(&mut self, may_exceed: impl FnOnce(&T) -> bool, make: impl FnOnce() -> T) {
        if self.items.len() < self.max {
            return self.items.push(Reverse(make()));
        }
        let Some(mut least) = self.items.peek_mut() else { return };
        if may_exceed(&least.0) {
            let item = make();
            if item > least.0 {
                *least = Reverse(item);
            }
        }
    }

    /// What is kept, the largest first.
    pub(crate) fn into_sorted(self) -> Vec<T> {
        self.items.into_sorted_vec().into_iter().map(|Reverse(item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The twin sorts everything.
        #[test]
        fn it_keeps_the_largest_of_all(
            items in proptest::collection::vec((0..8_u8, any::<u8>()), 0..200),
            max in 0..30_usize,
        ) {
            let mut largest = Largest::new(max);
            for item in &items {
                let mut made = 0;
                let before = largest.items.len();
                // All of one class may be larger: then the items decide.
                largest.offer(
                    |least: &(u8, u8)| item.0 >= least.0,
                    || {
                        made += 1;
                        *item
                    },
                );
                prop_assert!(made <= 1 && (made == 1 || before == max));
                prop_assert!(largest.items.len() <= max);
            }
            let mut sorted = items;
            sorted.sort_unstable_by(|one, other| other.cmp(one));
            sorted.truncate(max);
            prop_assert_eq!(largest.into_sorted(), sorted);
        }
    }
}
