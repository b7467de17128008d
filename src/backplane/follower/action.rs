//! What a follower wants to have done.

use bytes::Bytes;

use crate::backplane::broker::Record;
use crate::ids::Mark;

/// What is to be done, in order.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// The first record to come has this position, and what was before is unknown.
    Begin(u64),
    /// The next record, which may have no lines.
    Apply(Mark, Bytes),
    /// Everything up to this record, which is the head from now on, is unknown.
    Cut(Mark, CutReason),
    /// Append this. It comes back, or the log is opened again.
    Append(Record),
    /// The connection is of no use any more, for this reason.
    Reopen(Reopen),
    /// Everything that there was at the start has been applied.
    Loaded,
    /// For the log of the server.
    Note(Note),
}

/// Why everything before is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutReason {
    /// The log no longer has the next records.
    Trimmed,
    /// Records within the log are missing.
    Gap,
    /// The log has lost what it had.
    Forgot,
    /// A barrier, of any server.
    Barrier,
    /// A record of a version that this server does not know.
    Version,
}

/// Why the log is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reopen {
    /// A record is missing.
    Gap,
    /// A record is not the one that was read before.
    Changed,
    /// What was appended does not come back.
    Lost,
    /// What the log has is not read.
    Stalled,
    /// Another server goes by another run of the broker.
    Run,
}

/// What is written to the log of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A barrier or beat that is none, at this position.
    Bad(u64),
    /// So many records of a version that this server does not know, of which the last has this version and position.
    Versions { records: u64, version: u32, position: u64 },
    /// This server is not configured as another one.
    OtherLimits { node: String, version: String },
    /// A barrier was read, with this reason.
    Barrier(String),
}

// ===== impl CutReason =====

impl CutReason {
    pub(crate) const ALL: [Self; 5] =
        [Self::Trimmed, Self::Gap, Self::Forgot, Self::Barrier, Self::Version];

    /// The label in `nudged_backplane_cuts_total{reason="…"}`.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Gap => "gap",
            Self::Forgot => "forgot",
            Self::Barrier => "barrier",
            Self::Version => "version",
        }
    }
}

// ===== impl Reopen =====

impl std::fmt::Display for Reopen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gap => "a record is missing",
            Self::Changed => "a record is not the one that was read before",
            Self::Lost => "what was appended does not come back",
            Self::Stalled => "the log has records that are not read",
            Self::Run => "another server names another run of the broker",
        })
    }
}
