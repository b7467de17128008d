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
        let mut members = group.members;
        members.iter_mut().for_each(|waiting| waiting.is_attempted = true);
        let members = members.into_iter().zip(later).collect();
        self.0.insert(tag, Attempt { members, is_in_doubt: false });
    }

    /// A record was applied, which had as many streams re-read.
    pub(super) fn came(&mut self, mark: Mark, streams: usize) {
        let Some(attempt) = self.0.remove(&mark.tag) else { return };
        for (waiting, later) in attempt.members {
            waiting.answer(Ok(Came { appended: Appended { mark, later }, streams }));
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
        again.sort_by_key(|waiting| waiting.queued_at);
        (again, lost)
    }

    /// Takes out what has waited for too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting> {
        let mut expired = Vec::new();
        self.0.retain(|_, attempt| {
            expired
                .extend(attempt.members.extract_if(.., |(waiting, _)| waiting.expires_at <= now));
            !attempt.members.is_empty()
        });
        expired.into_iter().map(|(waiting, _)| waiting).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::AppendError;
    use crate::backplane::queue::{Content, Queue};

    /// Its second record may be delayed by others for so long that it is never appended.
    #[test]
    fn what_waits_to_be_appended_again_may_have_been_stored() {
        let (mut queue, mut attempts) = (Queue::new(), Attempts::default());
        let until = Duration::from_secs(5);
        let replies = [until, until * 2].map(|until| {
            let content = Content::Barrier("restored".into());
            queue.push(content, Duration::ZERO, until).expect("there is room")
        });
        attempts.add(1, queue.take().into_group().expect("the first one"));
        attempts.reopened();
        let (again, lost) = attempts.take_lost();
        assert_eq!((again.len(), lost.len()), (1, 0));
        queue.push_front(again);
        let expired = queue.expire(until).into_iter().chain(queue.expire(until * 2));
        expired.for_each(|waiting| waiting.refuse(AppendError::NotAppended));
        let refused = replies.map(|mut reply| reply.try_recv().expect("a reply").map(|_| ()));
        assert_eq!(refused, [Err(AppendError::Unavailable), Err(AppendError::NotAppended)]);
    }
}
