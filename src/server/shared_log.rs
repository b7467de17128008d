//! The log that several servers share: what has to hold before one starts, and its start.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::backplane::Backplane;
#[cfg(feature = "nats")]
use crate::backplane::nats::Nats;
#[cfg(feature = "redis")]
use crate::backplane::redis::Redis;
#[cfg(any(feature = "nats", feature = "redis"))]
use crate::backplane::tls::authorities;
use crate::config::{BackplaneConfig, BrokerKind, Config};
use crate::hub::Hub;
use crate::stream::Clock;

/// Why a server cannot share a log with others.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackplaneError {
    /// This build does not know the broker.
    NoBroker {
        /// The feature that it lacks.
        feature: &'static str,
    },
    /// Redis has no use for this setting.
    Redis {
        /// The flag.
        flag: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A publish may be larger than what one record of the log holds, which is `max` bytes.
    PublishBytes {
        /// [`Config::publish_bytes_max`].
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// The file of [`BackplaneConfig::ca`] cannot be used.
    Authorities {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: io::Error,
    },
}

/// Checks what can be checked without the broker.
pub(super) fn check(config: &Config) -> Result<(), BackplaneError> {
    let Some(backplane) = &config.backplane else { return Ok(()) };
    check_kind(backplane)?;
    let (bytes, max) = (config.publish_bytes_max, BackplaneConfig::PUBLISH_BYTES_MAX);
    if bytes > max {
        return Err(BackplaneError::PublishBytes { bytes, max });
    }
    match &backplane.ca {
        None => Ok(()),
        Some(file) => check_authorities(file)
            .map_err(|why| BackplaneError::Authorities { file: file.clone(), why }),
    }
}

fn check_kind(backplane: &BackplaneConfig) -> Result<(), BackplaneError> {
    let lacks = |feature| Err(BackplaneError::NoBroker { feature });
    let unfit = |flag, why| Err(BackplaneError::Redis { flag, why });
    match backplane.url.kind {
        BrokerKind::Nats if !cfg!(feature = "nats") => lacks("nats"),
        BrokerKind::Nats => Ok(()),
        BrokerKind::Redis { .. } if !cfg!(feature = "redis") => lacks("redis"),
        BrokerKind::Redis { .. } if backplane.trust_disk => unfit(
            "--backplane-trust-disk",
            "Redis acknowledges what is on no disk yet, and a failover may lose more, so clients re-read after each",
        ),
        BrokerKind::Redis { .. } if backplane.replicas != BackplaneConfig::REPLICAS => unfit(
            "--backplane-replicas",
            "the replicas of a Redis are configured there, and are not asked before a record is acknowledged",
        ),
        BrokerKind::Redis { .. } => Ok(()),
    }
}

/// Fails unless the file has certificates, and nothing in it is broken. They are read again at each connect.
#[cfg(any(feature = "nats", feature = "redis"))]
fn check_authorities(file: &Path) -> io::Result<()> {
    authorities(file).map(drop)
}

#[cfg(not(any(feature = "nats", feature = "redis")))]
fn check_authorities(_file: &Path) -> io::Result<()> {
    Ok(())
}

/// The hub of a server, with its log if it has one.
pub(super) fn hub(config: &Config) -> Hub {
    let Config { hub, workers, reread_window, .. } = config;
    match &config.backplane {
        None => Hub::with_shards(hub.clone(), *workers),
        Some(backplane) => {
            Hub::with_log(hub.clone(), *workers, backplane.tail_bytes, *reread_window)
        }
    }
}

/// Begins to follow the log, if there is one. It is loaded later.
pub(super) fn start(config: &Config, hub: &Hub, clock: Clock) -> io::Result<Option<Backplane>> {
    let start = |backplane| follow(backplane, config.publish_bytes_max, hub.clone(), clock);
    config.backplane.as_ref().map(start).transpose()
}

/// [`check`] has passed.
#[cfg_attr(
    not(all(feature = "nats", feature = "redis")),
    allow(unused_variables, reason = "each broker uses some of them")
)]
fn follow(
    config: &BackplaneConfig,
    publish_bytes: usize,
    hub: Hub,
    clock: Clock,
) -> io::Result<Backplane> {
    match config.url.kind {
        #[cfg(feature = "nats")]
        BrokerKind::Nats => {
            let broker = Nats::new(config).with_publish_bytes(publish_bytes);
            Backplane::start(broker, config, hub, clock)
        }
        #[cfg(feature = "redis")]
        BrokerKind::Redis { .. } => Backplane::start(Redis::new(config), config, hub, clock),
        #[cfg(not(all(feature = "nats", feature = "redis")))]
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

// ===== impl BackplaneError =====

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBroker { feature } => {
                write!(f, "--backplane: this build lacks the feature `{feature}`")
            }
            Self::Redis { flag, why } => {
                write!(f, "{flag} does nothing with a --backplane of Redis: {why}")
            }
            Self::PublishBytes { bytes, max } => write!(
                f,
                "--publish-bytes {bytes} is more than a record of the log holds; with --backplane it is \
                 at most {max}"
            ),
            Self::Authorities { file, why } => {
                write!(f, "--backplane-ca {}: {why}", file.display())
            }
        }
    }
}

impl std::error::Error for BackplaneError {}
