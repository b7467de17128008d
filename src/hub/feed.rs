//! One view of a channel: the events that it shows, with ids of their own, and the seats of its streams.

#[cfg(feature = "server")]
mod state;

use std::sync::Arc;

use smallvec::SmallVec;

use super::command::Commands;
use super::history::History;
use super::log::Log;
use super::seat::Seat;
use super::seats::{SeatKey, Seats};
use super::shard::{Dirty, ShardId};
use super::source::Source;
use super::topic::TopicFeed;
use crate::config::HubConfig;
#[cfg(feature = "server")]
use crate::ids::Mark;
use crate::ids::{Epoch, Seq};
use crate::wire::MemoryUse;

/// What a stream shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum View {
    /// Every key of an org.
    Member,
    /// The keys of an org that are on the public allowlist.
    Public,
    /// The events of a topic.
    Topic,
}

/// What a channel has for one view.
#[derive(Debug)]
pub(crate) struct Feed<L = History> {
    pub(crate) history: L,
    /// The seats by shard; a shard that never had one may be missing.
    pub(crate) shards: SmallVec<[Seats; 2]>,
    view: View,
    /// The head for which the seats were marked as dirty last.
    announced: Seq,
    /// The commands to the streams, until they are carried out.
    pub(crate) commands: Option<Box<Commands>>,
}

/// What a channel feeds.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an org's channel stays one block of memory")]
pub(crate) enum Feeds {
    Org(OrgFeeds),
    Topic(Box<TopicFeed>),
}

/// The feeds of an org. The public one exists from the first public stream on, and as long as the channel: before
/// it there is no public id that could be resumed, so nothing is encoded for it.
#[derive(Debug)]
pub(crate) struct OrgFeeds {
    pub(crate) member: Feed,
    pub(crate) public: Option<Box<Feed>>,
}

// ===== impl Feed =====

impl Feed {
    pub(crate) fn new(view: View, epoch: Epoch, memory: Arc<MemoryUse>) -> Self {
        Self::of(view, History::new(epoch, memory))
    }

    /// What was published is no event: every client has to re-read.
    pub(crate) fn lose(&mut self) {
        if !self.history.is_fresh() {
            return;
        }
        self.history.lose();
        self.trim_uncovered();
    }
}

impl<L: Log> Feed<L> {
    pub(super) fn of(view: View, history: L) -> Self {
        Self { history, shards: SmallVec::new(), view, announced: Seq(0), commands: None }
    }

    /// The seats of a shard, which it adds if they are missing.
    pub(crate) fn seats_mut(&mut self, shard: ShardId) -> &mut Seats {
        while self.shards.len() <= shard.index() {
            self.shards.push(Seats::of(self.view));
        }
        &mut self.shards[shard.index()]
    }

    /// What a seat takes its events from, if it is still taken.
    fn source(&mut self, shard: ShardId, key: SeatKey) -> Option<Source<'_>> {
        let Self { history, shards, commands, .. } = self;
        let seats = shards.get_mut(shard.index())?;
        let (round, commands) = (seats.round(), commands.as_deref());
        let (seat, filter) = seats.filtered_mut(key)?;
        Some(Source { log: history, commands, round, filter, seat })
    }

    /// Subscribers on all shards, counted in the slabs.
    pub(crate) fn seats(&self) -> usize {
        self.shards.iter().map(Seats::len).sum()
    }

    /// Marks the seats of every shard as dirty that have to be visited: of all if there is something new or the channel
    /// is closing. Adds the shards on which they were clean.
    pub(crate) fn mark_dirty(
        &mut self,
        closing: bool,
        marked: &mut SmallVec<[(ShardId, Dirty); 8]>,
    ) {
        let Self { history, shards, view, announced, .. } = self;
        let head = history.head();
        let before = std::mem::replace(announced, head);
        let all = before != head || closing;
        // What there is before the first mark may be of another process, or of a log's past.
        let before = if before == Seq(0) { Seq(head.0.saturating_sub(1)) } else { before };
        for (shard, seats) in (0..).map(ShardId).zip(shards) {
            if (all || seats.visits_all().0) && seats.mark_dirty() {
                let since = history.published_after(before);
                marked.push((shard, Dirty { view: *view, since }));
            }
        }
    }
}

