//! Stands in for the log that several servers share: only a server follows one.

use std::sync::Arc;

use super::backlog::Backlog;
use super::channel::{Channel, State};
use super::command::Reached;
use super::feed::View;
use super::pass::Window;
use super::shard::Common;
use crate::ids::{Mark, Topic};
use crate::time::Time;

/// There is none.
#[derive(Debug)]
pub(crate) enum SharedLog {}

// ===== impl SharedLog =====

impl SharedLog {
    pub(crate) fn applied(&self) -> Option<Mark> {
        match *self {}
    }

    pub(crate) fn has(&self, _: Mark) -> bool {
        match *self {}
    }
}

// ===== impl Channel =====

impl Channel {
    #[expect(clippy::unused_self, reason = "stands in")]
    pub(super) fn fill(&self, _: &mut State, _: View, _: Time) {}

    #[expect(clippy::unused_self, reason = "stands in")]
    pub(super) fn fill_new(&self, _: Time) {}

    #[expect(clippy::unused_self, reason = "stands in")]
    pub(super) fn cut(self: &Arc<Self>, _: Window, _: Mark, _: Time) -> Option<Reached> {
        None
    }
}

// ===== impl Backlog =====

impl Backlog {
    pub(super) fn filled(_: &Topic, log: &SharedLog, _: &Common) -> Self {
        match *log {}
    }
}
