//! What a stream takes its events from: the log of its feed, from the cursor of its seat on.

use super::command::Commands;
use super::filter::Filter;
use super::log::Log;
use super::seat::Seat;
use super::shard::Common;
use crate::ids::{EventId, Seq};
use crate::wire::{Frame, Greeting, Keepalive};

/// A seat with its feed's log.
pub(crate) struct Source<'f> {
    pub(super) log: &'f mut dyn Log,
    pub(super) commands: Option<&'f Commands>,
    /// The round of the seats.
    pub(super) round: u8,
    /// The filter of the seat.
    pub(super) filter: Filter,
    pub(super) seat: &'f mut Seat,
}

// ===== impl Source =====

impl Source<'_> {
    /// The next event; `None` if there is none, or the stream has to get `connected` first.
    pub(super) fn event(&mut self) -> Option<(Seq, Frame)> {
        if !self.filter.is_all() {
            self.seat.cursor = self.log.skip(self.seat.cursor, self.filter);
        }
        let (seq, frame) = self.log.next(self.seat, self.round, self.commands)?;
        self.seat.cursor = seq;
        Some((seq, frame))
    }

    /// The `connected` after which the client re-reads everything, or what is kept, if it has to: because it has missed
    /// the next event, or a command says so.
    pub(super) fn reread(&mut self, common: &Common) -> Option<Frame> {
        if !self.log.restarts(self.seat, self.round) {
            return None;
        }
        self.restart();
        Some(self.log.connected(common.config.keepalive_seconds(), common.applied()))
    }

    /// Its keepalive. That of a filtered stream has its position: otherwise the last id that its client has would grow
    /// too old to resume. So does that of every stream where ids are of a log, since others are written to it.
    pub(super) fn keepalive(&mut self, keepalive: Keepalive, common: &Common) -> Frame {
        if common.log.is_some() {
            let applied = common.applied();
            let ping = applied.and_then(|mark| self.log.ping_in_log(self.seat, self.round, mark));
            return ping.unwrap_or_else(|| keepalive.frame());
        }
        match self.filter.is_all() {
            true => keepalive.frame(),
            false => self.log.ping(self.seat, self.round),
        }
    }

    /// How the stream begins, and with which id. `last` is the id that its client came with.
    pub(super) fn begin(
        &mut self,
        greeting: Greeting,
        last: Option<EventId>,
        common: &Common,
    ) -> (Greeting, EventId) {
        let restarts = self.log.restarts_at_first(self.seat, self.round);
        if restarts {
            self.restart();
        }
        let greeting = if restarts { Greeting::Connected } else { greeting };
        let resumes = last.filter(|_| greeting == Greeting::Resumed);
        (greeting, self.log.greeting_id(self.seat, greeting, resumes, common.applied()))
    }

    /// The position up to which events have been delivered.
    pub(super) fn position(&self) -> EventId {
        self.log.id_of(self.seat, self.round)
    }

    fn restart(&mut self) {
        self.seat.cursor = self.log.restart();
        self.seat.has_reread(self.round);
    }
}
