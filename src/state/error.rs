//! Why a server cannot keep its state in a file, and why it cannot use the one that it found.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::records::InvalidRecords;
use super::sealed::VERSION;

/// Why a server cannot keep its state in a file. Nothing was changed, unless it says so.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// It shares a log with others, which has the histories.
    Backplane,
    /// The path does not end in the name of a file.
    NoName {
        /// The path.
        file: PathBuf,
    },
    /// There is something that is no regular file.
    Irregular {
        /// Where.
        file: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// There is a file of another user.
    Owner {
        /// The file.
        file: PathBuf,
        /// The owner's number.
        uid: u32,
        /// That of the user that the server runs as.
        own: u32,
    },
    /// There is a file that nudged has not written.
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// Another server that runs keeps its state there.
    InUse {
        /// The file in which that one will write.
        file: PathBuf,
    },
    /// The system refused.
    Refused {
        /// What it refused, with the name of the file or folder.
        what: String,
        /// Its error.
        why: io::Error,
    },
}

/// Why the state in a file is not used. Clients re-read everything then.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It was written by a version whose format this one does not read.
    Version(u32),
    /// It is not as it was written, or could not be read.
    Invalid(InvalidRecords),
    /// It is another file than the one that was written, or has further names.
    Copied,
    /// It is from the future, by this much.
    Future(Duration),
    /// It is older than anything in it is kept.
    Stale { age: Duration, max: Duration },
}

// ===== impl StateError =====

impl StateError {
    pub(super) fn refused(what: &str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", file.display());
        |why| Self::Refused { what, why }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backplane => f.write_str(
                "--state does nothing with --backplane: clients resume from the log, over a restart too",
            ),
            Self::NoName { file } => write!(
                f,
                "--state {}: the path does not end in the name of a file",
                file.display()
            ),
            Self::Irregular { file, kind } => write!(
                f,
                "--state: {} is {kind}, and has to be a regular file, or nothing",
                file.display()
            ),
            Self::Owner { file, uid, own } => write!(
                f,
                "--state: {} belongs to the user {uid}, and this server runs as the user {own}; remove it, \
                 or name another file",
                file.display()
            ),
            Self::Foreign { file } => write!(
                f,
                "--state: {} is no state of nudged, and would be overwritten; remove it, or name another file",
                file.display()
            ),
            Self::InUse { file } => write!(
                f,
                "--state: another server is running that keeps its state there (it has locked {}); stop it \
                 first, or name another file",
                file.display()
            ),
            Self::Refused { what, why } => write!(f, "--state: cannot {what}: {why}"),
        }
    }
}

impl std::error::Error for StateError {}

// ===== impl Unusable =====

impl From<InvalidRecords> for Unusable {
    fn from(why: InvalidRecords) -> Self {
        Self::Invalid(why)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "its format is version {version}, of another nudged; this one reads version {}",
                VERSION
            ),
            Self::Invalid(why) => why.fmt(f),
            Self::Copied => f.write_str(
                "it is a copy, or there is another name for it, so it may be from an earlier stop",
            ),
            Self::Future(by) => write!(
                f,
                "it was written {} s from now: the clock was set back, so its age is not known",
                by.as_secs()
            ),
            Self::Stale { age, max } => write!(
                f,
                "it was written {} s ago, and nothing in it is kept for more than {} s (--history-age, \
                 --topic-age)",
                age.as_secs(),
                max.as_secs()
            ),
        }
    }
}
