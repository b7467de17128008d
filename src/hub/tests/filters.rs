//! Filtered streams compared with the strings that they are about: random publishes, bursts, losses, evictions, rereads,
//! resumes, full sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::Bell;
use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::hub::feed::Feed;
use crate::hub::filter::KeyBits;
use crate::hub::{
    Batch, CommandPasses, Filter, Frames, Hub, Keys, SocketId, Subscription, Sweep, Taken, View,
    WriteKind,
};
use crate::ids::{EventId, OrgName, Seq};
use crate::time::{Tick, Time};
use crate::wire::{Frame, Greeting, Parser};

#[derive(Clone, Debug)]
enum Step {
    /// Without patterns it is not filtered.
    Open {
        patterns: Vec<&'static str>,
        socket: bool,
    },
    Publish(Vec<&'static str>),
    Wait(u64),
    /// One batch of a sweep. A full socket takes so many of the parts.
    Sweep {
        room: usize,
    },
    /// Whatever the driver has to do.
    Drive {
        room: usize,
    },
    Poll(usize),
    /// The client reads again.
    Unblock {
        client: usize,
        room: usize,
    },
    Reread,
    Leave(usize),
    Return(usize),
}

/// One client, which a task or the driver serves.
struct Client {
    patterns: Vec<&'static str>,
    filter: Filter,
    stream: Option<Subscription>,
    /// Its socket, and whether that is full; `None` if a task serves it.
    socket: Option<(SocketId, bool)>,
    bell: Arc<Bell>,
    waits: bool,
    /// It has still to re-read since a command.
    stale: bool,
    /// Everything up to here has been received, or need not be.
    at: u64,
    last: EventId,
}

struct World {
    hub: Hub,
    view: View,
    org: OrgName,
    /// What was published to the view; `None` for what was no event.
    log: Vec<Option<Vec<String>>>,
    /// Nothing is known of the keys of events up to this one.
    unknown: u64,
    clients: Vec<Client>,
    sweeps: Vec<Sweep>,
    passes: CommandPasses,
    now: u64,
    /// Events that were sent although none of their keys matches.
    in_vain: usize,
    skipped: usize,
}

const KEYS: [&str; 12] = [
    "posts", "users", "feed:1", "feed:2", "feed:1:x", "feed", "feed:", "feed:*", "a:b:c", ":",
    "\u{e9}:1", "other",
];
const WISHES: [&str; 10] =
    ["posts", "users", "feed:*", "feed:1:*", "feed:2", "a:b:*", ":*", "never", "\u{e9}:*", "feed"];
const COALESCE: u64 = 50;

/// The definition: what a pattern matches.
fn matches_key(pattern: &str, key: &str) -> bool {
    let prefix = pattern.strip_suffix('*').filter(|prefix| prefix.ends_with(':'));
    pattern == key || prefix.is_some_and(|prefix| key.starts_with(prefix))
}

// ===== impl Client =====

impl Client {
    fn wants(&self, keys: &[String]) -> bool {
        self.patterns.is_empty()
            || keys.iter().any(|key| self.patterns.iter().any(|pattern| matches_key(pattern, key)))
    }

    fn subscription(&self) -> &Subscription {
        self.stream.as_ref().expect("it is here")
    }
}

// ===== impl World =====

impl World {
    fn new(view: View, coalesce: u64, history: usize) -> Self {
        let keys = ["posts", "feed*", "\u{e9}:*"].iter().collect();
        let config = HubConfig {
            coalesce: Duration::from_millis(coalesce),
            keepalive: Duration::from_secs(2),
            history_events: history,
            keys_max: 5,
            public: PublicPolicy { orgs: PublicOrgs::All, keys },
            ..HubConfig::default()
        };
        Self {
            hub: Hub::new(config),
            view,
            org: "acme".parse().expect("a name"),
            log: Vec::new(),
            unknown: 0,
            clients: Vec::new(),
            sweeps: Vec::new(),
            passes: CommandPasses::default(),
            now: 0,
            in_vain: 0,
            skipped: 0,
        }
    }

