//! A hashed timer wheel: [`SLOTS`] lists, one a tick. It reads no clock; it is told the tick.
//!
//! Nothing is ever cancelled or moved: an entry comes out at its tick, and whoever takes it looks
//! whether it still means anything, and puts it back if it came too early (lazy re-arming).

use std::mem;

/// Ticks that one turn of the wheel takes. A later deadline stays in its slot for more turns.
pub(crate) const SLOTS: usize = 64;

/// Deadlines in ticks, each with what it is for.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Box<[Vec<(u32, T)>]>,
    /// Every deadline before this tick has come out.
    next: u32,
    len: usize,
}

// ===== impl Wheel =====

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), next: 0, len: 0 }
    }

    /// Puts `entry` in, to come out at `deadline`, or at the next tick if that has passed.
    pub(crate) fn insert(&mut self, deadline: u32, entry: T) {
        let deadline = deadline.max(self.next);
        let slot = &mut self.slots[deadline as usize % SLOTS];
        if slot.len() == slot.capacity() {
            // Doubling would leave half of a large slot empty.
            slot.reserve_exact(slot.len() / 4 + 4);
        }
        slot.push((deadline, entry));
        self.len += 1;
    }

    /// Takes out everything whose deadline is `now` or earlier, in the order of the deadlines; within
    /// a tick, in the order in which it went in. The memory of an emptied slot is given back.
    pub(crate) fn advance(&mut self, now: u32, mut expired: impl FnMut(T)) {
        // After a pause longer than a turn, one turn still visits every slot.
        let batch = u32::try_from(SLOTS).expect("64");
        if now.saturating_sub(self.next) >= batch {
            return self.catch_up(now, expired);
        }
        while self.next <= now {
            let slot = &mut self.slots[self.next as usize % SLOTS];
            let tick = self.next;
            // In place: entries that stay for more turns, such as expiries, may be very many.
            for (_, entry) in slot.extract_if(.., |(deadline, _)| *deadline <= tick) {
                self.len -= 1;
                expired(entry);
            }
            slot.shrink_to(slot.len() + slot.len() / 4);
            self.next += 1;
        }
    }

    /// Drops the entries that mean nothing any more.
    pub(crate) fn retain(&mut self, mut means: impl FnMut(&T) -> bool) {
        for slot in &mut self.slots {
            slot.retain(|(_, entry)| means(entry));
            slot.shrink_to_fit();
        }
        self.len = self.slots.iter().map(Vec::len).sum();
    }

    /// Entries in the wheel.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn catch_up(&mut self, now: u32, mut expired: impl FnMut(T)) {
        let mut late = Vec::new();
        for slot in &mut self.slots {
            let (due, later) =
                mem::take(slot).into_iter().partition(|(deadline, _)| *deadline <= now);
            *slot = later;
            late.extend::<Vec<_>>(due);
        }
        late.sort_by_key(|(deadline, _)| *deadline);
        self.len -= late.len();
        self.next = now.saturating_add(1);
        late.into_iter().for_each(|(_, entry)| expired(entry));
    }
}

/// The wheel against a sorted map, which is what a wheel is.
#[cfg(any(test, fuzzing))]
pub(crate) mod model {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    pub(crate) enum Step {
        Insert(u32),
        Advance(u32),
        KeepEven,
    }

    /// Takes the steps with both, and panics where they part.
    pub(crate) fn compare(steps: impl IntoIterator<Item = Step>) {
        let (mut wheel, mut twin) = (Wheel::new(), BTreeMap::<u32, Vec<usize>>::new());
        let (mut now, mut next) = (0, 0);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(ahead) => {
                    wheel.insert(now + ahead, n);
                    twin.entry((now + ahead).max(next)).or_default().push(n);
                }
                Step::Advance(by) => {
                    now += by;
                    let mut out = Vec::new();
                    wheel.advance(now, |entry| out.push(entry));
                    let later = twin.split_off(&(now + 1));
                    let due = mem::replace(&mut twin, later);
                    assert_eq!(out, due.into_values().flatten().collect::<Vec<_>>());
                    next = now + 1;
                }
                Step::KeepEven => {
                    wheel.retain(|entry| entry % 2 == 0);
                    twin.values_mut().for_each(|list| list.retain(|entry| entry % 2 == 0));
                }
            }
            assert_eq!(wheel.len(), twin.values().map(Vec::len).sum::<usize>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::model::{Step, compare};
    use proptest::prelude::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..200u32).prop_map(Step::Insert),
            3 => (0..5u32).prop_map(Step::Advance),
            1 => (0..300u32).prop_map(Step::Advance),
            1 => Just(Step::KeepEven),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(steps in prop::collection::vec(step(), 0..200)) {
            compare(steps);
        }
    }
}
