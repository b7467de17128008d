//! A hub whose streams move into others, and its twin whose streams stay: every client receives the same from both.

use std::time::Duration;

use proptest::prelude::*;

use super::side::{At, KEEPALIVE, Opening, Side, org};
use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::hub::state::SeatState;
use crate::hub::{Hub, View};
use crate::state::{Record, RecordReader, RecordWriter};
use crate::time::Time;
use crate::wire::{Message, Payload};

#[derive(Clone, Debug)]
enum Step {
    Open(Opening),
    Publish {
        org: usize,
        keys: Vec<u8>,
    },
    Post {
        topic: usize,
        bulk: bool,
    },
    Close(usize),
    Read {
        stream: usize,
        room: usize,
    },
    Drop(usize),
    Wait(u64),
    Drive,
    Reread(usize),
    Tidy,
    /// Into a hub with so many shards.
    Move(usize),
}

struct World {
    twin: Side,
    /// `None` before the first move.
    moved: Option<Side>,
    opened: usize,
    posted: usize,
    /// Streams may have to take what only the hub in which a command was given has.
    commanded: bool,
}

fn config() -> HubConfig {
    HubConfig {
        coalesce: Duration::from_millis(50),
        keepalive: Duration::from_secs(KEEPALIVE),
        stall_timeout: Duration::from_secs(5),
        history_events: 3,
        history_age: Duration::from_millis(3_500),
        topic_events: 2,
        topic_age: Duration::from_millis(2_500),
        keys_max: 6,
        public: PublicPolicy { orgs: PublicOrgs::All, keys: ["even*"].iter().collect() },
        ..HubConfig::default()
    }
}

// ===== impl World =====

impl World {
    fn new() -> Self {
        let twin = Side::new(&Hub::with_shards(config(), 2), 2, 0, 7_300);
        Self { twin, moved: None, opened: 0, posted: 0, commanded: false }
    }

    fn sides(&mut self) -> impl Iterator<Item = &mut Side> {
        std::iter::once(&mut self.twin).chain(&mut self.moved)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Open(opening) => {
                let number = self.opened;
                self.opened += 1;
                self.sides().for_each(|side| side.open(number, opening));
            }
            Step::Publish { org, keys } => self.sides().for_each(|side| side.publish(*org, keys)),
            Step::Post { topic, bulk } => {
                let text = format!("{}\n", self.posted);
                self.posted += 1;
                let message = Message::new("m", Payload::Text(&text), *bulk, 10_000);
                let message = message.expect("short");
                self.sides().for_each(|side| side.post(*topic, &message));
            }
            Step::Close(topic) => self.sides().for_each(|side| side.close(*topic)),
            Step::Read { stream, room } => {
                let number = stream % self.opened.max(1);
                self.sides().for_each(|side| side.read(number, *room));
            }
            Step::Drop(stream) => {
                let number = stream % self.opened.max(1);
                self.sides().for_each(|side| _ = side.streams.remove(&number));
            }
            Step::Wait(ms) => self.sides().for_each(|side| side.wait(*ms)),
            Step::Drive => self.sides().for_each(Side::drive),
            Step::Reread(n) => {
                self.commanded = true;
                for side in self.sides() {
                    // No key is held.
                    side.wait(60);
                    side.drive();
                    side.hub(*n).reread(&org(*n), side.time(), Duration::ZERO);
                }
                // The turns of streams depend on the number of shards.
                self.end_commands();
            }
            Step::Tidy => self.sides().for_each(|side| side.tidy()),
            Step::Move(shards) => self.go(*shards),
        }
        if let Some(moved) = &self.moved {
            assert_eq!(moved.seen(), self.twin.seen());
            assert!(moved.streams.keys().eq(self.twin.streams.keys()));
        }
    }

    fn end_commands(&mut self) {
        for _ in 0..10 {
            for side in self.sides() {
                side.drive();
                side.wait(100);
            }
        }
        assert!(!self.sides().any(|side| side.hub(0).has_commands()));
    }

    /// Moves every stream that can be moved. The others end.
    fn go(&mut self, shards: usize) {
        // What burst windows hold is appended.
        for side in self.sides() {
            super::saved(side.hub(0), side.time());
            // Those that are still listed would close later ones too early.
            let shards = side.hubs.iter().map(Hub::shard);
            shards.for_each(|shard| while shard.pop_window(Time(u64::MAX)).is_some() {});
        }
        // The hints of filters stay, and what a stream gets that has still to re-read.
        let commanded = std::mem::take(&mut self.commanded);
        for side in self.sides() {
            let to_read = |side: &Side| {
                let streams = side.streams.iter();
                let reads = streams.filter(|(_, stream)| commanded || stream.has_filter);
                reads.map(|(number, _)| *number).collect::<Vec<_>>()
            };
            for number in to_read(side) {
                side.read(number, 1_000);
                side.catch_up(number);
            }
        }
        let from = self.moved.as_ref().unwrap_or(&self.twin);
        let states = exported(from);
        let stay = |number: &usize| !states.iter().any(|(of, _)| of == number);
        let stay: Vec<_> = from.streams.keys().copied().filter(stay).collect();
        for side in self.sides() {
            stay.iter().for_each(|number| _ = side.streams.remove(number));
        }

        // What is too old is not restored.
        self.sides().for_each(|side| side.tidy());
        let from = self.moved.as_ref().unwrap_or(&self.twin);
        let hub = Hub::with_shards(config(), shards);
        let mut to = Side::new(&hub, shards, from.offset + 33_000, from.now);
        restore(&hub, &written(from), to.time().0);
        for (number, state) in states {
            let bytes = minicbor::to_vec(&state).expect("to memory");
            let state: SeatState = minicbor::decode(&bytes).expect("it was encoded");
            let subscription = to.hub(number).import(&state, to.time()).expect("valid");
            to.take(number, &from.streams[&number], subscription);
        }
        assert_eq!(hub.end_restore(to.time()), 0, "all have come");
        assert_eq!(hub.channels(), from.hub(0).channels());
        to.received.clone_from(&from.received);
        self.moved = Some(to);
    }
}

