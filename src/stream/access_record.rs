//! What the access log has of a stream, once it has ended.

use std::net::IpAddr;
use std::time::Duration;

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
    pub(crate) client: IpAddr,
    pub(crate) reason: CloseReason,
    /// How long it was open.
    pub(crate) lasted: Duration,
    /// Events that it has delivered.
    pub(crate) events: u64,
}

/// What is known of a stream while it is open. Only a stream that is logged has this.
#[derive(Debug)]
pub(crate) struct AccessRecord {
    clock: Clock,
    /// Of `clock`.
    opened: Duration,
    client: IpAddr,
    events: u64,
    log: fn(&Ended<'_>),
}

// ===== impl AccessRecord =====

impl AccessRecord {
    /// That of a stream which this client opens now. At its end, `log` is called.
    #[cfg(feature = "server")]
    pub(crate) fn new(clock: Clock, client: IpAddr, log: fn(&Ended<'_>)) -> Self {
        Self { clock, opened: clock.elapsed(), client, events: 0, log }
    }

    pub(super) fn count(&mut self, events: u64) {
        self.events += events;
    }

    /// The stream has ended.
    pub(super) fn end(&self, of: &Subscription) {
        (self.log)(&Ended {
            org: of.org(),
            topic: of.topic(),
            view: of.view(),
            client: self.client,
            reason: of.ends_for(),
            lasted: self.clock.elapsed().saturating_sub(self.opened),
            events: self.events,
        });
    }
}