    fn apply(&mut self, step: Step) {
        let count = self.clients.len().max(1);
        match step {
            Step::Open { patterns, socket } => {
                let filter = match patterns.is_empty() {
                    true => Filter::ALL,
                    false => {
                        Filter::new(patterns.iter().copied(), self.hub.config()).expect("valid")
                    }
                };
                let number = u32::try_from(self.clients.len()).expect("few");
                let id = EventId { epoch: crate::ids::Epoch(0), seq: Seq(0) };
                self.clients.push(Client {
                    patterns,
                    filter,
                    stream: None,
                    socket: socket.then_some((SocketId(number), false)),
                    bell: Arc::new(Bell(AtomicBool::new(false))),
                    waits: false,
                    stale: false,
                    at: 0,
                    last: id,
                });
                self.open(self.clients.len() - 1);
            }
            Step::Publish(keys) => {
                let keys = Keys::new(keys, self.hub.config()).expect("within the limits");
                self.hub.publish(&self.org, &keys, Time(self.now));
                self.read_log();
            }
            Step::Wait(ms) => self.now += ms,
            Step::Sweep { room } => _ = self.sweep(room),
            Step::Drive { room } => self.drive(room),
            Step::Poll(client) => self.poll(client % count),
            Step::Unblock { client, room } => self.unblock(client % count, room),
            Step::Reread => {
                self.hub.reread(&self.org, Time(self.now), Duration::from_millis(300));
                self.clients.iter_mut().for_each(|client| client.stale |= client.stream.is_some());
            }
            Step::Leave(client) => {
                if let Some(client) = self.clients.get_mut(client % count) {
                    client.stream = None;
                }
            }
            Step::Return(client) => self.open(client % count),
        }
    }

    fn with_feed<T>(&self, look: impl FnOnce(&mut Feed) -> T) -> Option<T> {
        let channel = self.hub.shared.registry.get(&self.org)?;
        let mut state = channel.state.lock();
        state.feeds.org_mut().get_mut(self.view).map(look)
    }

    /// Adds what was published to the log.
    fn read_log(&mut self) {
        let known = self.log.len() as u64;
        let added = self.with_feed(|feed| {
            let events = (known + 1..=feed.history.head().0).map(|seq| feed.history.get(Seq(seq)));
            events.map(|event| event.map(|event| keys_of(&event.frame))).collect::<Vec<_>>()
        });
        self.log.extend(added.into_iter().flatten());
    }

    fn open(&mut self, index: usize) {
        let Some(client) = self.clients.get(index).filter(|client| client.stream.is_none()) else {
            return;
        };
        let was_filtered = self.with_feed(|feed| feed.has_filters()).unwrap_or_default();
        let id = (client.last.epoch.0 != 0).then_some(client.last);
        let opened = self.hub.subscribe(&self.org, self.view, id, Time(self.now));
        let (mut stream, greeting) = opened.expect("not closing");
        stream.set_filter(client.filter);
        if !was_filtered {
            self.unknown = self.log.len() as u64;
        }
        let client = &mut self.clients[index];
        let at = stream.position();
        if greeting == Greeting::Resumed {
            assert_eq!(at, client.last, "it continues where it was");
        } else {
            (client.at, client.last) = (at.seq.0, at);
        }
        client.stale = false;
        client.waits = false;
        client.stream = Some(stream);
        if let Some((_, blocked)) = &mut client.socket {
            *blocked = false;
            self.take(index, usize::MAX);
        }
    }

    /// A client receives a frame.
    fn receive(&mut self, index: usize, frame: &Frame) {
        let mut events = Vec::new();
        let text = frame.payload();
        Parser::default().push(&text, |event| events.push(event)).expect("small");
        if events.is_empty() {
            assert!(self.clients[index].filter.is_all(), "a comment has no position");
            assert_eq!(&*text, b": keepalive\n");
            return;
        }
        let id: EventId = events[0].id.parse().expect("an id");
        let seq = id.seq.0;
        let covered = self.with_feed(|feed| feed.history.covers(Seq(seq))).expect("it is open");
        let resumes = self
            .with_feed(|feed| feed.history.resume(id, |_| false).is_some())
            .expect("it is open");
        match &*events[0].name {
            "connected" => {
                let client = &mut self.clients[index];
                assert!(client.at <= seq);
                (client.at, client.stale) = (seq, false);
            }
            "ping" => {
                self.pass_over(index, seq);
                let client = &mut self.clients[index];
                assert!(!client.filter.is_all());
                client.at = seq;
            }
            name => {
                assert_eq!(name, "invalidate");
                assert!(seq > self.clients[index].at, "each event once, in order");
                self.pass_over(index, seq - 1);
                let keys = self.log[seq as usize - 1].as_ref().expect("it was an event");
                assert_eq!(&keys_of(frame), keys, "the whole event");
                let client = &mut self.clients[index];
                if !client.wants(keys) {
                    let bits = KeyBits::of(keys.iter().map(String::as_str));
                    assert!(seq <= self.unknown || client.filter.meets(bits), "{keys:?} of {seq}");
                    self.in_vain += 1;
                }
                client.at = seq;
            }
        }
        let client = &mut self.clients[index];
        client.last = id;
        assert_eq!(resumes, covered && !client.stale, "{id} of a client: stale {}", client.stale);
    }

