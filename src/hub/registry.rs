//! The channels of orgs, in partitions behind a lock each. Those of topics are in [`Topics`](super::topics::Topics).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::channel::Channel;
use super::shard::Common;
use crate::ids::OrgName;
use crate::sync::Mutex;
use crate::time::{Tick, Time};

/// The channels of the orgs of a hub.
#[derive(Debug)]
pub(crate) struct Registry {
    partitions: [Mutex<Partition>; PARTITIONS],
    hasher: RandomState,
    common: Arc<Common>,
}

/// The channels of some of the orgs.
#[derive(Debug, Default)]
struct Partition {
    channels: HashMap<OrgName, Arc<Channel>>,
    /// The number of channels beyond which the next insertion scans for idle ones.
    scan_beyond: usize,
}

/// One partition is tidied at every tick. One is enough for loom, which would explore them all.
pub(super) const PARTITIONS: usize = if cfg!(nudged_loom) { 1 } else { 64 };

// ===== impl Registry =====

impl Registry {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        let partitions = std::array::from_fn(|_| Mutex::new(Partition::default()));
        Self { partitions, hasher: RandomState::new(), common }
    }

    pub(crate) fn get(&self, org: &OrgName) -> Option<Arc<Channel>> {
        self.partition(org.as_str()).lock().channels.get(org).cloned()
    }

    /// The same, by the text of its name.
    #[cfg(feature = "server")]
    pub(crate) fn get_named(&self, org: &str) -> Option<Arc<Channel>> {
        self.partition(org).lock().channels.get(org).cloned()
    }

    /// The channel of an org, a new one if it has none.
    pub(crate) fn get_or_create(&self, org: &OrgName, now: Time) -> Arc<Channel> {
        let mut partition = self.partition(org.as_str()).lock();
        if let Some(channel) = partition.channels.get(org) {
            return channel.clone();
        }
        let channel = Arc::new(Channel::new(org.clone(), self.common.clone(), now));
        channel.fill_new(now);
        partition.insert(channel.clone(), self.idle_max());
        channel
    }

    /// The channel of an org, a new one if it has none, for which no other is removed.
    #[cfg(feature = "server")]
    pub(super) fn get_or_take_up(&self, org: &OrgName, now: Time) -> Arc<Channel> {
        let channels = &mut self.partition(org.as_str()).lock().channels;
        let channel = channels.entry(org.clone()).or_insert_with(|| {
            let channel = Arc::new(Channel::new(org.clone(), self.common.clone(), now));
            channel.fill_new(now);
            channel
        });
        channel.clone()
    }

    /// Adds a channel, for which none is removed. Returns whether its org had none.
    #[cfg(feature = "server")]
    pub(super) fn add(&self, channel: Arc<Channel>) -> bool {
        let channels = &mut self.partition(channel.org.as_str()).lock().channels;
        let is_new = !channels.contains_key(&channel.org);
        if is_new {
            channels.insert(channel.org.clone(), channel);
        }
        is_new
    }

    /// Forgets the channel of an org that is not in use yet.
    #[cfg(feature = "server")]
    pub(super) fn forget(&self, org: &str) {
        self.partition(org).lock().channels.remove(org);
    }

    /// Tidies every partition.
    #[cfg(feature = "server")]
    pub(super) fn tidy_all(&self, now: Time) {
        self.partitions.iter().for_each(|partition| partition.lock().tidy(now, self.idle_max()));
    }

    /// In one partition, forgets events that are too old and orgs that no client can resume any more. Each
    /// tick is for the next partition.
    pub(crate) fn tidy(&self, tick: Tick, now: Time) {
        self.partitions[tick.0 as usize % PARTITIONS].lock().tidy(now, self.idle_max());
    }

    /// The channels of one partition, to be visited without its lock; `None` behind the last partition.
    pub(crate) fn channels_of(&self, partition: usize) -> Option<Vec<Arc<Channel>>> {
        let partition = self.partitions.get(partition)?.lock();
        Some(partition.channels.values().cloned().collect())
    }

    pub(crate) fn sum(&self, of: impl Fn(&Channel) -> usize) -> usize {
        let sum = |partition: &Mutex<Partition>| {
            partition.lock().channels.values().map(|channel| of(channel)).sum::<usize>()
        };
        self.partitions.iter().map(sum).sum()
    }

    fn partition(&self, org: &str) -> &Mutex<Partition> {
        let hash = self.hasher.hash_one(org);
        &self.partitions[usize::try_from(hash % PARTITIONS as u64).expect("a partition")]
    }

    /// Idle orgs in one partition.
    fn idle_max(&self) -> usize {
        self.common.config.idle_channels_max / PARTITIONS
    }
}

// ===== impl Partition =====

impl Partition {
    /// Adds a channel, for which the channels that have been idle longest may be removed. Returns how many
    /// were scanned to find them.
    fn insert(&mut self, channel: Arc<Channel>, idle_max: usize) -> usize {
        let scans = self.channels.len() > self.scan_beyond.max(idle_max);
        let scanned = if scans { self.evict_idle(idle_max) } else { 0 };
        self.channels.insert(channel.org.clone(), channel);
        scanned
    }

    fn tidy(&mut self, now: Time, idle_max: usize) {
        self.channels.retain(|_, channel| !(channel.expire(now) && channel.retire()));
        if self.channels.len() > idle_max {
            self.evict_idle(idle_max);
        }
        if self.channels.len() * 4 < self.channels.capacity() {
            self.channels.shrink_to_fit();
        }
    }

    /// Removes idle channels, the longest idle first, down to three quarters of `idle_max` if they are more.
    /// Returns how many channels were scanned. The cost is amortised: the next scan happens after at least
    /// max(idle_max/4, scanned/8) insertions, the latter because a scan over many subscribed orgs may find
    /// none to remove.
    fn evict_idle(&mut self, idle_max: usize) -> usize {
        let scanned = self.channels.len();
        let idle = self.channels.values().filter_map(|c| Some((c.idle_since()?, c.org.clone())));
        let mut idle: Vec<_> = idle.collect();
        if idle.len() > idle_max {
            idle.sort_unstable();
            let excess = idle.len() - idle_max * 3 / 4;
            for (_, org) in idle.into_iter().take(excess) {
                if self.channels[&org].retire() {
                    self.channels.remove(&org);
                }
            }
        }
        self.scan_beyond = self.channels.len() + (idle_max / 4).max(scanned / 8);
        scanned
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::config::HubConfig;
    use crate::hub::View;
    use crate::hub::shard::ShardId;
    use crate::ids::Seq;

    /// SCENARIO: more orgs have subscribers than the limit of idle orgs.
    /// BUG: every new org scanned all the others under the lock, and found none to evict.
    /// FIX: the next scan happens only after enough inserts to amortise it.
    #[test]
    fn orgs_with_subscribers_are_scanned_a_constant_number_of_times() {
        let common = Arc::new(Common::new(HubConfig::default(), 1));
        let (mut partition, mut scanned) = (Partition::default(), 0);
        for n in 0..10_000 {
            let org = format!("org-{n}").parse().expect("a name");
            let channel = Arc::new(Channel::new(org, common.clone(), Time(0)));
            channel.state.lock().take_seat(ShardId(0), View::Member, Seq(0), Tick(0));
            scanned += partition.insert(channel, 16);
        }
        assert_eq!(partition.channels.len(), 10_000);
        assert!(scanned > 0);
        assert!(scanned <= 9 * 10_000, "{scanned} scanned for 10,000 orgs");
    }
}
