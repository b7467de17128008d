//! The topics of all orgs, apart from the orgs' own channels, with budgets of their own: neither can push the other out.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use super::batch::VISITS_PER_TURN;
use super::channel::Channel;
use super::shard::Common;
use crate::ids::Topic;
use crate::sync::Mutex;
use crate::time::Time;
use crate::wire::MemoryUse;

/// The topics of a hub. The streams of one org's topics spread over all partitions.
#[derive(Debug)]
pub(crate) struct Topics {
    partitions: [Mutex<Partition>; PARTITIONS],
    hasher: RandomState,
    common: Arc<Common>,
    closed: Mutex<Closed>,
}

/// Topics that were closed, some of whose streams may not have ended yet.
#[derive(Debug, Default)]
struct Closed {
    channels: Vec<Weak<Channel>>,
    /// The number beyond which those that are over are forgotten before the next tick.
    scan_beyond: usize,
}

type Partition = HashMap<Topic, Arc<Channel>>;

/// What all topics of a hub share.
#[derive(Debug, Default)]
pub(crate) struct TopicsUse {
    /// The memory of all that they keep, and of events that are gone and that streams still refer to.
    pub(crate) memory: Arc<MemoryUse>,
    idle: Mutex<Idle>,
}

/// The topics without a subscriber, by when they expire.
#[derive(Debug, Default)]
struct Idle {
    topics: BTreeMap<IdleKey, Weak<Channel>>,
    numbered: u64,
}

/// When a topic expires, and a number that keeps the times apart.
pub(crate) type IdleKey = (Time, u64);

/// One is enough for loom, which would explore them all.
const PARTITIONS: usize = if cfg!(nudged_loom) { 1 } else { 64 };

/// Closed topics that are listed without a scan.
const CLOSED_MIN: usize = 64;

// ===== impl Topics =====

impl Topics {
    pub(crate) fn new(common: Arc<Common>) -> Self {
        let partitions = std::array::from_fn(|_| Mutex::default());
        Self { partitions, hasher: RandomState::new(), common, closed: Mutex::default() }
    }

    /// The channel of a topic, a new one if it has none, for which those may be removed that have been idle longest.
    pub(crate) fn get_or_create(&self, topic: &Topic, now: Time) -> Arc<Channel> {
        if let Some(channel) = self.partition(topic).lock().get(topic) {
            return channel.clone();
        }
        self.evict_excess();
        let mut partition = self.partition(topic).lock();
        if let Some(channel) = partition.get(topic) {
            return channel.clone();
        }
        let channel = Arc::new(Channel::of_topic(topic, self.common.clone(), now));
        channel.state.lock().list_if_idle(&channel);
        partition.insert(topic.clone(), channel.clone());
        drop(partition);
        if self.common.log.is_some() {
            // It may have been filled.
            self.evict_for(&channel);
            channel.evict_own();
        }
        channel
    }

    /// The channel of a topic, a new one if it has none, for which no other is removed.
    #[cfg(feature = "server")]
    pub(super) fn get_or_take_up(&self, topic: &Topic, now: Time) -> Arc<Channel> {
        let mut partition = self.partition(topic).lock();
        let channel = partition.entry(topic.clone()).or_insert_with(|| {
            let channel = Arc::new(Channel::of_topic(topic, self.common.clone(), now));
            channel.state.lock().list_if_idle(&channel);
            channel
        });
        channel.clone()
    }

    /// Adds the channel of a topic, for which no other is removed. Returns whether it had none.
    #[cfg(feature = "server")]
    pub(super) fn add(&self, topic: &Topic, channel: &Arc<Channel>) -> bool {
        let mut partition = self.partition(topic).lock();
        let is_new = !partition.contains_key(topic);
        if is_new {
            channel.state.lock().list_if_idle(channel);
            partition.insert(topic.clone(), channel.clone());
        }
        is_new
    }

    /// Forgets a topic that is not in use yet.
    #[cfg(feature = "server")]
    pub(super) fn forget(&self, topic: &Topic) {
        let Some(channel) = self.partition(topic).lock().remove(topic) else { return };
        let mut state = channel.state.lock();
        state.removed = true;
        state.list_if_idle(&channel);
    }

    /// The channel of a topic; a new one if it has none, and no other has to be removed for it. Else topics that are
    /// published to in turn would remove each other, and with a log each would be filled with all its events again.
    #[cfg(feature = "server")]
    pub(crate) fn get_or_add(&self, topic: &Topic, now: Time) -> Option<Arc<Channel>> {
        let known = self.get(topic);
        known.or_else(|| self.has_room().then(|| self.get_or_create(topic, now)))
    }

    /// Whether one more without a stream may be kept. Of the memory an eighth is left to those that there are.
    #[cfg(feature = "server")]
    fn has_room(&self) -> bool {
        let TopicsUse { memory, idle } = &self.common.topics;
        let config = &self.common.config;
        let most = config.topics_bytes_total - config.topics_bytes_total / 8;
        memory.bytes() <= most as u64 && idle.lock().topics.len() < config.idle_topics_max
    }

    /// The channel of a topic, if it has one.
    pub(crate) fn get(&self, topic: &Topic) -> Option<Arc<Channel>> {
        self.partition(topic).lock().get(topic).cloned()
    }

    /// Removes a topic, whose streams `close` ends, unless that returns `None`. Returns what `close` returns.
    pub(crate) fn close<T>(
        &self,
        topic: &Topic,
        close: impl FnOnce(&Arc<Channel>) -> Option<T>,
    ) -> Option<(Arc<Channel>, T)> {
        let mut partition = self.partition(topic).lock();
        let channel = partition.get(topic)?.clone();
        let closed = close(&channel)?;
        partition.remove(topic);
        give_back(&mut partition);
        self.closed.lock().add(&channel);
        Some((channel, closed))
    }

