//! The files of keys of tokens, and the set of published ones.

use std::time::SystemTime;

use crate::config::{AuthConfig, Config, KeyFile};
use crate::http::App;
use crate::server::files::{Stamp, warn_if_all_may_read};

/// The keys of the configuration, with those of its files as they were when they could be read last.
#[derive(Debug)]
pub(super) struct KeyFiles {
    auth: AuthConfig,
    /// Of each file when it was last read, with or without success.
    stamps: Vec<Option<Stamp>>,
}

// ===== impl KeyFiles =====

impl KeyFiles {
    /// The files that the configuration has read. Warns of those that all users may read.
    pub(super) fn of(config: &Config) -> Self {
        let auth = config.auth.clone();
        let stamps = auth.key_files.iter().map(|file| Stamp::of(file.path())).collect();
        auth.key_files.iter().for_each(warn);
        Self { auth, stamps }
    }

    /// Whether there is nothing to read again.
    pub(super) fn is_empty(&self) -> bool {
        self.auth.key_files.is_empty() && self.auth.jwks.is_none()
    }

    /// Reads the files again that have changed, or `all` of them and the published keys.
    pub(super) fn read_again(&mut self, all: bool, app: &App) {
        let mut any = false;
        for (file, stamp) in self.auth.key_files.iter_mut().zip(&mut self.stamps) {
            // Before it is read: a change after that is noticed.
            let now = Stamp::of(file.path());
            if all || now != *stamp {
                *stamp = now;
                any |= read_and_log(file);
            }
        }
        if any {
            app.replace_keys(&self.auth);
        }
        if all {
            app.refetch_keys();
        }
    }
}

/// Reads a file again, and logs the result. Returns whether its keys may be others now.
fn read_and_log(file: &mut KeyFile) -> bool {
    match file.read_again() {
        Ok(()) => {
            warn(file);
            tracing::info!("{}: its keys were read again", file.path().display());
            true
        }
        Err(why) => {
            tracing::error!(%why, "keys could not be read again; those in use stay");
            false
        }
    }
}

/// Warns of what an operator would want to know of a file that can be used.
fn warn(file: &KeyFile) {
    if file.is_secret() {
        warn_if_all_may_read(file.path());
    }
    let wall = SystemTime::now();
    let past = file.keys().iter().filter(|key| !key.is_current(wall)).count();
    if past > 0 {
        let path = file.path().display();
        tracing::warn!(past, "{path}: secrets past their date verify no token; take them out");
    }
}
