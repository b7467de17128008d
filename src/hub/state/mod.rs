//! What of a hub and of its seats outlives the process: in a file over a restart, or on its way to a successor. Each struct
//! is its own format (CBOR arrays, whose elements have numbers): an optional element may be added at the end, which an
//! older version skips; any other change is another version of the format. Times are ages, in milliseconds.

mod counters;
mod export;
mod restore;
mod save;

use minicbor::{Decode, Encode};

pub(crate) use self::export::{Exporter, ImportError};
pub(crate) use self::restore::RestoreError;
pub(super) use self::restore::{Passed, SAVED_BYTES_MAX, SEQ_MAX};
pub(crate) use self::save::Copied;

/// What an organisation's channel remembers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct OrgState {
    /// Its name.
    #[n(0)]
    pub(crate) org: String,
    #[n(1)]
    pub(crate) member: FeedState,
    #[n(2)]
    pub(crate) public: Option<FeedState>,
    /// Since it was last used.
    #[n(3)]
    pub(crate) idle_ms: u64,
    /// It has streams, and is in use whatever its age.
    #[n(4)]
    pub(crate) in_use: bool,
    /// For how long publishes still become one event with what follows them.
    #[n(5)]
    pub(crate) window_ms: u64,
}

/// What a view of an organisation remembers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct FeedState {
    #[n(0)]
    pub(crate) epoch: u64,
    /// The number of the newest event.
    #[n(1)]
    pub(crate) head: u64,
    /// The newest events, without gaps, oldest first.
    #[n(2)]
    pub(crate) events: Vec<EventState>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct EventState {
    #[n(0)]
    pub(crate) age_ms: u64,
    /// Its text, without the chunk's frame.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) text: Vec<u8>,
}

/// What a topic keeps.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct TopicState {
    #[n(0)]
    pub(crate) org: String,
    #[n(1)]
    pub(crate) topic: String,
    #[n(2)]
    pub(crate) epoch: u64,
    #[n(3)]
    pub(crate) head: u64,
    /// The last event that is gone and was not bulk.
    #[n(4)]
    pub(crate) gone: u64,
    #[n(5)]
    pub(crate) events: Vec<KeptState>,
    /// Since it was last used.
    #[n(6)]
    pub(crate) idle_ms: u64,
    /// It has streams, and is in use whatever its age.
    #[n(7)]
    pub(crate) in_use: bool,
}

/// One event of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct KeptState {
    #[n(0)]
    pub(crate) seq: u64,
    #[n(1)]
    pub(crate) bulk: bool,
    #[n(2)]
    pub(crate) age_ms: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(crate) text: Vec<u8>,
}

/// What is new of an organisation: its views go on from where they are known. The events of the state are only those that
/// came since.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct NewerOrgState {
    #[n(0)]
    pub(crate) state: OrgState,
    /// The number before the first event that is remembered.
    #[n(1)]
    pub(crate) member_start: u64,
    /// The same for the public view.
    #[n(2)]
    pub(crate) public_start: Option<u64>,
}

/// What is new of a topic, which goes on from where it is known. The events of the state are only those that came since.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct NewerTopicState {
    #[n(0)]
    pub(crate) state: TopicState,
    /// Bulk events before this number are gone.
    #[n(1)]
    pub(crate) bulk_first: u64,
    /// Other events before this number are gone.
    #[n(2)]
    pub(crate) first: u64,
}

/// An organisation that is known, or a topic, is forgotten: no id of it is covered any more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct GoneState {
    #[n(0)]
    pub(crate) org: String,
    #[n(1)]
    pub(crate) topic: Option<String>,
}

/// The counters of all shards, added up. See [`Counters`](crate::metrics::Counters).
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct CountersState {
    /// By view.
    #[n(0)]
    pub(crate) opened: Vec<u64>,
    /// By view, and by the label of the reason.
    #[n(1)]
    pub(crate) closed: Vec<(String, Vec<u64>)>,
    #[n(2)]
    pub(crate) published: u64,
    #[n(3)]
    pub(crate) coalesced: u64,
    #[n(4)]
    pub(crate) delivered: u64,
    #[n(5)]
    pub(crate) keepalives: u64,
    #[n(6)]
    pub(crate) rereads: u64,
    /// By how the streams began.
    #[n(7)]
    #[cbor(default)]
    pub(crate) greeted: Vec<u64>,
    /// By how long sweeps took: the buckets of [`SweepTimes`](crate::metrics::SweepTimes), whose bounds stay.
    #[n(8)]
    #[cbor(default)]
    pub(crate) sweeps: Vec<u64>,
    #[n(9)]
    #[cbor(default)]
    pub(crate) sweeps_ms: u64,
}

/// The last record of the log that servers share which has reached every stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct LogState {
    #[n(0)]
    pub(crate) tag: u64,
    #[n(1)]
    pub(crate) position: u64,
}

/// One subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct SeatState {
    #[n(0)]
    pub(crate) org: String,
    #[n(1)]
    pub(crate) topic: Option<String>,
    /// It shows the public view of its organisation.
    #[n(2)]
    pub(crate) public: bool,
    /// The id up to which it has received everything.
    #[n(3)]
    pub(crate) epoch: u64,
    #[n(4)]
    pub(crate) seq: u64,
    /// It has to re-read everything as soon as it has taken what there is.
    #[n(5)]
    pub(crate) reread: bool,
    /// Since the last delivery.
    #[n(6)]
    pub(crate) silent_ms: u64,
    /// Since when pending bytes make no progress.
    #[n(7)]
    pub(crate) blocked_ms: Option<u64>,
    /// Its filter's bits.
    #[n(8)]
    pub(crate) filter: u64,
    /// It is kept open by an event, not by a comment.
    #[n(9)]
    pub(crate) ping: bool,
    #[n(10)]
    pub(crate) exclusive: bool,
    #[n(11)]
    pub(crate) deadlines: Vec<DeadlineState>,
    /// When its token expires, in seconds of the wall clock since 1970.
    #[n(12)]
    pub(crate) expires_s: Option<u64>,
    /// Of a topic: up to where it has been notified of events that are gone, if that is beyond its position.
    #[n(13)]
    pub(crate) notified: Option<u64>,
}

/// When a stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct DeadlineState {
    /// From now on.
    #[n(0)]
    pub(crate) in_ms: u64,
    /// The label of the reason.
    #[n(1)]
    pub(crate) reason: String,
}
