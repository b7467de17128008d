//! A broker in memory that loses, repeats, stalls, truncates and restarts on command.

mod log;
mod redis;
mod script;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub(crate) use self::script::{Acks, Script};
use super::broker::{Appender, Bounds, Broker, Down, Entry, NotStored, Opened, Reader, Record};
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

/// As which broker it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Semantics {
    JetStream,
    RedisStreams,
}

/// One connection of a server.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    broker: Scripted,
    /// All connections before this number are broken.
    number: u64,
    /// That of the broker, when it was opened.
    identity: String,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    changed: Notify,
}

/// How long a read waits for a record.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

// ===== impl Scripted =====

impl Scripted {
    pub(crate) fn new() -> Self {
        Self::with(Semantics::JetStream)
    }

    pub(crate) fn with(semantics: Semantics) -> Self {
        let script = Mutex::new(Script::new(semantics));
        let shared = Shared { script, changed: Notify::new() };
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
            if script.refuses(self.node) {
                return Err(Down("the broker is down".into()));
            }
            script.connections += 1;
            Ok((script.connections, script.bounds(self.node, self.trusts)))
        });
        let (number, bounds) = opened?;
        let identity = bounds.identity.clone();
        Ok((Connection { broker: self.clone(), number, identity }, bounds))
    }
}

// ===== impl Connection =====

impl Connection {
    /// The bounds, without waiting.
    pub(crate) fn bounds_now(&self) -> Result<Bounds, Down> {
        let script = self.broker.shared.script.lock();
        self.check(&script)?;
        let bounds = script.bounds(self.broker.node, self.broker.trusts);
        if script.semantics == Semantics::RedisStreams && bounds.identity != self.identity {
            return Err(Down("the broker has another history than before".into()));
        }
        Ok(bounds)
    }

    /// Records from `from` on, which may be none, without waiting.
    pub(crate) fn read_now(&self, from: u64) -> Result<Vec<Entry>, Down> {
        let mut script = self.broker.shared.script.lock();
        self.check(&script)?;
        if script.is_silent(self.broker.node, self.number) {
            return Ok(Vec::new());
        }
        Ok(script.read(self.broker.node, from))
    }

    /// What the reader of Redis does once no record has come for [`WAIT`].
    pub(crate) fn quiet_now(&self, from: u64) -> Result<(), Down> {
        let script = self.broker.shared.script.lock();
        if script.semantics == Semantics::JetStream {
            return Ok(());
        }
        if script.is_silent(self.broker.node, self.number) {
            return Err(Down("no answer".into()));
        }
        drop(script);
        let Bounds { newest, .. } = self.bounds_now()?;
        if newest + 1 < from { Err(Down("the log is shorter than before".into())) } else { Ok(()) }
    }

    /// Stores a record, or does not. `None` if there will be no acknowledgement.
    pub(crate) fn append_now(&self, record: Record) -> Result<Option<u64>, NotStored> {
        self.broker.edit(|script| {
            self.check(script).map_err(|Down(why)| NotStored(why))?;
            let node = self.broker.node;
            if script.delays(node) {
                script.delay(node, record);
                return Ok(None);
            }
            match script.acks {
                Acks::Refused => Err(NotStored("refused".into())),
                Acks::Swallowed => Ok(None),
                acks => {
                    let position = script.append(node, record);
                    Ok((acks != Acks::Lost).then_some(position))
                }
            }
        })
    }

    fn check(&self, script: &Script) -> Result<(), Down> {
        let is_broken = script.is_broken(self.broker.node, self.number);
        if is_broken { Err(Down("the connection is broken".into())) } else { Ok(()) }
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
        match wait.await {
            Some(read) => read,
            None => self.quiet_now(from).map(|()| Vec::new()),
        }
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
