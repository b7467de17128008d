//! What one subscriber of the crowd holds the server to: every event in order, or `connected`.
//!
//! It is checked twice over. The server's ids of an org follow each other without a gap; and so do the
//! numbers in the keys, which the publisher counts by itself.

use nudged::ids::EventId;
use nudged::wire::Event;
use serde::Deserialize;

/// How far one subscriber is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Follower {
    at: Option<EventId>,
    /// The last number heard. None where it was told to re-read, until the next.
    number: Option<u64>,
    /// The first event of this connection has come.
    greeted: bool,
}

/// What an event was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// A fresh stream, or one that came back too late.
    Connected,
    /// A stream that came back.
    Resumed,
    /// A live stream was told to re-read everything.
    Reread,
    Invalidate,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    keys: Vec<&'a str>,
}

/// The key with this number.
pub(crate) fn key(number: u64) -> String {
    format!("n:{number}")
}

/// What is only ever sent in requests that are cut: nobody may hear of it.
pub(crate) const NEVER: &str = "never";

// ===== impl Follower =====

impl Follower {
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether it has heard this number and nothing since.
    pub(crate) fn is_at(&self, number: u64) -> bool {
        self.greeted && self.number == Some(number)
    }

    /// It goes, and will come back to where it was.
    pub(crate) fn leave(&mut self) {
        self.greeted = false;
    }

    /// # Errors
    /// The promise that the event breaks.
    pub(crate) fn hear(&mut self, event: &Event) -> Result<Heard, String> {
        let id: EventId = event.id.parse().map_err(|why| format!("{:?}: {why}", event.id))?;
        let greets = !std::mem::replace(&mut self.greeted, true);
        let heard = match (event.name.as_str(), greets) {
            ("connected", _) => self.reread(id, greets)?,
            ("resumed", true) if self.at == Some(id) => Heard::Resumed,
            ("invalidate", false) => self.invalidate(id, &event.data)?,
            (name, _) => return Err(format!("{name:?} with {id} after {}", self.place())),
        };
        self.at = Some(id);
        Ok(heard)
    }

    fn reread(&mut self, id: EventId, greets: bool) -> Result<Heard, String> {
        if self.at.is_some_and(|at| at.epoch == id.epoch && at.seq > id.seq) {
            return Err(format!("connected goes back to {id} from {}", self.place()));
        }
        self.number = None;
        Ok(if greets { Heard::Connected } else { Heard::Reread })
    }

    fn invalidate(&mut self, id: EventId, data: &str) -> Result<Heard, String> {
        if !self.at.is_some_and(|at| at.epoch == id.epoch && at.seq + 1 == id.seq) {
            return Err(format!("event {id} after {}", self.place()));
        }
        let data: Data<'_> = serde_json::from_str(data).map_err(|why| format!("{data}: {why}"))?;
        for key in data.keys {
            let number = key.strip_prefix("n:").and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| format!("the key {key:?} of no publish"))?;
            if self.number.is_some_and(|last| last + 1 != number) {
                return Err(format!("number {number} after {}", self.place()));
            }
            self.number = Some(number);
        }
        Ok(Heard::Invalidate)
    }

    fn place(&self) -> String {
        let at = self.at.map_or_else(|| "nothing".into(), |at| at.to_string());
        self.number.map_or_else(|| at.clone(), |number| format!("{at} (number {number})"))
    }
}
