//! The seats of one view of a channel on one shard: a slab, one slot for each subscriber.

#[cfg(feature = "server")]
mod state;

use std::mem;

use slab::Slab;

use super::batch::{Batch, WriteKind};
use super::feed::View;
use super::filter::{Filter, Filters};
use super::log::Log;
use super::seat::{DUE, Seat};
use super::sweep::EVENTS_PER_WRITE;
use crate::ids::Seq;
use crate::time::Tick;

#[cfg(feature = "server")]
pub(super) use self::state::ImportedSeat;

/// The index of a seat, with a generation as an ABA guard: slots are used again, and a stale key must never
/// reach another subscriber's seat. The lowest bit of the generation is which view of an org the seat's stream shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeatKey {
    index: u32,
    generation: u32,
}

/// The slab.
#[derive(Debug)]
pub(crate) struct Seats {
    slab: Slab<Seat>,
    /// That of the last seat.
    generation: u32,
    /// One more than the highest index in use since the slab was last empty.
    end: usize,
    /// They are in the inbox of the shard, or are being swept.
    dirty: bool,
    /// A stream has come that is behind, and a sweep may have passed over its seat before.
    late: bool,
    /// A pass carries out commands to them, or is about to begin.
    passing: bool,
    /// How often a sweep has to visit every stream, whether it is behind or not, and how often one has.
    visits: u32,
    visited: u32,
    /// Counts the commands to re-read everything, or what a topic has lost, in a circle without [`DUE`].
    round: u8,
    /// The generation of the last seat whose stream has to end.
    ends_until: Option<u32>,
    /// While a seat has one.
    pub(super) filters: Option<Box<Filters>>,
}

const FEWER: &str = "fewer seats than file descriptors";

// ===== impl SeatKey =====

impl SeatKey {
    /// The view, if the seat is at an org.
    pub(crate) fn org_view(self) -> View {
        if self.generation & 1 == 1 { View::Public } else { View::Member }
    }
}

// ===== impl Seats =====

impl Seats {
    /// No seats, for streams of this view.
    pub(crate) fn of(view: View) -> Self {
        Self {
            slab: Slab::new(),
            generation: u32::from(view == View::Public),
            end: 0,
            dirty: false,
            late: false,
            passing: false,
            visits: 0,
            visited: 0,
            // That before it is the one of a stream that has come and is not current.
            round: DUE + 2,
            ends_until: None,
            filters: None,
        }
    }

    pub(crate) fn insert(&mut self, cursor: Seq, tick: Tick) -> SeatKey {
        self.generation = self.generation.wrapping_add(2);
        let generation = self.generation;
        let seat = Seat::new(cursor, tick, generation, self.round);
        let index = self.slab.insert(seat);
        self.end = self.end.max(index + 1);
        SeatKey { index: u32::try_from(index).expect(FEWER), generation }
    }

    pub(crate) fn get_mut(&mut self, key: SeatKey) -> Option<&mut Seat> {
        let seat = self.slab.get_mut(key.index as usize)?;
        (seat.generation == key.generation).then_some(seat)
    }

    /// Frees the seat, if the key is not stale.
    pub(crate) fn remove(&mut self, key: SeatKey) -> Option<Seat> {
        self.get_mut(key)?;
        let seat = self.slab.remove(key.index as usize);
        if self.filters.is_some() {
            self.set_filter_at(key.index as usize, Filter::ALL);
        }
        shrink_if_sparse(&mut self.slab);
        self.end = self.end.min(self.slab.capacity());
        Some(seat)
    }

    /// Sets the filter of a seat, if the key is not stale.
    pub(super) fn set_filter(&mut self, key: SeatKey, filter: Filter) {
        if self.get_mut(key).is_some() {
            self.set_filter_at(key.index as usize, filter);
        }
    }

    #[cold]
    fn set_filter_at(&mut self, index: usize, filter: Filter) {
        let mut filters = self.filters.take().unwrap_or_default();
        self.filters = filters.set(index, filter).then_some(filters);
    }

    /// The seat with this key, and its filter.
    #[inline]
    pub(super) fn filtered_mut(&mut self, key: SeatKey) -> Option<(&mut Seat, Filter)> {
        let filter = match &self.filters {
            None => Filter::ALL,
            Some(filters) => filters.at(key.index as usize),
        };
        Some((self.get_mut(key)?, filter))
    }

    /// Moves the seat at this index past events that cannot interest it. Returns whether that is all: it has nothing to
    /// receive, or takes by itself what there is between them.
    pub(super) fn skip<L: Log>(
        &mut self,
        index: usize,
        history: &L,
        may_end: bool,
        batch: &mut Batch,
    ) -> bool {
        let Some(filters) = &self.filters else { return false };
        let filter = filters.at(index);
        if filter.is_all() || may_end {
            return false;
        }
        let Some(seat) = self.slab.get_mut(index) else { return false };
        if seat.cursor == history.head() {
            return true;
        }
        seat.cursor = history.skip(seat.cursor, filter);
        if seat.cursor == history.head() {
            return true;
        }
        let is_far = history.head().since(seat.cursor) > EVENTS_PER_WRITE as u64;
        if is_far || history.interests(seat.cursor, filter) {
            return false;
        }
        seat.notify(WriteKind::CatchUp, batch);
        true
    }