    /// A client did not receive what lies up to `seq`.
    fn pass_over(&mut self, index: usize, seq: u64) {
        let client = &self.clients[index];
        for n in client.at..seq {
            let keys = self.log[n as usize].as_ref().expect("a loss is not passed over");
            assert!(!client.wants(keys), "{keys:?} of {} was lost silently", n + 1);
            self.skipped += 1;
        }
    }

    /// Whether something lies before a client that it has to receive.
    fn is_owed(&self, client: &Client) -> bool {
        self.log[client.at as usize..]
            .iter()
            .any(|keys| keys.as_ref().is_none_or(|keys| client.wants(keys)))
    }

    fn poll(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index).filter(|c| c.socket.is_none()) else {
            return;
        };
        let Some(stream) = &mut client.stream else { return };
        let waker = Waker::from(client.bell.clone());
        let rung = client.bell.0.swap(false, Ordering::Relaxed);
        let polled = stream.poll_next(&waker);
        let was_waiting = std::mem::replace(&mut client.waits, polled.is_pending());
        match polled {
            Poll::Ready(frame) => self.receive(index, &frame.expect("no stream ends")),
            Poll::Pending => {
                assert!(!(was_waiting && rung), "woken for nothing");
                assert!(!self.is_owed(&self.clients[index]));
            }
        }
    }

    /// The driver takes what there is for a socket that takes so many parts in all.
    fn take(&mut self, index: usize, mut room: usize) {
        loop {
            let client = &self.clients[index];
            let (socket, stream) = (client.socket.expect("a socket").0, client.subscription());
            let before = stream.position().seq;
            let mut frames = Frames::new();
            let taken = stream.take_frames(socket, &mut frames);
            match taken {
                Taken::Idle => return assert!(!self.is_owed(&self.clients[index])),
                Taken::End(reason) => panic!("no stream ends, not for {reason:?}"),
                Taken::Some | Taken::Reread => {}
            }
            let reread = taken == Taken::Reread;
            if !self.write(index, before, &frames, reread, &mut room) {
                return;
            }
        }
    }

    /// Writes parts to a socket, and gives back those for which it has no room. Returns whether it took all.
    fn write(
        &mut self,
        index: usize,
        before: Seq,
        parts: &[(Seq, Frame)],
        reread: bool,
        room: &mut usize,
    ) -> bool {
        let written = parts.len().min(*room);
        *room -= written;
        for (_, frame) in &parts[..written] {
            self.receive(index, frame);
        }
        if written == parts.len() {
            return true;
        }
        let reached = written.checked_sub(1).map_or(before, |last| parts[last].0);
        let client = &mut self.clients[index];
        let (socket, blocked) = client.socket.as_mut().expect("a socket");
        *blocked = true;
        let socket = *socket;
        // As the reactor does for a part of which nothing was written.
        client.subscription().give_back(reached, reread, socket, written > 0);
        client.stale |= reread;
        false
    }

    fn unblock(&mut self, index: usize, room: usize) {
        let Some(client) = self.clients.get_mut(index).filter(|c| c.stream.is_some()) else {
            return;
        };
        let Some((_, blocked)) = &mut client.socket else { return };
        if std::mem::replace(blocked, false) {
            self.take(index, room);
        }
    }

