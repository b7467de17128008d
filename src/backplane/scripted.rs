//! A broker in memory that loses, repeats, stalls, truncates and restarts on command.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::broker::{
    Appender, Bounds, Broker, Down, Entry, Kind, NotStored, Opened, Reader, Record, VERSION,
};
use crate::sync::Mutex;

/// A server's way to the broker. All of them share one log.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    shared: Arc<Shared>,
    /// Which server it is of.
    node: usize,
    /// Another run of the broker is none, but another log is.
    trusts: bool,
}

/// One connection of a server.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    broker: Scripted,
    /// All connections before this number are broken.
    number: u64,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    changed: Notify,
}

/// The log, and what is wrong with it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    entries: BTreeMap<u64, Entry>,
    /// What the log has forgotten.
    lost: Vec<Entry>,
    oldest: u64,
    newest: u64,
    /// The run of the broker.
    run: String,
    /// How often the log was created.
    created: u64,
    payload_max: usize,
    /// Connections of lower numbers are broken.
    connections: u64,
    broken_before: BTreeMap<usize, u64>,
    /// Nothing responds, and connections break.
    down: bool,
    cut_off: HashSet<usize>,
    /// These are delivered nothing.
    stalled: HashSet<usize>,
    /// Connections of lower numbers are delivered nothing, and get no error: their consumer is gone.
    orphans_before: u64,
    /// What is appended takes this way.
    acks: Acks,
    /// What these append is still under way: it is stored later, even if their connection is lost meanwhile.
    delayed: HashSet<usize>,
    under_way: VecDeque<Record>,
    /// Readers see this much less than there is.
    lag: u64,
    /// The next read begins this much earlier.
    repeat: u64,
    /// The next read misses as many records, which are there.
    skip: u64,
    opens: u64,
}

/// What becomes of appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    /// Stored and acknowledged.
    Prompt,
    /// Stored at once, and acknowledged after this time.
    Late(Duration),
    /// Stored, and never acknowledged.
    Lost,
    /// Neither stored nor acknowledged.
    Swallowed,
    /// Refused, and not stored.
    Refused,
    /// Stored, and the append panics.
    Panic,
}

/// Records of one read.
const BATCH: usize = 64;

/// How long a read waits for a record.
const WAIT: Duration = Duration::from_secs(2);

// ===== impl Scripted =====

impl Scripted {
    pub(crate) fn new() -> Self {
        let script = Script {
            entries: BTreeMap::new(),
            lost: Vec::new(),
            oldest: 1,
            newest: 0,
            run: "run-1".into(),
            created: 1,
            payload_max: 1 << 20,
            connections: 0,
            broken_before: BTreeMap::new(),
            down: false,
            cut_off: HashSet::new(),
            stalled: HashSet::new(),
            orphans_before: 0,
            acks: Acks::Prompt,
            delayed: HashSet::new(),
            under_way: VecDeque::new(),
            lag: 0,
            repeat: 0,
            skip: 0,
            opens: 0,
        };
        let shared = Shared { script: Mutex::new(script), changed: Notify::new() };
        Self { shared: Arc::new(shared), node: 0, trusts: false }
    }

    /// The same broker, for another server.
    pub(crate) fn of_node(&self, node: usize) -> Self {
        Self { node, ..self.clone() }
    }

    /// The same broker, for servers that trust its disk.
    pub(crate) fn trusting(&self) -> Self {
        Self { trusts: true, ..self.clone() }
    }

    pub(crate) fn identity(&self) -> String {
        self.shared.script.lock().bounds(self.trusts).identity
    }

    /// Changes it, and has everything look again.
    pub(crate) fn edit<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let result = change(&mut self.shared.script.lock());
        self.shared.changed.notify_waiters();
        result
    }

    /// Opens it, without waiting.
    pub(crate) fn connect(&self) -> Result<(Connection, Bounds), Down> {
        let opened = self.edit(|script| {
            script.opens += 1;
            if script.down || script.cut_off.contains(&self.node) {
                return Err(Down("the broker is down".into()));
            }
            script.connections += 1;
            Ok((script.connections, script.bounds(self.trusts)))
        });
        let (number, bounds) = opened?;
        Ok((Connection { broker: self.clone(), number }, bounds))
    }
}

// ===== impl Connection =====

