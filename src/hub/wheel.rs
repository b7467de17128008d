//! A hashed timer wheel: [`SLOTS`] lists, one per tick. It reads no clock: the tick is passed in.
//!
//! No entry is ever cancelled or moved. It expires at its tick; the driver then checks whether it is
//! stale, and puts it back if it came too early (lazy re-arming).

use std::mem;

use crate::time::Tick;

/// Ticks in one revolution. A deadline further ahead stays in its slot for several.
pub(crate) const SLOTS: usize = 64;

/// Stale entries that are not worth a scan.
const STALE_MAX: usize = 1024;

/// Entries, each with its deadline in ticks.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Box<[Vec<(Tick, T)>]>,
    /// The memory of a slot that this tick has emptied, for the next slot that is filled: entries that are inserted again
    /// and again allocate nothing.
    spare: Vec<(Tick, T)>,
    /// The slot that uses it.
    refilled: Option<usize>,
    /// Every entry with a deadline before this tick has expired.
    next: Tick,
    len: usize,
}

// ===== impl Wheel =====

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { slots, spare: Vec::new(), refilled: None, next: Tick(0), len: 0 }
    }

    /// Inserts an entry that expires at `deadline`, or at the next tick if that has passed.
    pub(crate) fn insert(&mut self, deadline: Tick, entry: T) {
        let deadline = deadline.max(self.next);
        let index = deadline.0 as usize % SLOTS;
        let slot = &mut self.slots[index];
        if slot.capacity() == 0 && self.spare.capacity() > 0 {
            mem::swap(slot, &mut self.spare);
            self.refilled = Some(index);
        }
        if slot.len() == slot.capacity() {
            // Doubling would leave half of a large slot empty.
            slot.reserve_exact(slot.len() / 4 + 4);
        }
        slot.push((deadline, entry));
        self.len += 1;
    }

    /// Has the wheel's time go on from `now`, after its clock was set back.
    pub(crate) fn rewind(&mut self, now: Tick) {
        self.next = self.next.min(now.after(1));
    }

    /// Removes the entries whose deadline is `now` or earlier, in the order of the deadlines; within a tick, in
    /// the order of their insertion. The memory of an emptied slot is given back, one tick later at the latest.
    pub(crate) fn advance(&mut self, now: Tick, mut expired: impl FnMut(T)) {
        // After a pause longer than a revolution, one pass over the slots is enough.
        let revolution = u32::try_from(SLOTS).expect("64");
        if now.since(self.next) >= revolution {
            return self.catch_up(now, expired);
        }
        self.give_back();
        while self.next <= now {
            let slot = &mut self.slots[self.next.0 as usize % SLOTS];
            let tick = self.next;
            // In place: very many entries, such as expiries, may stay for several revolutions.
            for (_, entry) in slot.extract_if(.., |(deadline, _)| *deadline <= tick) {
                self.len -= 1;
                expired(entry);
            }
            if slot.is_empty() && slot.capacity() > self.spare.capacity() {
                mem::swap(slot, &mut self.spare);
            }
            shrink(slot);
            self.next = self.next.after(1);
        }
    }

    /// All entries with their deadlines, stale ones too.
    #[cfg(feature = "server")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tick, &T)> {
        self.slots.iter().flatten().map(|(deadline, entry)| (*deadline, entry))
    }

    /// Drops stale entries, each of which keeps its channel's memory, once there are more of them than seats
    /// and [`STALE_MAX`]; a taken seat has up to `per_seat` entries. The cost is amortised: as many seats
    /// have been freed as a scan visits.
    pub(crate) fn purge(
        &mut self,
        seats: usize,
        per_seat: usize,
        is_taken: impl FnMut(&T) -> bool,
    ) {
        if self.len > (per_seat + 1) * seats + STALE_MAX {
            self.retain(is_taken);
        }
    }

    /// Entries, stale ones too.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Frees what is left of the memory of the slots that the last tick emptied.
    fn give_back(&mut self) {
        self.spare = Vec::new();
        if let Some(index) = self.refilled.take() {
            shrink(&mut self.slots[index]);
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for slot in &mut self.slots {
            slot.retain(|(_, entry)| keep(entry));
            slot.shrink_to_fit();
        }
        self.len = self.slots.iter().map(Vec::len).sum();
    }

    fn catch_up(&mut self, now: Tick, mut expired: impl FnMut(T)) {
        self.give_back();
        let mut late = Vec::new();
        for slot in &mut self.slots {
            let (due, later) =
                mem::take(slot).into_iter().partition(|(deadline, _)| *deadline <= now);
            *slot = later;
            late.extend::<Vec<_>>(due);
        }
        late.sort_by_key(|(deadline, _)| *deadline);
        self.len -= late.len();
        self.next = now.after(1);
        late.into_iter().for_each(|(_, entry)| expired(entry));
    }
}

/// Leaves a slot room for a quarter more entries than it has, by which it grows, too.
fn shrink<T>(slot: &mut Vec<(Tick, T)>) {
    slot.shrink_to(slot.len() + slot.len() / 4);
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

    /// Applies the steps to both, and panics where they differ.
    pub(crate) fn compare(steps: impl IntoIterator<Item = Step>) {
        let (mut wheel, mut twin) = (Wheel::new(), BTreeMap::<u32, Vec<usize>>::new());
        let (mut now, mut next) = (0, 0);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(ahead) => {
                    wheel.insert(Tick(now + ahead), n);
                    twin.entry((now + ahead).max(next)).or_default().push(n);
                }
                Step::Advance(by) => {
                    now += by;
                    let mut out = Vec::new();
                    wheel.advance(Tick(now), |entry| out.push(entry));
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
    use super::*;
    use proptest::prelude::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..200u32).prop_map(Step::Insert),
            3 => (0..5u32).prop_map(Step::Advance),
            1 => (0..300u32).prop_map(Step::Advance),
            1 => Just(Step::KeepEven),
        ]
    }

    /// The entries of a tick come again in another, twice with all of them and then with one.
    #[test]
    fn a_slot_is_filled_in_the_memory_of_the_one_that_was_emptied() {
        let mut wheel = Wheel::new();
        let memory = |wheel: &Wheel<u32>| {
            wheel.slots.iter().map(Vec::capacity).sum::<usize>() + wheel.spare.capacity()
        };
        let turn = |wheel: &mut Wheel<u32>, now: u32, keep: u32| {
            let mut due = Vec::new();
            wheel.advance(Tick(now), |entry| due.push(entry));
            due.retain(|entry| *entry < keep);
            due.into_iter().for_each(|entry| wheel.insert(Tick(now + 8), entry));
        };
        (0..1_000).for_each(|entry| wheel.insert(Tick(8), entry));
        let full = memory(&wheel);
        assert!((1_000..=1_300).contains(&full), "{full}");
        (8..=32).for_each(|now| turn(&mut wheel, now, 1_000));
        assert_eq!(memory(&wheel), full);

        turn(&mut wheel, 40, 1);
        turn(&mut wheel, 41, 1);
        assert!(memory(&wheel) <= 5, "{}", memory(&wheel));
        turn(&mut wheel, 48, 0);
        turn(&mut wheel, 49, 0);
        assert_eq!(memory(&wheel), 0);
    }

    proptest! {
        #[test]
        fn a_wheel_behaves_like_a_sorted_map(steps in prop::collection::vec(step(), 0..200)) {
            compare(steps);
        }
    }
}
