//! Steps of subscribers (subscribe, poll, leave, resume), and the keys that each is owed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use super::twin::{Next, TwinFeed, TwinOrg, visible};
use super::{Bell, Client, KEEPALIVE, Pair, Run, World};
use crate::hub::{Position, SubscribeError, View};
use crate::ids::{Epoch, EventId, Seq};
use crate::time::Time;
use crate::wire::{self, Greeting, Parser};

// ===== impl World =====

impl World {
    pub(super) fn some_id(&self, org: usize, view: View, back: u64, run: Run) -> Option<EventId> {
        let twin = self.twins[org].as_ref()?;
        let view = match (run, view) {
            (Run::Other, View::Member) => View::Public,
            (Run::Other, View::Public) => View::Member,
            (Run::This | Run::Former, view) | (Run::Other, view @ View::Topic) => view,
        };
        let feed = twin.feed(view)?;
        let epoch = match run {
            Run::This | Run::Other => feed.epoch,
            Run::Former => self.former[org][view as usize],
        };
        Some(EventId { epoch, seq: Seq((feed.events.len() as u64 + 1).saturating_sub(back)) })
    }

    /// The epoch of a view, which the twin takes from the hub.
    pub(super) fn epoch(&self, org: usize, view: View) -> Epoch {
        let channel = self.hubs[0].shared.registry.get(&self.orgs[org]).expect("it is in use");
        let mut state = channel.state.lock();
        state.feeds.org_mut().get(view).expect("it is in use").history.id(Seq(0)).epoch
    }

    /// The twin of an org that is in use, with the feed of a view.
    pub(super) fn open_twin(&mut self, org: usize, view: View) -> &TwinFeed {
        for view in [View::Member, view] {
            let opens = self.twins[org].as_ref().is_none_or(|twin| twin.feed(view).is_none());
            if opens {
                let epoch = self.epoch(org, view);
                assert!(self.epochs.insert(epoch), "the epoch was used before");
                let new = || TwinOrg::new(epoch, self.now, self.limits);
                self.twins[org].get_or_insert_with(new).open(view, epoch);
            }
        }
        self.twins[org].as_ref().and_then(|twin| twin.feed(view)).expect("both are open")
    }

    /// A new client, which may send an id.
    pub(super) fn subscribe(&mut self, org: usize, view: View, id: Option<EventId>, shard: usize) {
        let Some((mut pair, greeting)) = self.open(org, view, id, shard) else { return };
        if greeting == Greeting::Resumed {
            let twin = self.twins[org].as_ref().expect("it has a subscriber");
            let feed = twin.feed(view).expect("it has a subscriber");
            let held = twin.held.as_ref().map(|keys| visible(keys, view));
            let missed = feed.events.iter().map(|event| event.keys.clone()).chain([held]);
            for (n, keys) in missed.enumerate().skip(pair.position) {
                pair.client.owed.insert(n + 1, keys.unwrap_or_default());
            }
        }
        self.pairs.push(pair);
    }

    /// A browser that lost its connection reconnects: it is still owed the same keys, or has to reread.
    pub(super) fn reconnect(&mut self, client: Client, shard: usize) {
        let opened = self.open(client.org, client.view, Some(client.last), shard);
        let Some((mut pair, greeting)) = opened else { return };
        if greeting == Greeting::Resumed {
            pair.client.owed = client.owed;
        }
        self.pairs.push(pair);
    }

    fn open(
        &mut self,
        org: usize,
        view: View,
        id: Option<EventId>,
        shard: usize,
    ) -> Option<(Pair, Greeting)> {
        let opened = self.hubs[shard].subscribe(&self.orgs[org], view, id, Time(self.now));
        if self.closing {
            assert!(matches!(opened, Err(SubscribeError::Closing)));
            return None;
        }
        let (ours, greeting) = opened.expect("not closing");
        let feed = self.open_twin(org, view);
        let resumed = id
            .filter(|id| id.epoch == feed.epoch)
            .map(|id| usize::try_from(id.seq.0).expect("small"))
            .filter(|position| feed.covers(*position));
        let position = resumed.unwrap_or(feed.events.len());
        assert_eq!(greeting, resumed.map_or(Greeting::Connected, |_| Greeting::Resumed));
        let last = feed.id(position);
        assert_eq!(ours.position(), last);
        let client = Client { org, view, last, owed: BTreeMap::new() };
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        let pair = Pair {
            ours,
            client,
            bell,
            position,
            waits: false,
            touched: self.tick,
            deadline: None,
            ended: false,
            stale: false,
            due: false,
            unwanted: false,
        };
        Some((pair, greeting))
    }

