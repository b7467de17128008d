//! Checks the promise of one stream: every event in order, or `connected`.
//!
//! Two sequences must have no gap: the server's event ids of an org, and the numbers in the keys, which
//! the publisher counts independently.

use nudged::ids::EventId;
use nudged::wire::Event;
use serde::Deserialize;

/// The position of one subscriber.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    at: Option<EventId>,
    /// The last number received; `None` after `connected`, until the next.
    number: Option<u64>,
    /// Whether this connection has received its first event.
    greeted: bool,
}

/// The meaning of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Received {
    /// The greeting of a fresh stream, or of one that resumed too late.
    Connected,
    /// The greeting of a stream that resumed.
    Resumed,
    /// `connected` on a live stream: re-read everything.
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

/// A key that is only sent in incomplete requests: it must never arrive.
pub(crate) const NEVER: &str = "never";

// ===== impl Checker =====

impl Checker {
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Whether this is the last number received.
    pub(crate) fn is_at(&self, number: u64) -> bool {
        self.greeted && self.number == Some(number)
    }

    /// Keeps the position for the next connection.
    pub(crate) fn disconnect(&mut self) {
        self.greeted = false;
    }

    /// # Errors
    /// The promise that the event breaks.
    pub(crate) fn check(&mut self, event: &Event) -> Result<Received, String> {
        let id: EventId = event.id.parse().map_err(|why| format!("{:?}: {why}", event.id))?;
        let is_greeting = !std::mem::replace(&mut self.greeted, true);
        let received = match (event.name.as_str(), is_greeting) {
            ("connected", _) => self.reread(id, is_greeting)?,
            ("resumed", true) if self.at == Some(id) => Received::Resumed,
            ("invalidate", false) => self.invalidate(id, &event.data)?,
            (name, _) => return Err(format!("{name:?} with {id} after {}", self.position())),
        };
        self.at = Some(id);
        Ok(received)
    }

    fn reread(&mut self, id: EventId, is_greeting: bool) -> Result<Received, String> {
        if self.at.is_some_and(|at| at.epoch == id.epoch && at.seq > id.seq) {
            return Err(format!("connected goes back to {id} from {}", self.position()));
        }
        self.number = None;
        Ok(if is_greeting { Received::Connected } else { Received::Reread })
    }

    fn invalidate(&mut self, id: EventId, data: &str) -> Result<Received, String> {
        if !self.at.is_some_and(|at| at.epoch == id.epoch && at.seq + 1 == id.seq) {
            return Err(format!("event {id} after {}", self.position()));
        }
        let data: Data<'_> = serde_json::from_str(data).map_err(|why| format!("{data}: {why}"))?;
        for key in data.keys {
            let number = key.strip_prefix("n:").and_then(|number| number.parse().ok());
            let number = number.ok_or_else(|| format!("the key {key:?} was never published"))?;
            if self.number.is_some_and(|last| last + 1 != number) {
                return Err(format!("number {number} after {}", self.position()));
            }
            self.number = Some(number);
        }
        Ok(Received::Invalidate)
    }

    fn position(&self) -> String {
        let at = self.at.map_or_else(|| "nothing".into(), |at| at.to_string());
        self.number.map_or_else(|| at.clone(), |number| format!("{at} (number {number})"))
    }
}
