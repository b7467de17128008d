//! What a stream takes its events from: the log of its feed, from the cursor of its seat on.

use super::command::Commands;
use super::filter::Filter;
use super::log::Log;
use super::seat::Seat;
use crate::config::HubConfig;
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
    pub(super) fn reread(&mut self, config: &HubConfig) -> Option<Frame> {
        if !self.log.restarts(self.seat, self.round) {
            return None;
        }
        self.restart();
        Some(self.log.connected(config.keepalive_seconds()))
    }

    /// Its keepalive. That of a filtered stream has its position: otherwise the last id that its client has would grow
    /// too old to resume.
    pub(super) fn keepalive(&mut self, keepalive: Keepalive) -> Frame {
        match self.filter.is_all() {
            true => keepalive.frame(),
            false => self.log.ping(self.seat, self.round),
        }
    }

    /// How the stream begins, and at which position.
    pub(super) fn begin(&mut self, greeting: Greeting) -> (Greeting, EventId) {
        let restarts = self.log.restarts_at_first(self.seat, self.round);
        if restarts {
            self.restart();
        }
        (if restarts { Greeting::Connected } else { greeting }, self.log.id(self.seat.cursor))
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
