//! The state of a subscriber outlives its process.

use super::{NOT_BLOCKED, Seat, WATCHED};
use crate::hub::filter::Filter;
use crate::hub::seats::ImportedSeat;
use crate::time::Tick;

impl Seat {
    /// What its stream takes with it, whose seats are in this round; `None` if it has to end here.
    pub(in crate::hub) fn export(&self, round: u8, filter: Filter) -> Option<ImportedSeat> {
        let Self {
            cursor,
            waiter: _,     // attached anew
            generation: _, // keys are of the process
            touched,
            blocked_since,
            flags: _, // a keepalive is due by `touched`, a stall timer is set anew
            round: _, // counted by the process: `reread_due` and `is_current` say what it means
            ending,
            draining,
        } = self;
        if ending.is_some() || draining.is_some() {
            return None;
        }
        Some(ImportedSeat {
            cursor: *cursor,
            touched: *touched,
            blocked_since: Some(*blocked_since).filter(|since| *since != NOT_BLOCKED),
            reread_due: self.is_reread_due(),
            is_current: self.is_current(round),
            filter,
        })
    }

    /// It is that of a stream that was exported. A stall timer has been set if it is blocked.
    pub(in crate::hub) fn import(&mut self, touched: Tick, blocked: Option<Tick>, round: u8) {
        (self.touched, self.round) = (touched, round);
        self.blocked_since = blocked.unwrap_or(NOT_BLOCKED);
        self.set(WATCHED, blocked.is_some());
    }
}
