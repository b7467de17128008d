//! What becomes of the actions of the follower.

use super::{Core, Runner, refuse};
use crate::backplane::broker::Broker;
use crate::backplane::follower::{Action, CutReason, Note};
use crate::backplane::outage::Ended;
use crate::ids::Mark;
use crate::metrics;

// ===== impl Runner =====

impl<B: Broker> Runner<B> {
    /// Does what the follower wants, in its order.
    pub(super) fn perform(&self, core: &mut Core) {
        let now = self.shared.clock.now();
        while let Some(action) = core.follower.action() {
            match action {
                Action::Begin(oldest) => self.hub.begin_log(oldest),
                Action::Apply(mark, lines) => {
                    let applied = self.hub.apply(mark, &lines, now);
                    metrics::add(&self.shared.counters.lines, applied.lines as u64);
                    metrics::add(&self.shared.counters.lines_skipped, applied.skipped as u64);
                    core.warnings.skipped(applied.skipped as u64);
                    core.attempts.came(mark, 0);
                }
                Action::Cut(mark, reason) => self.cut(core, mark, reason),
                Action::Append(record) => {
                    core.urgent.push(record);
                    self.shared.wake.notify_one();
                }
                Action::Reopen(reason) => {
                    core.reopen = Some(reason);
                    self.in_doubt.notify_one();
                }
                Action::Loaded => {
                    self.shared.status.lock().is_loaded = true;
                    tracing::info!("the log is loaded");
                }
                Action::Note(note) => self.note(core, note),
            }
        }
        if let Some(nodes) = core.follower.take_nodes() {
            *self.shared.nodes.lock() = nodes;
        }
        if core.follower.is_current() {
            // Before, one that can be read and refuses every record would be followed again and again.
            if core.follower.is_answered() {
                match core.warnings.outage.end() {
                    Some(Ended::Start) => tracing::info!("the log is followed"),
                    Some(Ended::Outage) => tracing::warn!("the log is followed"),
                    None => {}
                }
            }
            // What an earlier connection appended and is not there may still come: only what may be there twice is
            // appended again.
            let (again, lost) = core.attempts.take_lost();
            refuse(lost.into_iter());
            let waits = {
                let mut queue = self.shared.queue.lock();
                queue.push_front(again);
                !queue.is_empty()
            };
            if waits {
                self.shared.wake.notify_one();
            }
        }
        let mut status = self.shared.status.lock();
        status.lag = core.follower.lag(now);
        status.is_connected = core.follower.is_proven();
        if status.is_connected && status.why.is_some() && core.follower.is_current() {
            status.why = None;
        }
    }

    fn cut(&self, core: &mut Core, mark: Mark, reason: CutReason) {
        let streams = self.hub.cut(mark, self.shared.clock.now());
        if !self.shared.status.lock().is_loaded {
            // A record from before this server, which has had no stream yet.
            return core.attempts.came(mark, streams);
        }
        self.shared.counters.count_cut(reason);
        // There may be one after the other of an unknown version: of these there is a warning once a minute.
        if reason != CutReason::Version && core.warnings.barriers.take() {
            let (reason, position) = (reason.label(), mark.position);
            tracing::warn!(
                reason,
                position,
                streams,
                "all clients of this server re-read everything"
            );
        }
        core.attempts.came(mark, streams);
    }

    fn note(&self, core: &mut Core, note: Note) {
        match note {
            Note::Bad(position) => {
                metrics::add(&self.shared.counters.records_bad, 1);
                core.warnings.bad(position);
            }
            Note::Versions { records, version, position } => {
                metrics::add(&self.shared.counters.records_bad, records);
                core.warnings.versions(records, version, position);
            }
            Note::OtherLimits { node, version } => core.warnings.other_limits(node, version),
            Note::Barrier(reason) => {
                if core.warnings.barriers.take() {
                    tracing::info!(reason, "a barrier in the log");
                }
            }
        }
    }
}