impl Connection {
    /// The bounds, without waiting.
    pub(crate) fn bounds_now(&self) -> Result<Bounds, Down> {
        let script = self.broker.shared.script.lock();
        self.check(&script)?;
        Ok(script.bounds(self.broker.trusts))
    }

    /// Records from `from` on, which may be none, without waiting.
    pub(crate) fn read_now(&self, from: u64) -> Result<Vec<Entry>, Down> {
        let mut script = self.broker.shared.script.lock();
        self.check(&script)?;
        if script.stalled.contains(&self.broker.node) || self.number < script.orphans_before {
            return Ok(Vec::new());
        }
        Ok(script.read(from))
    }

    /// Stores a record, or does not. `None` if there will be no acknowledgement.
    pub(crate) fn append_now(&self, record: Record) -> Result<Option<u64>, NotStored> {
        self.broker.edit(|script| {
            self.check(script).map_err(|Down(why)| NotStored(why))?;
            if script.delayed.contains(&self.broker.node) {
                script.under_way.push_back(record);
                return Ok(None);
            }
            match script.acks {
                Acks::Refused => Err(NotStored("refused".into())),
                Acks::Swallowed => Ok(None),
                acks => {
                    let position = script.store(record);
                    Ok((acks != Acks::Lost).then_some(position))
                }
            }
        })
    }

    fn check(&self, script: &Script) -> Result<(), Down> {
        let node = self.broker.node;
        let before = script.broken_before.get(&node).copied().unwrap_or_default();
        let is_broken = script.down || script.cut_off.contains(&node) || self.number < before;
        if is_broken { Err(Down("the connection is broken".into())) } else { Ok(()) }
    }
}

// ===== impl Script =====

impl Script {
    fn bounds(&self, trusts: bool) -> Bounds {
        let identity = if trusts {
            format!("stream {}", self.created)
        } else {
            format!("server {}", self.run)
        };
        Bounds {
            oldest: self.oldest,
            newest: self.shown(),
            identity,
            payload_max: self.payload_max,
        }
    }

    /// The newest record that readers see.
    fn shown(&self) -> u64 {
        self.newest.saturating_sub(self.lag).max(self.oldest - 1)
    }

    fn read(&mut self, from: u64) -> Vec<Entry> {
        let newest = self.shown();
        // As NATS 2.9, which begins after the last record if it is asked for a later one.
        let from = (from.min(newest + 1) + self.skip).saturating_sub(self.repeat).max(self.oldest);
        let found = self.entries.range(from..).take_while(|(position, _)| **position <= newest);
        let found: Vec<_> = found.take(BATCH).map(|(_, entry)| entry.clone()).collect();
        if !found.is_empty() {
            (self.skip, self.repeat) = (0, 0);
        }
        found
    }

    fn store(&mut self, record: Record) -> u64 {
        let Record { tag, kind, payload } = record;
        self.newest += 1;
        let (position, version, kind) = (self.newest, VERSION, Some(kind));
        self.entries.insert(position, Entry { position, tag, version, kind, payload });
        position
    }

    /// A record of another publisher.
    pub(crate) fn push(&mut self, tag: u64, kind: Kind, payload: impl Into<Bytes>) -> u64 {
        self.store(Record { tag, kind, payload: payload.into() })
    }

    /// A record of any form, at the next position.
    pub(crate) fn push_entry(&mut self, entry: Entry) -> u64 {
        self.newest += 1;
        let position = self.newest;
        self.entries.insert(position, Entry { position, ..entry });
        position
    }

    /// The log forgets its last records, and uses their positions again.
    pub(crate) fn truncate(&mut self, newest: u64) {
        self.lost.extend(self.entries.split_off(&(newest + 1)).into_values());
        self.newest = self.newest.min(newest).max(self.oldest - 1);
    }

    /// The oldest records go.
    pub(crate) fn trim(&mut self, oldest: u64) {
        self.oldest = self.oldest.max(oldest.min(self.newest + 1));
        let oldest = self.oldest;
        self.entries.retain(|position, _| *position >= oldest);
    }

    /// One record goes, and leaves a hole.
    pub(crate) fn remove(&mut self, position: u64) {
        self.entries.remove(&position);
    }

    /// The log is deleted, and begins anew.
    pub(crate) fn reset(&mut self) {
        self.entries.clear();
        (self.oldest, self.newest) = (1, 0);
        self.created += 1;
    }

    /// Another log, with what there was.
    pub(crate) fn recreate(&mut self) {
        self.created += 1;
        self.disconnect_all();
    }

