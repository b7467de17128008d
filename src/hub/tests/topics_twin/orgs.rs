//! Orgs on the hub of the topics, and the same orgs on a hub without topics.

use std::task::{Poll, Waker};

use crate::hub::{Hub, Keys, Subscription, View};
use crate::ids::{EventId, OrgName};
use crate::time::{Tick, Time};

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// With `resume`, the client of a stream that was dropped comes back.
    Subscribe {
        org: usize,
        view: View,
        resume: bool,
    },
    Publish {
        org: usize,
        keys: usize,
    },
    Read(usize),
    Drop(usize),
}

pub(super) struct Orgs {
    control: Hub,
    names: [OrgName; 2],
    streams: Vec<Stream>,
    /// The last ids of clients that are away, on either hub.
    away: Vec<(OrgName, View, [EventId; 2])>,
    published: usize,
}

/// One client on either hub.
struct Stream {
    org: OrgName,
    view: View,
    both: [Subscription; 2],
}

// ===== impl Orgs =====

impl Orgs {
    /// `control` has no topics. Topics are of the same orgs.
    pub(super) fn new(control: Hub, names: [OrgName; 2]) -> Self {
        Self { control, names, streams: Vec::new(), away: Vec::new(), published: 0 }
    }

    pub(super) fn apply(&mut self, hub: &Hub, step: &Step, now: u64) {
        let (hubs, now) = ([hub, &self.control], Time(now));
        let count = self.streams.len();
        match *step {
            Step::Subscribe { org, view, resume } => {
                let (org, view, ids) = match self.away.pop().filter(|_| resume) {
                    Some((org, view, ids)) => (org, view, ids.map(Some)),
                    None => (self.names[org].clone(), view, [None; 2]),
                };
                let open = |n: usize| hubs[n].subscribe(&org, view, ids[n], now).expect("open");
                let [ours, control] = [0, 1].map(open);
                assert_eq!(ours.1, control.1, "topics change what an org's history covers");
                self.streams.push(Stream { org, view, both: [ours.0, control.0] });
            }
            Step::Publish { org, keys } => {
                self.published += 1;
                let key = format!("{}{}", "k".repeat(keys), self.published);
                let keys = Keys::new([key.as_str(), "entity-types"], hub.config()).expect("two");
                let published = hubs.map(|hub| hub.publish(&self.names[org], &keys, now).id);
                let [ours, control] = published.map(|id| id.map(|id| id.seq));
                assert_eq!(ours, control);
            }
            Step::Read(stream) if count > 0 => self.streams[stream % count].read(),
            Step::Drop(stream) if count > 0 => {
                let Stream { org, view, both } = self.streams.swap_remove(stream % count);
                self.away.push((org, view, both.map(|one| one.position())));
            }
            Step::Read(_) | Step::Drop(_) => {}
        }
        let bytes = hubs.map(|hub| hub.shared.common.memory.bytes());
        assert_eq!(bytes[0], bytes[1], "topics count as the histories of orgs");
    }

    /// Seats of its streams, on the hub of the topics.
    pub(super) fn seats(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn tidy(&self, tick: u64, now: u64) {
        let driver = self.control.driver();
        driver.tick(Tick(u32::try_from(tick).expect("small")), &mut Vec::new());
        (0..64).for_each(|part| driver.tidy(Tick(part), Time(now)));
    }

    /// Every client reads to the end, and leaves.
    pub(super) fn settle(&mut self) {
        self.streams.iter_mut().for_each(Stream::read);
        self.streams.clear();
    }

    pub(super) fn leave(&mut self) {
        self.streams.clear();
    }
}

// ===== impl Stream =====

impl Stream {
    /// Reads all that there is.
    fn read(&mut self) {
        loop {
            let [ours, control] = self.both.each_mut().map(|one| {
                let epoch = one.position().epoch;
                match one.poll_next(Waker::noop()) {
                    Poll::Ready(Some(frame)) => {
                        let text = String::from_utf8(frame.payload().to_vec()).expect("UTF-8");
                        Some(text.replacen(&format!("{:016x}", epoch.0), "epoch", 1))
                    }
                    Poll::Ready(None) => Some("the end".to_owned()),
                    Poll::Pending => None,
                }
            });
            assert_eq!(ours, control, "topics change what an org's stream delivers");
            if ours.is_none_or(|text| text == "the end") {
                return;
            }
        }
    }
}
