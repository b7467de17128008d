//! The burst window of a channel: what is published soon after an event is held back, and becomes one event
//! with the union of the keys.

use std::mem;

use indexmap::IndexSet;

use super::keys::Keys;
use crate::time::Time;

/// When the window closes, and the keys that are held until then.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    closes: Time,
    held: Option<Box<IndexSet<Box<str>>>>,
    /// More keys were held than one event may have.
    overflowed: bool,
}

/// What a window held.
#[derive(Debug)]
pub(crate) enum Burst {
    Keys(Box<IndexSet<Box<str>>>),
    /// More keys than one event may have: subscribers have to re-read everything.
    TooMany,
}

// ===== impl Coalescer =====

impl Coalescer {
    /// An event was appended: the window is open until `closes`.
    pub(crate) fn open(&mut self, closes: Time) {
        self.closes = closes;
    }

    /// Whether a publish has to be held back.
    pub(crate) fn is_open(&self, now: Time) -> bool {
        self.is_holding() || now < self.closes
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    pub(crate) fn closes(&self) -> Time {
        self.closes
    }

    /// Adds to what is held. Returns whether these are the first keys.
    pub(crate) fn hold(&mut self, keys: &Keys<'_>, keys_max: usize) -> bool {
        let first = self.held.is_none();
        let held = self.held.get_or_insert_default();
        if self.overflowed {
            return first;
        }
        for key in keys.iter() {
            if !held.contains(key) {
                held.insert(key.into());
            }
        }
        if held.len() > keys_max {
            self.overflowed = true;
            **held = IndexSet::new();
        }
        first
    }

    /// Takes out what is held.
    pub(crate) fn release(&mut self) -> Option<Burst> {
        let held = self.held.take()?;
        let overflowed = mem::take(&mut self.overflowed);
        Some(if overflowed { Burst::TooMany } else { Burst::Keys(held) })
    }
}
