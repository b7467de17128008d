//! The burst window of a channel: what is published soon after an event is held back, and becomes one event
//! with the union of the keys.

#[cfg(feature = "server")]
mod state;

use indexmap::IndexSet;

use super::keys::Keys;
use crate::time::Time;

/// When the window closes, and the keys that are held until then.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    closes: Time,
    held: Option<Box<Burst>>,
}

/// What a window holds.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    pub(crate) keys: IndexSet<Box<str>>,
    pub(crate) kept: Kept,
}

/// Which keys of a burst are left: where they are more than one event may have, subscribers have to re-read everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    #[default]
    All,
    /// They are too many for an event of the members' view, and these are all that the public sees.
    Public,
    /// They are too many for both views.
    Nothing,
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
    pub(crate) fn hold(
        &mut self,
        keys: &Keys<'_>,
        keys_max: usize,
        is_public: impl Fn(&str) -> bool,
    ) -> bool {
        let first = self.held.is_none();
        let Burst { keys: held, kept } = &mut **self.held.get_or_insert_default();
        for key in keys.iter() {
            let keeps = match kept {
                Kept::All => true,
                Kept::Public => is_public(key),
                Kept::Nothing => false,
            };
            if keeps && !held.contains(key) {
                held.insert(key.into());
            }
        }
        if held.len() > keys_max && *kept == Kept::All {
            *kept = Kept::Public;
            held.retain(|key| is_public(key));
        }
        if held.len() > keys_max {
            *kept = Kept::Nothing;
            *held = IndexSet::new();
        }
        first
    }

    /// Too many keys are held for any event. Returns whether these are the first.
    #[cfg(feature = "server")]
    pub(crate) fn hold_too_much(&mut self) -> bool {
        let first = self.held.is_none();
        self.held = Some(Box::new(Burst { keys: IndexSet::new(), kept: Kept::Nothing }));
        first
    }

    /// Takes out what is held.
    pub(crate) fn release(&mut self) -> Option<Burst> {
        self.held.take().map(|held| *held)
    }
}
