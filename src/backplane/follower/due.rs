//! What is due after anything has happened: to open the log again, a barrier, a beat.

use super::{Action, Due, Follower, Reopen, STALLED, State, hex, new_tag};
use crate::backplane::broker::{Kind, Record};
use crate::backplane::payload::{Barrier, Beat, Cause};
use crate::time::Time;

// ===== impl Follower =====

impl Follower {
    /// Whatever is due, after anything has happened.
    pub(super) fn settle(&mut self, now: Time) {
        let is_current = self.is_current();
        let head = self.head.unwrap_or_default().position;
        let State::Reading(reading) = &mut self.state else { return };
        if self.beats.is_overdue(head, reading.progress, now) {
            return self.reopen(Reopen::Lost);
        }
        if !is_current {
            if now < reading.progress.after(STALLED) {
                return;
            }
            if self.stalled_at != Some(head) {
                self.stalled_at = Some(head);
                return self.reopen(Reopen::Stalled);
            }
            // The last records are missing in the log, maybe even the one that was read last. The next one shows it,
            // which may be a beat of this server.
            if reading.is_proven {
                reading.bounds.newest = head;
            }
        }
        // Without a record that has a tag there is no id with which a stream could resume.
        if reading.is_proven
            && self.tags.proof(head).is_some()
            && !std::mem::replace(&mut self.loaded, true)
        {
            self.actions.push_back(Action::Loaded);
        }
        let identity = &reading.bounds.identity;
        // An empty log has nothing that another run could have forgotten.
        let is_first = !self.adopted.has_kind(identity) && !self.has_applied;
        let is_another = !self.adopted.is(identity) && !is_first;
        self.barrier_due = match self.barrier_due {
            None if is_another => Some(Due { cause: Cause::Identity, after: 0, tag: None }),
            Some(Due { cause: Cause::Identity, .. }) if !is_another => None,
            due => due,
        };
        reading.barrier_sent &= self.barrier_due.is_some();
        let identity = reading.bounds.identity.clone();
        let (kind, payload) = if let Some(Due { cause, after, .. }) = self.barrier_due {
            if std::mem::replace(&mut reading.barrier_sent, true) {
                return;
            }
            let reason = cause.reason().into();
            let barrier = Barrier { identity, reason, cause: Some(cause), after };
            (Kind::Barrier, barrier.to_bytes())
        } else if self.beats.is_due(&self.rules, now) {
            let beat = Beat {
                identity,
                node: hex(self.rules.node),
                nudged: env!("CARGO_PKG_VERSION").into(),
                limits: hex(self.rules.limits),
            };
            (Kind::Beat, beat.to_bytes())
        } else {
            return;
        };
        let record = Record { tag: new_tag(), kind, payload };
        if let (Kind::Barrier, Some(due)) = (kind, &mut self.barrier_due) {
            due.tag = Some(record.tag);
        }
        self.beats.sent(record.tag, kind, now);
        self.actions.push_back(Action::Append(record));
    }
}

// ===== impl Cause =====

impl Cause {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Identity => {
                "the broker or its log is another one, and may have forgotten records"
            }
            Self::Forgot => "the log has lost records that it had",
            Self::Command => "a command",
        }
    }
}
