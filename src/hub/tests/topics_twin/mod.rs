//! Compares topics with a naive twin, over random operations in virtual time. Orgs are beside them on the same hub: they
//! behave as on a hub without topics.

mod bounds;
mod log;
mod orgs;
mod random;
mod reader;
mod steps;

use std::collections::HashMap;
use std::time::Duration;

use self::log::Log;
use self::orgs::Orgs;
use self::reader::{Away, Reader};
use crate::config::HubConfig;
use crate::hub::{CommandPasses, Drain, Hub};
use crate::ids::{Epoch, Topic};

/// Numbers of topics, readers and the like are taken modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Open {
        topic: usize,
        start: From,
        exclusive: bool,
        shard: usize,
        lane: Lane,
    },
    /// A client that is away comes back with its last id.
    Return {
        away: usize,
        exclusive: bool,
        shard: usize,
        lane: Lane,
    },
    Publish {
        topic: usize,
        bulk: bool,
        size: usize,
        shard: usize,
    },
    Close {
        topic: usize,
        shard: usize,
    },
    /// A client reads; `room` is how many events its socket takes from here on before it is full.
    Read {
        reader: usize,
        room: usize,
    },
    ReadAll,
    /// It ends this many milliseconds from now.
    EndAfter {
        reader: usize,
        ms: u64,
    },
    Drop(usize),
    /// It loses its connection, and keeps the last id that it has received.
    Leave(usize),
    /// A newcomer looks whether its rivals are gone.
    LookSole(usize),
    /// A newcomer has waited for long enough.
    EndRivals(usize),
    Org(orgs::Step),
    Wait(u64),
    /// One batch of one shard's driver.
    Sweep(usize),
    /// All pending work of the drivers.
    Drive,
    Tidy,
    Shut,
    Drain,
}

/// Where a stream starts.
#[derive(Clone, Copy, Debug)]
enum From {
    All,
    Now,
    /// Counted back from one beyond the newest event, of this run or of the one before.
    After(u64, bool),
    /// So many milliseconds ago.
    Since(u64),
}

/// What delivers to a stream.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Task,
    /// The driver, whose socket takes so many events before it is full.
    Socket(usize),
}

/// What bounds the topics of a world.
#[derive(Clone, Copy, Debug)]
struct Limits {
    events: usize,
    bytes: usize,
    bytes_total: usize,
    idle: usize,
    streams: Option<usize>,
}

struct World {
    hubs: [Hub; 2],
    passes: [CommandPasses; 2],
    drains: [Option<Drain>; 2],
    topics: Vec<Topic>,
    /// The run of each topic that is remembered, as far as the twin knows.
    current: Vec<Option<Epoch>>,
    former: Vec<Option<Epoch>>,
    logs: HashMap<Epoch, Log>,
    readers: Vec<Reader>,
    away: Vec<Away>,
    orgs: Orgs,
    limits: Limits,
    closing: bool,
    /// Numbers the readers, and so their sockets.
    opened: u32,
    published: usize,
    now: u64,
    tick: u64,
}

const TOPICS: usize = 5;
const AGE: u64 = 3_000;

/// Applies the steps, and panics where the hub breaks a promise.
fn check(limits: Limits, steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new(limits);
    for step in steps {
        world.apply(step);
        world.check_bounds();
    }
    world.settle();
}

fn config(limits: Limits) -> HubConfig {
    HubConfig {
        keepalive: Duration::from_secs(100_000),
        coalesce: Duration::ZERO,
        stall_timeout: Duration::from_secs(100_000),
        history_events: 6,
        topic_age: Duration::from_millis(AGE),
        topic_events: limits.events,
        topic_bytes: limits.bytes,
        topics_bytes_total: limits.bytes_total,
        idle_topics_max: limits.idle,
        topic_streams_max: limits.streams,
        ..HubConfig::default()
    }
}

// ===== impl Limits =====

impl Limits {
    /// Whether a topic may be forgotten before its age.
    fn may_forget(&self) -> bool {
        self.idle < TOPICS || self.bytes_total < usize::MAX / 2
    }

    /// Whether only the number of events bounds a topic.
    fn count_only(&self) -> bool {
        self.bytes.min(self.bytes_total) >= usize::MAX / 2
    }
}
