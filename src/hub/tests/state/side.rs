//! A process: its hub with its drivers, and the sockets of its streams, which are full now and then.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::hub::{
    Batch, CommandPasses, Deadline, Filter, Frames, Hub, Keys, SocketId, Start, Subscription,
    Taken, View, WriteKind,
};
use crate::ids::{OrgName, Seq, Topic};
use crate::metrics::CloseReason;
use crate::time::{Tick, Time};
use crate::wire::{Frame, Message};

/// One process.
pub(super) struct Side {
    pub(super) hubs: Vec<Hub>,
    passes: Vec<CommandPasses>,
    pub(super) streams: BTreeMap<usize, Stream>,
    /// What its clients have received.
    pub(super) received: BTreeMap<usize, String>,
    /// How much later it is by its clock than by the test's.
    pub(super) offset: u64,
    pub(super) now: u64,
}

/// A stream whose socket its driver writes.
pub(super) struct Stream {
    pub(super) subscription: Subscription,
    socket: SocketId,
    /// Events that fit into its socket.
    room: usize,
    /// The one after these fits in half.
    cuts: bool,
    rest: Option<String>,
    pub(super) has_filter: bool,
    /// The second of the last write.
    written: u64,
}

/// How a stream is opened.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) at: At,
    pub(super) shard: usize,
    pub(super) room: usize,
    pub(super) cuts: bool,
    pub(super) filter: Option<u8>,
    /// In milliseconds from now on.
    pub(super) deadline: Option<u64>,
    /// In seconds from now on.
    pub(super) expires: Option<u64>,
}

/// Of what a stream is.
#[derive(Clone, Debug)]
pub(super) enum At {
    Org(usize, View),
    Topic { topic: usize, all: bool, exclusive: bool },
}

/// The longest silence, in seconds.
pub(super) const KEEPALIVE: u64 = 4;

pub(super) fn org(n: usize) -> OrgName {
    ["a", "b"][n % 2].parse().expect("a name")
}

pub(super) fn topic(n: usize) -> Topic {
    Topic { org: org(n), name: ["t", "u", "v"][n % 3].parse().expect("a name") }
}

// ===== impl Side =====

impl Side {
    pub(super) fn new(hub: &Hub, shards: usize, offset: u64, now: u64) -> Self {
        let side = Self {
            hubs: (0..shards).map(|shard| hub.on_shard(shard)).collect(),
            passes: (0..shards).map(|_| CommandPasses::default()).collect(),
            streams: BTreeMap::new(),
            received: BTreeMap::new(),
            offset,
            now,
        };
        hub.begin(side.time());
        side
    }

