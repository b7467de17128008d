//! What the access log has of a stream, once it has ended.

use std::net::IpAddr;
use std::time::Duration;

#[cfg(feature = "server")]
use super::state::RecordState;
use crate::hub::{Subscription, View};
use crate::ids::{OrgName, TopicName};
use crate::metrics::CloseReason;
use crate::time::Clock;

/// A stream that has ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) org: &'a OrgName,
    pub(crate) topic: Option<&'a TopicName>,
    pub(crate) view: View,
    /// The address of its client, if that is known.
    pub(crate) client: Option<IpAddr>,
    pub(crate) reason: CloseReason,
    /// How long it was open.
    pub(crate) lasted: Duration,
    /// Events that it has delivered.
    pub(crate) events: u64,
}

/// What is known of a stream while it is open. Only a stream that is logged has this.
#[derive(Debug)]
pub(crate) struct AccessRecord {
    log: AccessLog,
    /// By the log's clock.
    opened: Duration,
    /// How long it had been open then, in an earlier process.
    before: Duration,
    client: Option<IpAddr>,
    events: u64,
}

/// What is called at the end of a stream, and the clock that says when that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLog {
    pub(crate) clock: Clock,
    pub(crate) log: fn(&Ended<'_>),
}

// ===== impl AccessRecord =====

impl AccessRecord {
    /// That of a stream which this client opens now. At its end, `log` is called.
    #[cfg(feature = "server")]
    pub(crate) fn new(clock: Clock, client: Option<IpAddr>, log: fn(&Ended<'_>)) -> Self {
        Self::begin(AccessLog { clock, log }, Duration::ZERO, client, 0)
    }

    /// What it takes with it into another process.
    #[cfg(feature = "server")]
    pub(super) fn export(&self) -> RecordState {
        let Self { log: _, opened: _, before: _, client, events } = self;
        let open_ms = u64::try_from(self.lasted().as_millis()).unwrap_or(u64::MAX);
        RecordState { open_ms, client: *client, events: *events }
    }

    /// That of a stream which goes on here.
    #[cfg(feature = "server")]
    pub(super) fn import(log: AccessLog, state: &RecordState) -> Self {
        let RecordState { open_ms, client, events } = *state;
        Self::begin(log, Duration::from_millis(open_ms), client, events)
    }

    #[cfg(feature = "server")]
    fn begin(log: AccessLog, before: Duration, client: Option<IpAddr>, events: u64) -> Self {
        Self { log, opened: log.clock.elapsed(), before, client, events }
    }

    /// How long it has been open.
    fn lasted(&self) -> Duration {
        self.before.saturating_add(self.log.clock.elapsed().saturating_sub(self.opened))
    }

    pub(super) fn count(&mut self, events: u64) {
        self.events = self.events.saturating_add(events);
    }

    /// The stream has ended.
    pub(super) fn end(&self, of: &Subscription) {
        (self.log.log)(&Ended {
            org: of.org(),
            topic: of.topic(),
            view: of.view(),
            client: self.client,
            reason: of.ends_for(),
            lasted: self.lasted(),
            events: self.events,
        });
    }
}