    /// Another run of the broker, with what it had.
    pub(crate) fn restart(&mut self, run: &str) {
        self.run = run.into();
        self.disconnect_all();
    }

    pub(crate) fn disconnect_all(&mut self) {
        (0..64).for_each(|node| self.disconnect(node));
    }

    /// The connections of a server break.
    pub(crate) fn disconnect(&mut self, node: usize) {
        self.broken_before.insert(node, self.connections + 1);
    }

    /// No connection that is open now is delivered anything any more.
    pub(crate) fn orphan_all(&mut self) {
        self.orphans_before = self.connections + 1;
    }

    pub(crate) fn set_down(&mut self, down: bool) {
        self.down = down;
        if down {
            self.disconnect_all();
        }
    }

    pub(crate) fn set_cut_off(&mut self, node: usize, cut_off: bool) {
        if cut_off {
            self.cut_off.insert(node)
        } else {
            self.cut_off.remove(&node)
        };
        if cut_off {
            self.disconnect(node);
        }
    }

    pub(crate) fn set_stalled(&mut self, node: usize, stalled: bool) {
        if stalled {
            self.stalled.insert(node)
        } else {
            self.stalled.remove(&node)
        };
    }

    pub(crate) fn set_acks(&mut self, acks: Acks) {
        self.acks = acks;
    }

    pub(crate) fn set_delayed(&mut self, node: usize, delayed: bool) {
        if delayed {
            self.delayed.insert(node)
        } else {
            self.delayed.remove(&node)
        };
    }

    /// The first records that are under way are stored, whatever has become of their connections.
    pub(crate) fn store_delayed(&mut self, records: usize) {
        for _ in 0..records {
            let Some(record) = self.under_way.pop_front() else { return };
            self.store(record);
        }
    }

    pub(crate) fn set_lag(&mut self, lag: u64) {
        self.lag = lag;
    }

    pub(crate) fn set_payload_max(&mut self, max: usize) {
        self.payload_max = max;
    }

    pub(crate) fn repeat_once(&mut self, records: u64) {
        self.repeat = records;
    }

    pub(crate) fn skip_once(&mut self, records: u64) {
        self.skip = records;
    }

    pub(crate) fn is_skipping(&self) -> bool {
        self.skip > 0
    }

    /// Nothing is wrong any more, but with connections that are of no use.
    pub(crate) fn heal(&mut self) {
        (self.down, self.acks, self.lag, self.repeat, self.skip) = (false, Acks::Prompt, 0, 0, 0);
        self.cut_off.clear();
        self.stalled.clear();
        self.delayed.clear();
        self.store_delayed(usize::MAX);
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    pub(crate) fn opens(&self) -> u64 {
        self.opens
    }

    pub(crate) fn entry(&self, position: u64) -> Option<&Entry> {
        self.entries.get(&position)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What it has forgotten.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &Entry> {
        self.lost.iter()
    }

    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.entries().filter(|entry| entry.kind == Some(kind)).count()
    }
}

// ===== impl Broker =====

impl Broker for Scripted {
    type Reader = Connection;
    type Appender = Connection;

    async fn open(&self) -> Result<Opened<Connection, Connection>, Down> {
        let (connection, bounds) = self.connect()?;
        Ok(Opened { reader: connection.clone(), appender: connection, bounds })
    }
}

impl Reader for Connection {
    async fn bounds(&mut self) -> Result<Bounds, Down> {
        self.bounds_now()
    }

    async fn read(&mut self, from: u64) -> Result<Vec<Entry>, Down> {
        let wait = super::wait::within(WAIT, async {
            loop {
                let mut changed = std::pin::pin!(self.broker.shared.changed.notified());
                changed.as_mut().enable();
                match self.read_now(from) {
                    Ok(found) if found.is_empty() => changed.await,
                    result => return result,
                }
            }
        });
        wait.await.unwrap_or(Ok(Vec::new()))
    }
}

impl Appender for Connection {
    async fn append(&self, record: Record) -> Result<u64, NotStored> {
        let acks = self.broker.shared.script.lock().acks;
        let stored = self.append_now(record)?;
        assert!(acks != Acks::Panic, "as the script says");
        if let Acks::Late(time) = acks {
            super::wait::sleep(time).await;
        }
        match stored {
            Some(position) => Ok(position),
            None => pending().await,
        }
    }
}
