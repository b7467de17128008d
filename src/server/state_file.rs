//! The state over a restart: what has to hold before a server starts that keeps it, its start from it, and its end.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::shared_log;
use crate::config::Config;
use crate::hub::Hub;
use crate::state::{Found, Record, StateError, StateFile, Taken};
use crate::stream::Clock;

/// How the state of a server is kept.
#[derive(Debug)]
pub(super) enum Keeping {
    /// It is not.
    Never,
    /// In this file, which is held.
    Held(StateFile),
    /// In this file, which its predecessor held. Nothing holds it until it is written.
    #[cfg(target_os = "linux")]
    Later(std::path::PathBuf),
}

/// How long the file may take to be written, after a drain that has taken all of its time.
const WRITE_MAX: Duration = Duration::from_secs(8);

/// Checks what can be checked without changing anything.
pub(super) fn check(config: &Config) -> Result<(), StateError> {
    path(config)?.map_or(Ok(()), crate::state::check)
}

fn path(config: &Config) -> Result<Option<&Path>, StateError> {
    match &config.state {
        Some(_) if config.backplane.is_some() => Err(StateError::Backplane),
        file => Ok(file.as_deref()),
    }
}

// ===== impl Keeping =====

impl Keeping {
    /// Makes sure that a state can be written, if it has to be. What an earlier server has written is left as it is.
    pub(super) fn hold(config: &Config) -> Result<Self, StateError> {
        Ok(match path(config)? {
            Some(file) => Self::Held(StateFile::reserve(file)?),
            None => Self::Never,
        })
    }

    /// For a successor: the file is held by its predecessor, which gives it up, unwritten, once it has been replaced.
    #[cfg(target_os = "linux")]
    pub(super) fn later(config: &Config) -> Result<Self, StateError> {
        check(config)?;
        Ok(config.state.clone().map_or(Self::Never, Self::Later))
    }

    /// The hub of a server that starts, with the state that an earlier one has written, if there is one. That is gone
    /// from the disk when this returns.
    pub(super) fn start_hub(&self, config: &Config, clock: Clock) -> Result<Hub, StateError> {
        let Self::Held(file) = self else { return Ok(empty_hub(config, clock)) };
        // Nothing is kept for longer than one of these.
        let age_max = config.hub.history_age.max(config.hub.topic_age);
        let path = file.path().display();
        let restored = match file.take(SystemTime::now(), age_max)? {
            Found::Nothing => return Ok(empty_hub(config, clock)),
            Found::State(state) => {
                let age_ms = u64::try_from(state.age.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(age_ms, "--state {path}: taken and removed; clients resume");
                restore(empty_hub(config, clock), state, clock)
            }
            Found::Unusable(why) => Err(why.to_string()),
        };
        restored.or_else(|why| {
            tracing::warn!(
                "--state {path}: removed unused, and all clients re-read everything: {why}"
            );
            Ok(empty_hub(config, clock))
        })
    }

    /// Keeps the state at the end of a drain, after which nothing is published any more. A failure is logged.
    pub(super) async fn save(self, hub: &Hub, clock: Clock, deadline: Instant) {
        let Some(path) = self.path().map(|path| path.display().to_string()) else { return };
        let (written, result) = oneshot::channel();
        let hub = hub.clone();
        // It must not keep signals from being seen: a second one ends the process at once.
        let work = move || _ = written.send(self.write(&hub, clock));
        let thread = thread::Builder::new().name("nudged-state".into()).spawn(work);
        let deadline = deadline.max(Instant::now() + WRITE_MAX);
        #[expect(clippy::disallowed_methods, reason = "once, at the end")]
        let result = tokio::time::timeout_at(deadline, result).await;
        let why = match (thread, result) {
            (Ok(_), Ok(Ok(Ok(bytes)))) => {
                tracing::info!(bytes, "--state {path}: written");
                return;
            }
            (Ok(_), Ok(Ok(Err(why)))) => why.to_string(),
            (Ok(_), Ok(Err(_))) => "--state: the thread that writes it has panicked".into(),
            (Ok(_), Err(_)) => format!("--state: {path} could not be written in time"),
            (Err(why), _) => format!("--state: a thread could not be started: {why}"),
        };
        tracing::error!("{why}; after the next start all clients re-read everything");
    }

    /// Keeps no state, since something may still be published. The file is given up.
    pub(super) fn give_up(self) {
        if let Some(path) = self.path() {
            let path = path.display();
            tracing::warn!(
                "--state {path}: not written, because the outbox could not be stopped in time; after the next \
                 start all clients re-read everything"
            );
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Never => None,
            Self::Held(file) => Some(file.path()),
            #[cfg(target_os = "linux")]
            Self::Later(path) => Some(path),
        }
    }

    fn write(self, hub: &Hub, clock: Clock) -> Result<u64, StateError> {
        let file = match self {
            Self::Never => return Ok(0),
            Self::Held(file) => file,
            #[cfg(target_os = "linux")]
            Self::Later(path) => StateFile::reserve(&path)?,
        };
        file.write(SystemTime::now(), |write| {
            hub.save(clock.now(), &mut |record| match record {
                // As all counters, they begin anew with each process.
                Record::Counters(_) => Ok(()),
                record => write(record),
            })
        })
    }
}

fn empty_hub(config: &Config, clock: Clock) -> Hub {
    let hub = shared_log::hub(config);
    hub.begin(clock.now());
    hub
}

/// Fails if a part of the state cannot be restored: then nothing of it is used.
fn restore(hub: Hub, mut state: Taken, clock: Clock) -> Result<Hub, String> {
    while let Some(record) = state.next().map_err(|why| why.to_string())? {
        hub.restore(record, state.age, clock.now()).map_err(|why| why.to_string())?;
    }
    hub.end_restore(clock.now());
    Ok(hub)
}
