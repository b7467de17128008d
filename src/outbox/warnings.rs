//! Lines in the server's log about rows that cannot be published: one a minute for each kind of reason.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use super::rows::Unusable;
use crate::backplane::AppendError;
use crate::backplane::outage::PERIOD;
use crate::http::Reject;

/// What was found, by the kind of the reason. There are few kinds.
#[derive(Debug, Default)]
pub(super) struct Warnings(HashMap<Kind, Warning>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    Reject(Discriminant<Reject>),
    Unusable(Unusable),
    /// For the log.
    TooLarge,
}

#[derive(Debug)]
struct Warning {
    /// Rows since the last line.
    unwritten: u64,
    /// When a line may be written again.
    next: Duration,
}

/// Characters of a reason that are shown: it quotes the row.
const WHY_MAX: usize = 300;

// ===== impl Warnings =====

impl Warnings {
    /// A row is not what may be published.
    pub(super) fn rejected(&mut self, id: i64, why: &Reject, now: Duration) {
        self.add(Kind::Reject(discriminant(why)), id, &why.reason(), now);
    }

    /// A row is no line.
    pub(super) fn unusable(&mut self, id: i64, why: Unusable, now: Duration) {
        self.add(Kind::Unusable(why), id, &why.to_string(), now);
    }

    /// A row is larger than a record of the log, of so many bytes.
    pub(super) fn not_in_a_record(&mut self, id: i64, max: usize, now: Duration) {
        self.add(Kind::TooLarge, id, &AppendError::TooLarge { max }.to_string(), now);
    }

    fn add(&mut self, kind: Kind, id: i64, why: &str, now: Duration) {
        let warning = self.0.entry(kind).or_insert(Warning { unwritten: 0, next: Duration::ZERO });
        warning.unwritten += 1;
        if now < warning.next {
            return;
        }
        let rows = warning.unwritten;
        *warning = Warning { unwritten: 0, next: now + PERIOD };
        let why: String = why.chars().take(WHY_MAX).collect();
        tracing::warn!(id, rows, why, "a row of the outbox cannot be published, and is deleted");
    }
}
