//! The records of this server that may be on their way, and what waits for each.

use std::collections::HashMap;
use std::time::Duration;

use super::Appended;
use super::queue::{Came, Group, Waiting};
use crate::ids::Mark;

/// The attempts to append, by the tag of their record. There is one at a time, and those of earlier connections for as
/// long as anything waits for them.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<u64, Attempt>);

#[derive(Debug)]
struct Attempt {
    /// Each with the number of events of its topic that follow.
    members: Vec<(Waiting, u32)>,
    /// Its connection has failed.
    is_in_doubt: bool,
}

// ===== impl Attempts =====

impl Attempts {
    pub(super) fn add(&mut self, tag: u64, group: Group) {
        let later = group.later();
        let members = group.members.into_iter().zip(later).collect();
        self.0.insert(tag, Attempt { members, is_in_doubt: false });
    }

    /// A record was applied, which had as many streams re-read.
    pub(super) fn came(&mut self, mark: Mark, streams: usize) {
        let Some(attempt) = self.0.remove(&mark.tag) else { return };
        for (waiting, later) in attempt.members {
            _ = waiting.reply.send(Ok(Came { appended: Appended { mark, later }, streams }));
        }
    }

    /// There is a new connection.
    pub(super) fn reopened(&mut self) {
        self.0.values_mut().for_each(|attempt| attempt.is_in_doubt = true);
    }

    /// Takes out those of earlier connections: what is appended again, and what is not. They are not in the log, and may
    /// come late: the broker may have bytes of a broken connection, or a record that its servers have yet to agree on.
    pub(super) fn take_lost(&mut self) -> (Vec<Waiting>, Vec<Waiting>) {
        let (mut again, mut lost) = (Vec::new(), Vec::new());
        if self.0.is_empty() {
            return (again, lost);
        }
        for (_, attempt) in self.0.extract_if(|_, attempt| attempt.is_in_doubt) {
            for (waiting, _) in attempt.members {
                if waiting.content.only_once() { &mut lost } else { &mut again }.push(waiting);
            }
        }
        again.sort_by_key(|waiting| waiting.since);
        (again, lost)
    }

    /// Takes out what has waited for too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting> {
        let mut expired = Vec::new();
        self.0.retain(|_, attempt| {
            expired.extend(attempt.members.extract_if(.., |(waiting, _)| waiting.until <= now));
            !attempt.members.is_empty()
        });
        expired.into_iter().map(|(waiting, _)| waiting).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