// ===== impl OrgFeeds =====

impl OrgFeeds {
    pub(crate) fn get(&self, view: View) -> Option<&Feed> {
        match view {
            View::Member => Some(&self.member),
            View::Public => self.public.as_deref(),
            View::Topic => None,
        }
    }

    pub(crate) fn get_mut(&mut self, view: View) -> Option<&mut Feed> {
        match view {
            View::Member => Some(&mut self.member),
            View::Public => self.public.as_deref_mut(),
            View::Topic => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Feed> {
        std::iter::once(&self.member).chain(self.public.as_deref())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (View, &mut Feed)> {
        let public = self.public.as_deref_mut().map(|feed| (View::Public, feed));
        std::iter::once((View::Member, &mut self.member)).chain(public)
    }

    /// The burst window holds keys of a record of the log that comes after this one.
    #[cfg(feature = "server")]
    pub(super) fn hold(&mut self, before: Mark) {
        self.iter_mut().for_each(|(_, feed)| feed.history.hold(before));
    }

    /// The burst window holds nothing any more.
    pub(super) fn release(&mut self) {
        self.iter_mut().for_each(|(_, feed)| feed.history.release());
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

// ===== impl Feeds =====

impl Feeds {
    /// Those of an org, whose channel this is.
    pub(crate) fn org_mut(&mut self) -> &mut OrgFeeds {
        match self {
            Self::Org(feeds) => feeds,
            Self::Topic(_) => unreachable!("the registry of orgs has no topics"),
        }
    }

    /// The seats of a view by shard.
    pub(crate) fn shards(&self, view: View) -> Option<&[Seats]> {
        match self {
            Self::Org(feeds) => feeds.get(view).map(|feed| &feed.shards[..]),
            Self::Topic(topic) => (view == View::Topic).then_some(&topic.feed.shards[..]),
        }
    }

    /// The same, to be changed.
    pub(crate) fn shards_mut(&mut self, view: View) -> Option<&mut [Seats]> {
        match self {
            Self::Org(feeds) => feeds.get_mut(view).map(|feed| &mut feed.shards[..]),
            Self::Topic(topic) => (view == View::Topic).then_some(&mut topic.feed.shards[..]),
        }
    }

    /// The seats of a shard for a view, which exists. Adds them if they are missing.
    pub(crate) fn seats_mut(&mut self, shard: ShardId, view: View) -> &mut Seats {
        match self {
            Self::Org(feeds) => feeds.get_mut(view).expect(OPENED).seats_mut(shard),
            Self::Topic(topic) => topic.feed.seats_mut(shard),
        }
    }

    /// What a seat takes its events from, if it is still taken.
    pub(crate) fn source(&mut self, shard: ShardId, key: SeatKey) -> Option<Source<'_>> {
        match self {
            Self::Org(feeds) => feeds.get_mut(key.org_view())?.source(shard, key),
            Self::Topic(topic) => topic.feed.source(shard, key),
        }
    }

    /// The seat with this key, unless it has been freed.
    pub(crate) fn seat_mut(&mut self, shard: ShardId, key: SeatKey) -> Option<&mut Seat> {
        let shards = match self {
            Self::Org(feeds) => &mut feeds.get_mut(key.org_view())?.shards,
            Self::Topic(topic) => &mut topic.feed.shards,
        };
        shards.get_mut(shard.index())?.get_mut(key)
    }

    /// Frees the seat with this key.
    pub(crate) fn free_seat(&mut self, shard: ShardId, key: SeatKey) -> Option<Seat> {
        match self {
            Self::Org(feeds) => feeds.get_mut(key.org_view())?.free_seat(shard, key),
            Self::Topic(topic) => topic.feed.shards.get_mut(shard.index())?.remove(key),
        }
    }

    /// Subscribers of this view.
    pub(crate) fn seats_of(&self, view: View) -> usize {
        self.shards(view).map_or(0, |shards| shards.iter().map(Seats::len).sum())
    }

    /// Subscribers of all views.
    pub(crate) fn seats(&self) -> usize {
        match self {
            Self::Org(feeds) => feeds.iter().map(Feed::seats).sum(),
            Self::Topic(topic) => topic.feed.seats(),
        }
    }
}

const OPENED: &str = "a stream opens its feed first";