/// The streams that can move.
fn exported(side: &Side) -> Vec<(usize, SeatState)> {
    let exporters: Vec<_> = side.hubs.iter().map(Hub::exporter).collect();
    let streams = side.streams.iter().filter_map(|(number, stream)| {
        let subscription = &stream.subscription;
        let exporter = &exporters[subscription.place().0.index()];
        Some((*number, exporter.export(subscription, side.time())?))
    });
    streams.collect()
}

fn written(side: &Side) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    side.hub(0).save(side.time(), &mut |record| writer.write(&record)).expect("to memory");
    writer.finish().expect("to memory")
}

fn restore(hub: &Hub, bytes: &[u8], now: u64) {
    let mut reader = RecordReader::<_, Record>::new(bytes);
    while let Some(record) = reader.next().expect("whole") {
        hub.restore(record, Duration::ZERO, Time(now)).expect("valid");
    }
}

fn opening() -> impl Strategy<Value = Opening> {
    let view = prop_oneof![Just(View::Member), Just(View::Public)];
    let at = prop_oneof![
        (0..2usize, view).prop_map(|(org, view)| At::Org(org, view)),
        (0..3usize, any::<bool>(), prop::bool::weighted(0.15))
            .prop_map(|(topic, all, exclusive)| At::Topic { topic, all, exclusive }),
    ];
    let room = prop_oneof![3 => Just(1_000usize), 2 => 0..4usize];
    let filter = prop::option::weighted(0.2, any::<u8>());
    let deadline = prop::option::weighted(0.2, 1..9_000u64);
    // A token that has expired when its stream opens ends it at the next second of one clock or the other.
    let expires = prop::option::weighted(0.1, 3..9u64);
    (at, 0..6usize, room, any::<bool>(), filter, deadline, expires).prop_map(
        |(at, shard, room, cuts, filter, deadline, expires)| {
            let filter = filter.filter(|_| matches!(at, At::Org(..)));
            Opening { at, shard, room, cuts, filter, deadline, expires }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => opening().prop_map(Step::Open),
        10 => (0..2usize, prop::collection::vec(0..10u8, 1..4))
            .prop_map(|(org, keys)| Step::Publish { org, keys }),
        10 => (0..3usize, any::<bool>()).prop_map(|(topic, bulk)| Step::Post { topic, bulk }),
        1 => (0..3usize).prop_map(Step::Close),
        6 => (0..1_000usize, 0..4usize).prop_map(|(stream, room)| Step::Read { stream, room }),
        2 => (0..1_000usize).prop_map(Step::Drop),
        8 => prop_oneof![3 => 1..80u64, 1 => 100..3_000u64].prop_map(Step::Wait),
        8 => Just(Step::Drive),
        1 => (0..2usize).prop_map(Step::Reread),
        2 => Just(Step::Tidy),
        3 => (1..4usize).prop_map(Step::Move),
    ]
}

proptest! {
    /// Whatever happens before and after, and however often they move.
    #[test]
    fn streams_that_move_receive_what_they_would_have_received(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.apply(step));
        world.apply(&Step::Move(2));
        for number in 0..world.opened {
            world.apply(&Step::Read { stream: number, room: 1_000 });
        }
        for step in [Step::Drive, Step::Wait(9_000), Step::Drive] {
            world.apply(&step);
        }
    }
}
