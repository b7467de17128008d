//! The outbox: what has to hold before a server starts that has one, and its start.

use std::fmt;
#[cfg(feature = "postgres")]
use std::io;
use std::path::PathBuf;
#[cfg(feature = "postgres")]
use std::sync::Arc;

#[cfg(feature = "postgres")]
use crate::backplane::Backplane;
use crate::config::Config;
#[cfg(feature = "postgres")]
use crate::http::OutboxCounters;
#[cfg(feature = "postgres")]
use crate::hub::Hub;
#[cfg(feature = "postgres")]
use crate::outbox::Outbox;
#[cfg(feature = "postgres")]
use crate::server::files::is_irregular;
#[cfg(feature = "postgres")]
use crate::stream::Clock;

/// Why a server cannot drain an outbox.
#[derive(Debug)]
#[non_exhaustive]
pub enum OutboxError {
    /// This build lacks the feature `postgres`.
    NoPostgres,
    /// The file of [`OutboxConfig::ca`](crate::config::OutboxConfig::ca) cannot be used.
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Checks what can be checked without the database.
#[cfg(feature = "postgres")]
pub(super) fn check(config: &Config) -> Result<(), OutboxError> {
    let Some(file) = config.outbox.as_ref().and_then(|outbox| outbox.ca.as_ref()) else {
        return Ok(());
    };
    let checked = match is_irregular(file) {
        true => Err("it is no regular file".into()),
        false => crate::outbox::authorities(file).map(drop),
    };
    checked.map_err(|why| OutboxError::Authorities { file: file.clone(), why })
}

#[cfg(not(feature = "postgres"))]
pub(super) fn check(config: &Config) -> Result<(), OutboxError> {
    if config.outbox.is_some() { Err(OutboxError::NoPostgres) } else { Ok(()) }
}

/// Begins to drain the outbox, if there is one, and counts there.
#[cfg(feature = "postgres")]
pub(super) fn start(
    config: &Config,
    hub: &Hub,
    clock: Clock,
    backplane: Option<&Backplane>,
    counters: &Arc<OutboxCounters>,
) -> io::Result<Option<Outbox>> {
    let start = |outbox| {
        let (hub, backplane, counters) = (hub.clone(), backplane.cloned(), counters.clone());
        Outbox::start(outbox, config.publish_bytes_max, hub, clock, backplane, counters)
    };
    config.outbox.as_ref().map(start).transpose()
}

// ===== impl OutboxError =====

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPostgres => f.write_str("--outbox: this build lacks the feature `postgres`"),
            Self::Authorities { file, why } => write!(f, "--outbox-ca {}: {why}", file.display()),
        }
    }
}

impl std::error::Error for OutboxError {}
