//! A part of the registry, behind a lock of its own: the channels by their orgs.

use std::collections::HashMap;
use std::sync::Arc;

use super::channel::Channel;
use crate::ids::{OrgName, Time};

/// Channels by org.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    channels: HashMap<OrgName, Arc<Channel>>,
    /// The number of channels beyond which idle ones are looked for.
    look_beyond: usize,
}

// ===== impl Partition =====

impl Partition {
    pub(crate) fn get(&self, org: &OrgName) -> Option<&Arc<Channel>> {
        self.channels.get(org)
    }

    /// Adds a channel, for which one that has been idle for long may have to go. Returns how many
    /// channels were looked at to find it.
    pub(crate) fn insert(&mut self, channel: Arc<Channel>, idle_max: usize) -> usize {
        let looks = self.channels.len() > self.look_beyond.max(idle_max);
        let looked_at = if looks { self.evict_idle(idle_max) } else { 0 };
        self.channels.insert(channel.org.clone(), channel);
        looked_at
    }

    /// Forgets the history that is too old and the orgs that nobody can come back to.
    pub(crate) fn tidy(&mut self, now: Time, idle_max: usize) {
        self.channels.retain(|_, channel| !(channel.expire(now) && channel.retire()));
        if self.channels.len() > idle_max {
            self.evict_idle(idle_max);
        }
        if self.channels.len() * 4 < self.channels.capacity() {
            self.channels.shrink_to_fit();
        }
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.channels.values()
    }

    /// Makes room among the orgs without subscribers, the longest idle first, if they are too many:
    /// down to three quarters. The walk is paid for by the orgs that may come before the next: as
    /// many as it made room for, and an eighth of those that it looked at, because with many
    /// subscribed orgs it may have found none to forget. Returns how many it looked at.
    fn evict_idle(&mut self, idle_max: usize) -> usize {
        let looked_at = self.channels.len();
        let mut idle: Vec<_> =
            self.channels().filter_map(|c| Some((c.idle_since()?, c.org.clone()))).collect();
        if idle.len() > idle_max {
            idle.sort_unstable();
            let excess = idle.len() - idle_max * 3 / 4;
            for (_, org) in idle.into_iter().take(excess) {
                if self.channels[&org].retire() {
                    self.channels.remove(&org);
                }
            }
        }
        self.look_beyond = self.channels.len() + (idle_max / 4).max(looked_at / 8);
        looked_at
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::shard::{Common, Shard};
    use crate::ids::Epoch;
    use crate::sync::AtomicU64;

    /// SCENARIO: more orgs have subscribers than idle ones may be remembered.
    /// BUG: every new org looked at all the others, in vain, under the lock.
    /// FIX: after a walk, as many have to come as pay for the next one.
    #[test]
    fn orgs_with_subscribers_are_looked_at_a_constant_number_of_times() {
        let common = Arc::new(Common {
            config: HubConfig::default(),
            shards: [Shard::new()].into(),
            history_bytes: AtomicU64::new(0),
        });
        let (mut partition, mut looked_at) = (Partition::default(), 0);
        for n in 0..10_000 {
            let org = format!("org-{n}").parse().expect("a name");
            let channel = Arc::new(Channel::new(org, common.clone(), Epoch(n), Time(0)));
            channel.state.lock().seats_mut(0).take(0, 0);
            looked_at += partition.insert(channel, 16);
        }
        assert_eq!(partition.channels().count(), 10_000);
        assert!(looked_at > 0);
        assert!(looked_at <= 9 * 10_000, "{looked_at} looks for 10,000 orgs");
    }
}
