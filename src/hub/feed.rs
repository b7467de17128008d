//! One view of a channel: the events that it shows, with ids of their own, and the seats of its streams.

use std::sync::Arc;

use smallvec::SmallVec;

use super::command::Commands;
use super::history::History;
use super::seat::Seat;
use super::seats::{SeatKey, Seats};
use super::shard::ShardId;
use crate::config::HubConfig;
use crate::ids::{Epoch, Seq};
use crate::wire::MemoryUse;

/// Which keys of an org a stream shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum View {
    /// Every key.
    Member,
    /// The keys on the public allowlist.
    Public,
}

/// What a channel has for one view.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) history: History,
    /// The seats by shard; a shard that never had one may be missing.
    pub(crate) shards: SmallVec<[Seats; 2]>,
    view: View,
    /// The head for which the seats were marked as dirty last.
    announced: Seq,
    /// The commands to the streams, until they are carried out.
    pub(crate) commands: Option<Box<Commands>>,
}

/// The feeds of a channel. The public one exists from the first public stream on, and as long as the channel: before
/// it there is no public id that could be resumed, so nothing is encoded for it.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) member: Feed,
    pub(crate) public: Option<Box<Feed>>,
}

// ===== impl Feed =====

impl Feed {
    pub(crate) fn new(view: View, epoch: Epoch, memory: Arc<MemoryUse>) -> Self {
        let history = History::new(epoch, memory);
        Self { history, shards: SmallVec::new(), view, announced: Seq(0), commands: None }
    }

    /// The seats of a shard, which it adds if they are missing.
    pub(crate) fn seats_mut(&mut self, shard: ShardId) -> &mut Seats {
        while self.shards.len() <= shard.index() {
            self.shards.push(Seats::of(self.view));
        }
        &mut self.shards[shard.index()]
    }

    /// Subscribers on all shards, counted in the slabs.
    pub(crate) fn seats(&self) -> usize {
        self.shards.iter().map(Seats::len).sum()
    }

    /// What was published is no event: every client has to re-read.
    pub(crate) fn lose(&mut self) {
        self.history.lose();
        self.trim_uncovered();
    }

    /// Whether the history has moved on since this was last called.
    pub(crate) fn has_moved(&mut self) -> bool {
        let head = self.history.head();
        std::mem::replace(&mut self.announced, head) != head
    }
}

// ===== impl Feeds =====

impl Feeds {
    pub(crate) fn get(&self, view: View) -> Option<&Feed> {
        match view {
            View::Member => Some(&self.member),
            View::Public => self.public.as_deref(),
        }
    }

    pub(crate) fn get_mut(&mut self, view: View) -> Option<&mut Feed> {
        match view {
            View::Member => Some(&mut self.member),
            View::Public => self.public.as_deref_mut(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Feed> {
        std::iter::once(&self.member).chain(self.public.as_deref())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (View, &mut Feed)> {
        let public = self.public.as_deref_mut().map(|feed| (View::Public, feed));
        std::iter::once((View::Member, &mut self.member)).chain(public)
    }

    /// The seat with this key, unless it has been freed.
    pub(crate) fn seat_mut(&mut self, shard: ShardId, key: SeatKey) -> Option<&mut Seat> {
        self.get_mut(key.view())?.shards.get_mut(shard.index())?.get_mut(key)
    }

    /// Subscribers of both views.
    pub(crate) fn seats(&self) -> usize {
        self.iter().map(Feed::seats).sum()
    }

    /// Evicts the oldest events until the histories have room for an event of this cost in the feed of `view`, or
    /// `None` once it is appended. Of the two, the larger one gives way, so that events that the public does not see
    /// cannot push those out that it does. The newest event of each is kept.
    pub(crate) fn make_room(
        &mut self,
        view: View,
        cost: Option<usize>,
        config: &HubConfig,
        memory: &MemoryUse,
    ) {
        let more = cost.unwrap_or(0);
        // What is appended will be the newest.
        let keeps = |of: View| usize::from(of != view || cost.is_none());
        let is_over = |feeds: &Self| {
            let bytes: usize = feeds.iter().map(|feed| feed.history.bytes()).sum();
            bytes + more > config.history_bytes
                || memory.bytes() > config.history_bytes_total as u64
        };
        while is_over(self) {
            let evictable = self.iter_mut().filter(|(of, feed)| feed.history.len() > keeps(*of));
            let size =
                |of: View, feed: &Feed| feed.history.bytes() + if of == view { more } else { 0 };
            let Some((_, feed)) = evictable.max_by_key(|(of, feed)| size(*of, feed)) else {
                return;
            };
            feed.history.evict();
            feed.trim_uncovered();
        }
    }
}
