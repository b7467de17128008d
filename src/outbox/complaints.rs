//! Lines in the server's log about rows that cannot be published: one a minute for each kind of reason.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use super::rows::Unusable;
use crate::http::Reject;

/// What was found, by the kind of the reason. There are few kinds.
#[derive(Debug, Default)]
pub(super) struct Complaints(HashMap<Kind, Complaint>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    Reject(Discriminant<Reject>),
    Unusable(Unusable),
}

#[derive(Debug)]
struct Complaint {
    /// Rows since the last line.
    unwritten: u64,
    /// When a line may be written again.
    next: Duration,
}

const PERIOD: Duration = Duration::from_secs(60);

/// Characters of a reason that are shown: it quotes the row.
const WHY_MAX: usize = 300;

// ===== impl Complaints =====

impl Complaints {
    /// A row is not what may be published.
    pub(super) fn rejected(&mut self, id: i64, why: &Reject, now: Duration) {
        self.add(Kind::Reject(discriminant(why)), id, &why.reason(), now);
    }

    /// A row is no line.
    pub(super) fn unusable(&mut self, id: i64, why: Unusable, now: Duration) {
        self.add(Kind::Unusable(why), id, &why.to_string(), now);
    }

    fn add(&mut self, kind: Kind, id: i64, why: &str, now: Duration) {
        let complaint =
            self.0.entry(kind).or_insert(Complaint { unwritten: 0, next: Duration::ZERO });
        complaint.unwritten += 1;
        if now < complaint.next {
            return;
        }
        let rows = complaint.unwritten;
        *complaint = Complaint { unwritten: 0, next: now + PERIOD };
        let why: String = why.chars().take(WHY_MAX).collect();
        tracing::warn!(id, rows, why, "a row of the outbox cannot be published, and is deleted");
    }
}