    /// Removes topics that have been idle for too long, or that are too many, and forgets those that were closed and are
    /// over.
    pub(crate) fn tidy(&self, now: Time) {
        let idle = &self.common.topics.idle;
        for _ in 0..VISITS_PER_TURN {
            let Some((key, channel)) = idle.lock().first_until(now) else { break };
            self.remove(key, &channel);
        }
        self.evict_excess();
        self.closed.lock().forget();
    }

    /// Removes the topics that have been idle longest, if there are too many.
    pub(crate) fn evict_excess(&self) {
        let (idle, max) = (&self.common.topics.idle, self.common.config.idle_topics_max);
        loop {
            // The list's lock comes after those of partitions and channels.
            let Some((key, channel)) = idle.lock().first_beyond(max) else { return };
            self.remove(key, &channel);
        }
    }

    /// Removes topics, the longest idle first, but not `spared`, until what topics keep is within the bound, as far as
    /// that goes.
    pub(crate) fn evict_for(&self, spared: &Arc<Channel>) {
        let max = self.common.config.topics_bytes_total as u64;
        let TopicsUse { memory, idle } = &self.common.topics;
        while memory.bytes() > max {
            let Some((key, channel)) = idle.lock().first_but(spared) else { return };
            self.remove(key, &channel);
        }
    }

    /// The topics of one partition, to be visited without its lock; those that were closed are the last one. `None`
    /// behind it.
    pub(crate) fn channels_of(&self, partition: usize) -> Option<Vec<Arc<Channel>>> {
        match partition {
            0..PARTITIONS => Some(self.partitions[partition].lock().values().cloned().collect()),
            PARTITIONS => {
                Some(self.closed.lock().channels.iter().filter_map(Weak::upgrade).collect())
            }
            _ => None,
        }
    }

    /// Topics that are kept.
    pub(crate) fn len(&self) -> usize {
        self.partitions.iter().map(|partition| partition.lock().len()).sum()
    }

    /// Seats of all topics, and of those that were closed.
    pub(crate) fn seats(&self) -> usize {
        let channels = (0..).map_while(|partition| self.channels_of(partition)).flatten();
        channels.map(|channel| channel.state.lock().seats()).sum()
    }

    /// Removes a topic that was idle under this key, unless it has been in use since.
    fn remove(&self, key: IdleKey, channel: &Weak<Channel>) {
        let Some(channel) = channel.upgrade() else { return };
        let Some(topic) = channel.topic() else { return };
        let mut partition = self.partition(&topic).lock();
        let removed = channel.retire_topic(key).then(|| partition.remove(&topic));
        give_back(&mut partition);
        drop(partition);
        // Its events are freed without a lock.
        drop(removed);
    }

    fn partition(&self, topic: &Topic) -> &Mutex<Partition> {
        let hash = self.hasher.hash_one(topic);
        &self.partitions[usize::try_from(hash % PARTITIONS as u64).expect("a partition")]
    }
}

/// Gives memory back as a partition empties.
fn give_back(partition: &mut Partition) {
    if partition.len() * 4 < partition.capacity() {
        partition.shrink_to(partition.len() * 2);
    }
}

// ===== impl Closed =====

impl Closed {
    /// Each one keeps its channel's block allocated, so they are scanned as soon as there may be twice as many as are in
    /// use.
    fn add(&mut self, channel: &Arc<Channel>) {
        if self.channels.len() >= self.scan_beyond.max(CLOSED_MIN) {
            self.forget();
        }
        self.channels.push(Arc::downgrade(channel));
    }

    /// Forgets those that are over.
    fn forget(&mut self) {
        self.channels.retain(|channel| channel.strong_count() > 0);
        if self.channels.len() * 4 < self.channels.capacity() {
            self.channels.shrink_to_fit();
        }
        self.scan_beyond = self.channels.len() * 2;
    }
}

// ===== impl TopicsUse =====

impl TopicsUse {
    /// Lists an idle topic, which is removed once it expires, or earlier to make room.
    pub(crate) fn add_idle(&self, expires: Time, channel: &Arc<Channel>) -> IdleKey {
        let mut idle = self.idle.lock();
        idle.numbered += 1;
        let key = (expires, idle.numbered);
        idle.topics.insert(key, Arc::downgrade(channel));
        key
    }

    /// The topic is in use, or gone.
    pub(crate) fn remove_idle(&self, key: IdleKey) {
        self.idle.lock().topics.remove(&key);
    }
}

// ===== impl Idle =====

impl Idle {
    /// Takes out the first one that has expired.
    fn first_until(&mut self, now: Time) -> Option<(IdleKey, Weak<Channel>)> {
        let first = self.topics.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove_entry())
    }

    /// Takes out the first one, if there are more than `max`.
    fn first_beyond(&mut self, max: usize) -> Option<(IdleKey, Weak<Channel>)> {
        if self.topics.len() > max { self.topics.pop_first() } else { None }
    }

    /// Takes out the first one that is not `spared`.
    fn first_but(&mut self, spared: &Arc<Channel>) -> Option<(IdleKey, Weak<Channel>)> {
        let is_spared = |channel: &Weak<Channel>| channel.as_ptr() == Arc::as_ptr(spared);
        let (key, _) = self.topics.iter().find(|(_, channel)| !is_spared(channel))?;
        let key = *key;
        self.topics.remove_entry(&key)
    }
}