    pub(super) fn time(&self) -> Time {
        Time(self.now + self.offset)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000 + self.now)
    }

    pub(super) fn hub(&self, shard: usize) -> &Hub {
        &self.hubs[shard % self.hubs.len()]
    }

    pub(super) fn open(&mut self, number: usize, opening: &Opening) {
        let Opening { at, shard, room, cuts, filter, deadline, expires } = opening;
        let (hub, now) = (self.hub(*shard), self.time());
        let opened = match at {
            At::Org(n, view) => hub.subscribe(&org(*n), *view, None, now),
            At::Topic { topic: n, all, exclusive } => {
                let start = if *all { Start::All } else { Start::Now };
                hub.subscribe_topic(&topic(*n), start, *exclusive, now)
            }
        };
        let (mut subscription, _) = opened.expect("without a limit");
        if let Some(key) = filter {
            let pattern = format!("odd{}", key % 4);
            let filter = Filter::new([&*pattern], hub.config()).expect("a key");
            subscription.set_filter(filter);
        }
        if let Some(ms) = deadline {
            let at = Time(now.0 + ms);
            subscription.end_at(Deadline { at, reason: CloseReason::MaxAge });
        }
        if let Some(seconds) = expires {
            subscription.expire_at(self.wall() + Duration::from_secs(*seconds), self.wall());
        }
        let stream = Stream {
            subscription,
            socket: SocketId(u32::try_from(number).expect("few")),
            room: *room,
            cuts: *cuts,
            rest: None,
            has_filter: filter.is_some() && matches!(at, At::Org(..)),
            written: now.tick().0.into(),
        };
        self.streams.insert(number, stream);
        self.received.insert(number, String::new());
        self.catch_up(number);
    }

    /// A stream that has come from another process.
    pub(super) fn take(&mut self, number: usize, other: &Stream, subscription: Subscription) {
        subscription.attach(other.socket);
        let rest = other.rest.clone();
        let written = self.time().tick().0.into();
        self.streams.insert(number, Stream { subscription, rest, written, ..*other });
    }

    pub(super) fn publish(&self, n: usize, keys: &[u8]) {
        let name =
            |key: &u8| format!("{}{key}", if key.is_multiple_of(2) { "even" } else { "odd" });
        let names: Vec<_> = keys.iter().map(name).collect();
        let keys = Keys::new(names.iter().map(|name| &**name), self.hub(n).config());
        self.hub(n).publish(&org(n), &keys.expect("few"), self.time());
    }

    pub(super) fn post(&self, n: usize, message: &Message) {
        self.hub(n).publish_message(&topic(n), message, self.time());
    }

    pub(super) fn close(&self, n: usize) {
        self.hub(n).close_topic(&topic(n), "done", self.time());
    }

    pub(super) fn tidy(&self) {
        self.hub(0).shared.registry.tidy_all(self.time());
        self.hub(0).shared.topics.tidy(self.time());
    }

    /// The client reads so many events.
    pub(super) fn read(&mut self, number: usize, room: usize) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let was_full = stream.room == 0;
        stream.room += room;
        if !was_full {
            return;
        }
        // What was silent was the client.
        stream.written = (self.now + self.offset) / 1_000;
        if let Some(rest) = stream.rest.take() {
            if stream.room == 0 {
                stream.rest = Some(rest);
                stream.subscription.stay_blocked(stream.socket, false);
                return;
            }
            stream.room -= 1;
            self.received.entry(number).or_default().push_str(&rest);
            stream.subscription.unblock();
        }
        self.catch_up(number);
    }

    /// Lets time pass, a second at a time at most, as its drivers do.
    pub(super) fn wait(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            let before = self.time().tick();
            self.now = until.min(self.now + 1_000);
            if self.time().tick() > before {
                self.tick();
            }
        }
    }

    fn tick(&mut self) {
        let (tick, expiring) = (self.time().tick(), Tick::expiring(self.wall()));
        for shard in 0..self.hubs.len() {
            let driver = self.hubs[shard].driver();
            let (mut silent, mut due, mut batch) = (Vec::new(), Vec::new(), Batch::default());
            driver.tick(tick, &mut silent);
            driver.timers(tick, &mut due);
            driver.expire(expiring, &mut due);
            for silent in silent.chunks(3) {
                driver.keep_alive(silent, &mut batch);
                self.apply(&mut batch);
            }
            for due in due.chunks(3) {
                driver.fire(due, &mut batch);
                self.apply(&mut batch);
            }
        }
        for (number, stream) in &self.streams {
            let silence = u64::from(tick.0) - stream.written;
            assert!(stream.room == 0 || silence <= KEEPALIVE, "{number} is silent for {silence} s");
        }
    }

    /// All pending work of the drivers.
    pub(super) fn drive(&mut self) {
        let now = self.time();
        for shard in 0..self.hubs.len() {
            while self.hubs[shard].driver().close_windows(now) {}
        }
        for shard in 0..self.hubs.len() {
            let mut batch = Batch::default();
            while let Some(mut sweep) = self.hubs[shard].driver().next_sweep() {
                loop {
                    let more = sweep.collect(&mut batch);
                    self.apply(&mut batch);
                    if !more {
                        break;
                    }
                }
            }
            let (driver, mut passes) =
                (self.hubs[shard].driver(), std::mem::take(&mut self.passes[shard]));
            while passes.turn(&driver, now, &mut batch, |batch| self.apply(batch)) {}
            self.passes[shard] = passes;
        }
    }

    fn apply(&mut self, batch: &mut Batch) {
        let (writes, events) =
            (std::mem::take(&mut batch.writes), std::mem::take(&mut batch.events));
        batch.clear();
        for op in writes {
            let number = op.socket.0 as usize;
            if !self.streams.contains_key(&number) {
                continue;
            }
            match op.kind {
                WriteKind::Events { count } => {
                    let events = &events[events.len() - count..];
                    let before = events.first().map_or(Seq(0), |(seq, _)| Seq(seq.0 - 1));
                    self.write(number, events, Taken::Some, before);
                }
                WriteKind::CatchUp => self.catch_up(number),
                WriteKind::Keepalive => {
                    let stream = &self.streams[&number];
                    let frame = stream.subscription.keepalive_frame();
                    let before = stream.subscription.cursor();
                    self.write(number, &[(before, frame)], Taken::Some, before);
                }
                WriteKind::End(reason) => self.end(number, reason),
            }
        }
    }

    /// As a connection of the reactor does.
    pub(super) fn catch_up(&mut self, number: usize) {
        loop {
            let Some(stream) = self.streams.get(&number) else { return };
            let before = stream.subscription.cursor();
            let mut frames = Frames::new();
            let taken = stream.subscription.take_frames(stream.socket, &mut frames);
            match taken {
                Taken::Idle => return,
                Taken::End(reason) => return self.end(number, reason),
                Taken::Some | Taken::Reread => {}
            }
            if self.write(number, &frames, taken, before) {
                return;
            }
        }
    }

    /// Returns whether the socket is full.
    fn write(&mut self, number: usize, frames: &[(Seq, Frame)], taken: Taken, before: Seq) -> bool {
        let second = (self.now + self.offset) / 1_000;
        let stream = self.streams.get_mut(&number).expect("open");
        let out = self.received.entry(number).or_default();
        let (mut begun, mut full) = (0_usize, false);
        for (_, frame) in frames {
            let text = std::str::from_utf8(frame.bytes(false)).expect("UTF-8");
            if stream.room > 0 {
                stream.room -= 1;
                stream.written = second;
                out.push_str(text);
                begun += 1;
                continue;
            }
            full = true;
            if stream.cuts {
                let (first, rest) = text.split_at(text.len() / 2);
                out.push_str(first);
                stream.rest = Some(rest.to_owned());
                begun += 1;
            }
            break;
        }
        if full {
            let reached = begun.checked_sub(1).map_or(before, |last| frames[last].0);
            let reread = taken == Taken::Reread && begun < frames.len();
            stream.subscription.give_back(reached, reread, stream.socket, begun > 0);
        }
        full
    }

    fn end(&mut self, number: usize, reason: CloseReason) {
        let mut stream = self.streams.remove(&number).expect("open");
        stream.subscription.close_because(reason);
        self.received.entry(number).or_default().push_str(&format!("<{}>", reason.label()));
    }

    /// What a client has received, without what keeps it open, and with the epochs of ids by their first use.
    pub(super) fn seen(&self) -> Vec<String> {
        let mut epochs = BTreeMap::new();
        let mut line =
            |line: &str| match line.strip_prefix("id: ").and_then(|id| id.split_once('-')) {
                None => line.to_owned(),
                Some((epoch, seq)) => {
                    let next = epochs.len();
                    let epoch = epochs.entry(epoch.to_owned()).or_insert(next);
                    format!("id: {epoch}-{seq}")
                }
            };
        let received = self.received.iter().map(|(number, text)| {
            let mut text = text.replace(": keepalive\n", "");
            // Of several reasons at the same second any may come first.
            for reason in ["<stalled>", "<max_age>", "<expired>"] {
                text = text.replace(reason, "<ended>");
            }
            let blocks = text;
            let blocks =
                blocks.split_inclusive("\n\n").filter(|block| !block.contains("event: ping"));
            let text = blocks.collect::<String>();
            let lines: Vec<_> = text.split('\n').map(&mut line).collect();
            format!("{number}: {}", lines.join("\n"))
        });
        received.collect()
    }
}
