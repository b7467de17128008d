//! What a log has to be able to do, whatever broker it is in.

use std::fmt;
use std::future::Future;

use bytes::Bytes;

/// A broker with one log, whose positions count its records, from 1 and without gaps.
pub(crate) trait Broker: Send + Sync + 'static {
    type Reader: Reader;
    type Appender: Appender;

    /// Connects anew, and creates the log if there is none. What was opened before is of no use any more.
    fn open(
        &self,
    ) -> impl Future<Output = Result<Opened<Self::Reader, Self::Appender>, Down>> + Send;
}

/// A connection to the log.
#[derive(Debug)]
pub(crate) struct Opened<R, A> {
    pub(crate) reader: R,
    pub(crate) appender: A,
    pub(crate) bounds: Bounds,
}

/// What the log has, and which run of the broker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The position of the oldest record. An empty log has `oldest == newest + 1`.
    pub(crate) oldest: u64,
    pub(crate) newest: u64,
    /// Changes whenever the broker may have forgotten records that it acknowledged.
    pub(crate) identity: String,
    /// Whether this run may lose the last records and keep those before them. Otherwise a log that lacks what it had has
    /// been deleted, and all that is in it now is from after that.
    pub(crate) may_lose_last: bool,
    /// The largest record that the broker takes, in bytes of [`Record::payload`].
    pub(crate) payload_max: usize,
}

pub(crate) trait Reader: Send {
    /// The bounds of now.
    fn bounds(&mut self) -> impl Future<Output = Result<Bounds, Down>> + Send;

    /// Records at `from` or after it, in their order; none if there was none for some seconds. The first may be later
    /// than `from`, if that is gone, and records that were read may be repeated: the follower checks positions and tags.
    /// Dropping the future loses nothing.
    fn read(&mut self, from: u64) -> impl Future<Output = Result<Vec<Entry>, Down>> + Send;
}

pub(crate) trait Appender: Clone + Send + 'static {
    /// Appends a record. Returns its position. An error leaves open whether it is or will be stored.
    fn append(&self, record: Record) -> impl Future<Output = Result<u64, NotStored>> + Send;
}

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Drawn at random for this attempt; not 0.
    pub(crate) tag: u64,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    /// That of the attempt that stored it; of a record by others, what the broker makes of it (NATS: the time at which
    /// it was stored, in ns), or 0 if there is nothing.
    pub(crate) tag: u64,
    /// The version of its format, [`VERSION`] or another one.
    pub(crate) version: u32,
    /// `None` for a kind that this version does not know.
    pub(crate) kind: Option<Kind>,
    pub(crate) payload: Bytes,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Publishes and commands: lines of JSON.
    Lines,
    /// Every server takes all that was before it for unknown.
    Barrier,
    /// A sign of life, by which its server sees that the log works.
    Beat,
}

/// The version of the format of records that this server writes.
pub(crate) const VERSION: u32 = 1;

/// The broker cannot be used, for this reason. The runner opens it again.
#[derive(Clone, Debug)]
pub(crate) struct Down(pub(crate) String);

/// A record may or may not be stored, for this reason.
#[derive(Clone, Debug)]
pub(crate) struct NotStored(pub(crate) String);

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NotStored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Barrier => "barrier",
            Self::Beat => "beat",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Lines, Self::Barrier, Self::Beat].into_iter().find(|kind| kind.name() == name)
    }
}