    /// Returns whether the channel has to be left in the shard's inbox: not if it has no seats here, or is there
    /// already.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        self.len() > 0 && !mem::replace(&mut self.dirty, true)
    }

    /// The same for a stream that begins behind: a sweep that is under way goes over the seats once more.
    #[cfg(feature = "server")]
    pub(crate) fn mark_late(&mut self) -> bool {
        self.late = true;
        self.mark_dirty()
    }

    /// A sweep begins at the first seat.
    pub(crate) fn begin_sweep(&mut self) {
        self.late = false;
    }

    /// Whether a stream has come since then that the sweep may have passed over.
    pub(crate) fn is_late(&self) -> bool {
        self.late
    }

    /// From here on a change marks the seats dirty again.
    pub(crate) fn end_sweep(&mut self) {
        self.dirty = false;
        self.visited = self.visits;
    }

    /// Has a sweep visit every stream once more.
    pub(crate) fn visit_all(&mut self) {
        self.visits = self.visits.wrapping_add(1);
    }

    /// Whether a sweep has to visit every stream, and a number that changes when that is so once more.
    pub(crate) fn visits_all(&self) -> (bool, u32) {
        (self.visits != self.visited, self.visits)
    }

    pub(crate) fn round(&self) -> u8 {
        self.round
    }

    /// Every stream that is open now has to re-read everything, or has to be notified if it misses what a topic lost.
    pub(crate) fn begin_round(&mut self) {
        self.round = self.round.checked_add(1).unwrap_or_else(|| {
            // No stream may take an old round for this one.
            let open = self.slab.iter_mut().map(|(_, seat)| seat);
            open.filter(|seat| seat.round != DUE).for_each(|seat| seat.round = DUE + 1);
            DUE + 2
        });
    }

    /// Every stream that is open now has to end.
    pub(crate) fn command_end(&mut self) {
        if self.len() > 0 {
            self.ends_until = Some(self.generation);
        }
    }

    /// A pass is needed for a command. Returns whether it has to be begun.
    pub(crate) fn begin_pass(&mut self) -> bool {
        self.len() > 0 && !mem::replace(&mut self.passing, true)
    }

    pub(crate) fn is_passing(&self) -> bool {
        self.passing
    }

    /// The pass has visited all.
    pub(crate) fn end_pass(&mut self) {
        self.passing = false;
        self.ends_until = None;
    }

    /// Whether the stream of the seat at this index was open at the last command to end, and has not been made to.
    pub(crate) fn has_to_end(&self, index: usize) -> bool {
        let Some(until) = self.ends_until else { return false };
        // The generation comes around again, but not within a window.
        let since = self.generation.wrapping_sub(until);
        let is_later = |seat: &Seat| seat.generation.wrapping_sub(until).wrapping_sub(1) < since;
        self.slab.get(index).is_some_and(|seat| seat.draining.is_none() && !is_later(seat))
    }

    /// Whether the stream of the seat at this index was open at the last command to re-read everything, and has not
    /// been made to.
    pub(crate) fn has_to_reread(&self, index: usize) -> bool {
        self.slab.get(index).is_some_and(|seat| seat.round != DUE && seat.round != self.round)
    }

    /// The seat at this index, for a pass in memory order over `0..end`.
    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut Seat> {
        self.slab.get_mut(index)
    }

    /// The same, with its key.
    pub(crate) fn keyed_mut(&mut self, index: usize) -> Option<(&mut Seat, SeatKey)> {
        let seat = self.slab.get_mut(index)?;
        let (index, generation) = (u32::try_from(index).expect(FEWER), seat.generation);
        Some((seat, SeatKey { index, generation }))
    }

    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}

/// Gives memory back as a slab empties.
pub(crate) fn shrink_if_sparse<T>(slab: &mut Slab<T>) {
    if is_sparse(slab.len(), slab.capacity()) {
        slab.shrink_to_fit();
    }
}

/// Whether a collection has to give memory back after a removal: at each halving of its entries, so that the
/// cost is a constant per removal.
pub(crate) fn is_sparse(len: usize, capacity: usize) -> bool {
    (len == 0 || len.is_power_of_two()) && len * 4 <= capacity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_view_of_its_seat() {
        for view in [View::Member, View::Public] {
            let mut seats = Seats::of(view);
            assert!((0..5).all(|n| seats.insert(Seq(n), Tick(0)).org_view() == view));
        }
    }

    #[test]
    fn a_stale_key_reaches_no_other_seat() {
        let mut seats = Seats::of(View::Member);
        let first = seats.insert(Seq(0), Tick(0));
        assert!(seats.remove(first).is_some());
        let second = seats.insert(Seq(7), Tick(0));
        assert_eq!(first.index, second.index, "the slot is used again");
        assert!(seats.get_mut(first).is_none());
        assert!(seats.remove(first).is_none());
        assert_eq!(seats.get_mut(second).map(|seat| seat.cursor), Some(Seq(7)));
    }

    #[test]
    fn an_emptied_slab_frees_its_memory() {
        let mut seats = Seats::of(View::Public);
        let keys: Vec<_> = (0..1000).map(|n| seats.insert(Seq(n), Tick(0))).collect();
        for key in keys.into_iter().skip(8).rev() {
            seats.remove(key);
        }
        assert_eq!(seats.len(), 8);
        assert!(seats.slab.capacity() < 100, "capacity of {}", seats.slab.capacity());
        let left: Vec<_> =
            (0..seats.end()).filter_map(|i| Some(seats.at_mut(i)?.cursor.0)).collect();
        assert!(left.into_iter().eq(0..8));
    }
}