    /// A backend reads the positions of an org before its database. A page that it makes is a client that is away.
    pub(super) fn position(&mut self, org: usize, page: bool) {
        // A stream that was refused then leaves a channel of which the twin knows nothing.
        if self.closing {
            return;
        }
        let positions = self.hubs[0].position(&self.orgs[org], Time(self.now));
        let read = [Some(positions.member), positions.public];
        for (view, read) in [View::Member, View::Public].into_iter().zip(read) {
            let Position { id, streams } = read.expect("every org is public");
            let feed = self.open_twin(org, view);
            assert_eq!(id, feed.id(feed.events.len()));
            let here = |pair: &&Pair| pair.client.org == org && pair.client.view == view;
            assert_eq!(streams, self.pairs.iter().filter(here).count());
            // What is held comes after it.
            let held = self.twins[org].as_ref().and_then(|twin| twin.held.as_ref());
            let held = held.map(|keys| visible(keys, view)).filter(|keys| !keys.is_empty());
            let next = usize::try_from(id.seq.0).expect("small") + 1;
            let owed = held.map(|keys| (next, keys)).into_iter().collect();
            if page {
                self.away.push(Client { org, view, last: id, owed });
            }
        }
        let twin = self.twins[org].as_mut().expect("it is open");
        twin.idle_since = twin.idle_since.max(self.now);
    }

    pub(super) fn leave(&mut self, index: usize) -> Client {
        let Pair { client, .. } = self.pairs.swap_remove(index);
        if !self.pairs.iter().any(|pair| pair.client.org == client.org) {
            let twin = self.twins[client.org].as_mut().expect("it had a subscriber");
            twin.idle_since = twin.idle_since.max(self.tick * 1_000);
        }
        client
    }

    /// Polls one subscriber once, and drops it if its stream has ended. Returns whether more may be pending.
    pub(super) fn poll(&mut self, index: usize) -> bool {
        let pair = &mut self.pairs[index];
        let twin = self.twins[pair.client.org].as_ref().expect("it has a subscriber");
        let expected = if pair.ended {
            Next::End
        } else {
            let feed = twin.feed(pair.client.view).expect("it has a subscriber");
            if pair.stale {
                let (next, rereads) = feed.next_stale(&mut pair.position, pair.due, self.closing);
                pair.stale &= !rereads;
                pair.due &= !rereads;
                next
            } else {
                feed.next(&mut pair.position, self.closing)
            }
        };
        pair.bell.0.store(false, Ordering::Relaxed);
        let got = match pair.ours.poll_next(&Waker::from(pair.bell.clone())) {
            Poll::Ready(Some(frame)) => {
                Next::Event(String::from_utf8(frame.payload().to_vec()).expect("UTF-8"))
            }
            Poll::Ready(None) => Next::End,
            Poll::Pending => Next::Nothing,
        };
        pair.waits = got == Next::Nothing;
        let more = match &got {
            Next::Event(text) if text == ": keepalive\n" => {
                assert_eq!(expected, Next::Nothing);
                let silence = self.tick - pair.touched;
                assert!(silence >= KEEPALIVE * 3 / 4, "after {silence} s of silence");
                pair.touched = self.tick;
                return true;
            }
            Next::Event(text) => {
                pair.client.receive(text);
                pair.touched = self.tick;
                true
            }
            Next::Nothing => false,
            Next::End => {
                let client = self.leave(index);
                self.away.push(client);
                false
            }
        };
        assert_eq!(got, expected);
        more
    }

    pub(super) fn poll_all(&mut self) {
        for index in (0..self.pairs.len()).rev() {
            while self.poll(index) {}
        }
    }
}

// ===== impl Client =====

impl Client {
    /// Parses an event as a browser does, and removes the keys that it covers.
    fn receive(&mut self, text: &str) {
        let mut events = Vec::new();
        Parser::default().push(text.as_bytes(), |event| events.push(event)).expect("small");
        let [wire::Event { name, data, id }] = &events[..] else { panic!("one event: {text:?}") };
        let id: EventId = id.parse().expect("an id");
        // A command to re-read begins another epoch, where it is.
        let is_new = id.epoch != self.last.epoch;
        assert!(id.seq > self.last.seq || is_new && id.seq == self.last.seq, "after {}", self.last);
        self.last = id;
        let seq = usize::try_from(id.seq.0).expect("small");
        if name == "connected" {
            self.owed.retain(|owed, _| *owed > seq);
        } else {
            assert!(
                self.owed.range(..seq).all(|(_, keys)| keys.is_empty()),
                "an event was skipped"
            );
            let owed = self.owed.remove(&seq).unwrap_or_default();
            let has = |key: &String| data.contains(&format!("\"{key}\""));
            assert!(owed.iter().all(has), "{owed:?} in {data}");
        }
    }
}
