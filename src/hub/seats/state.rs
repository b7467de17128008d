//! A seat outlives its process.

use super::{DUE, SeatKey, Seats};
use crate::hub::filter::Filter;
use crate::hub::seat::Seat;
use crate::ids::Seq;
use crate::time::Tick;

/// What a stream takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct ImportedSeat {
    pub(in crate::hub) cursor: Seq,
    /// The tick of the last delivery.
    pub(in crate::hub) touched: Tick,
    /// The tick since which pending bytes make no progress.
    pub(in crate::hub) blocked_since: Option<Tick>,
    pub(in crate::hub) reread_due: bool,
    /// It has re-read everything since the last command to, or been notified of what a topic has lost.
    pub(in crate::hub) is_current: bool,
    pub(in crate::hub) filter: Filter,
}

impl Seats {
    /// What the stream of a seat takes with it; `None` if it stays.
    pub(in crate::hub) fn export(&mut self, key: SeatKey) -> Option<(&Seat, ImportedSeat)> {
        let Self {
            slab,
            generation: _, // keys are of the process
            end: _,        // of the slab
            dirty: _,      // streams that are behind are visited
            late: _,       // as `dirty`
            passing: _,    // commands have been carried out
            visits: _,     // as `dirty`
            visited: _,    // as `dirty`
            round,
            ends_until: _, // as `passing`
            filters,
        } = self;
        let seat = slab.get(key.index as usize).filter(|seat| seat.generation == key.generation)?;
        let filter = filters.as_ref().map_or(Filter::ALL, |filters| filters.at(key.index as usize));
        Some((seat, seat.export(*round, filter)?))
    }

    /// The seat with this key, which has been taken for a stream that was exported, becomes that stream's.
    pub(in crate::hub) fn import(&mut self, key: SeatKey, exported: ImportedSeat) {
        let ImportedSeat { cursor: _, touched, blocked_since, reread_due, is_current, filter } =
            exported;
        if !filter.is_all() {
            self.set_filter(key, filter);
        }
        let round = match (reread_due, is_current) {
            (true, _) => DUE,
            (_, true) => self.round,
            // Never that of the seats, by which rounds are counted.
            _ => DUE + 1,
        };
        if let Some(seat) = self.get_mut(key) {
            seat.import(touched, blocked_since, round);
        }
    }
}