    /// Writes what was collected.
    fn serve(&mut self, batch: &mut Batch, mut room: usize) {
        batch.wake();
        for op in batch.writes.drain(..) {
            let index = op.socket.0 as usize;
            match op.kind {
                WriteKind::CatchUp => self.take(index, room),
                WriteKind::Keepalive => {
                    let subscription = self.clients[index].subscription();
                    let (before, frame) =
                        (subscription.position().seq, subscription.keepalive_frame());
                    _ = self.write(index, before, &[(before, frame)], false, &mut room);
                }
                WriteKind::Events { count } => {
                    let events = &batch.events[batch.events.len() - count..];
                    let before = Seq(events[0].0.0 - 1);
                    _ = self.write(index, before, events, false, &mut room);
                }
                kind @ WriteKind::End(_) => panic!("no stream ends: {kind:?}"),
            }
        }
        batch.clear();
    }

    /// One batch of one sweep. Returns whether there may be more.
    fn sweep(&mut self, room: usize) -> bool {
        self.sweeps.extend(std::iter::from_fn(|| self.hub.driver().next_sweep()));
        if let Some(mut sweep) = self.sweeps.pop() {
            let mut batch = Batch::default();
            if sweep.collect(&mut batch) {
                self.sweeps.push(sweep);
            }
            self.serve(&mut batch, room);
        }
        !self.sweeps.is_empty()
    }

    fn drive(&mut self, room: usize) {
        while self.hub.driver().close_windows(Time(self.now)) {}
        self.read_log();
        let (mut due, mut batch) = (Vec::new(), Batch::default());
        self.hub.driver().tick(Tick((self.now / 1_000) as u32), &mut due);
        for seat in due {
            self.hub.driver().keep_alive(&[seat], &mut batch);
            self.serve(&mut batch, room);
        }
        let mut passes = std::mem::take(&mut self.passes);
        let driver = self.hub.driver();
        let mut more = true;
        while more {
            let mut collected = Batch::default();
            more = passes.turn(&driver, Time(self.now), &mut batch, |batch| {
                std::mem::swap(batch, &mut collected);
                self.serve(&mut collected, room);
            });
        }
        self.passes = passes;
        while self.sweep(room) {}
        for client in self.clients.iter().filter(|client| client.waits && client.stream.is_some()) {
            assert!(client.bell.0.load(Ordering::Relaxed) || !self.is_owed(client), "not woken");
        }
    }

    /// Every client receives all that it is owed, and nothing is left of filters once the last one is gone.
    fn settle(mut self) {
        self.now += 2_000;
        self.drive(usize::MAX);
        for index in 0..self.clients.len() {
            self.open(index);
            self.unblock(index, usize::MAX);
            self.poll(index);
            while self.clients[index].socket.is_none() && !self.clients[index].waits {
                self.poll(index);
            }
            assert!(!self.is_owed(&self.clients[index]));
        }
        self.clients.clear();
        let left = self.with_feed(|feed| feed.has_filters() || feed.history.has_hints());
        assert!(!left.unwrap_or_default(), "memory for filters without any");
    }
}

fn keys_of(frame: &Frame) -> Vec<String> {
    let text = String::from_utf8(frame.payload().to_vec()).expect("UTF-8");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    serde_json::from_value(data["keys"].clone()).expect("strings")
}

fn step() -> impl Strategy<Value = Step> {
    let room = || prop_oneof![3 => Just(usize::MAX), 1 => 0..3_usize];
    let keys = || prop::collection::vec(select(&KEYS[..]), 1..4);
    prop_oneof![
        3 => (subsequence(&WISHES[..], 0..5), any::<bool>())
            .prop_map(|(patterns, socket)| Step::Open { patterns, socket }),
        10 => keys().prop_map(Step::Publish),
        2 => (0..2_500_u64).prop_map(Step::Wait),
        3 => (0..60_u64).prop_map(Step::Wait),
        4 => room().prop_map(|room| Step::Sweep { room }),
        6 => room().prop_map(|room| Step::Drive { room }),
        6 => (0..64_usize).prop_map(Step::Poll),
        3 => (0..64_usize, room()).prop_map(|(client, room)| Step::Unblock { client, room }),
        1 => Just(Step::Reread),
        2 => (0..64_usize).prop_map(Step::Leave),
        3 => (0..64_usize).prop_map(Step::Return),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_filtered_stream_loses_nothing_that_matches(
        view in select(vec![View::Member, View::Public]),
        coalesce in select(vec![0, COALESCE]),
        history in select(vec![1, 3, 100]),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(view, coalesce, history);
        steps.into_iter().for_each(|step| world.apply(step));
        world.settle();
    }
}
