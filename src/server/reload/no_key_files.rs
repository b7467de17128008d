//! Stands in for `key_files` in a build without the feature `jwt`: no server has one.

use crate::config::Config;
use crate::http::App;

/// The files of keys, of which a build without the feature `jwt` has none.
#[derive(Debug)]
pub(super) struct KeyFiles;

// ===== impl KeyFiles =====

impl KeyFiles {
    pub(super) fn of(_config: &Config) -> Self {
        Self
    }

    pub(super) fn is_empty(&self) -> bool {
        true
    }

    #[allow(clippy::needless_pass_by_ref_mut, reason = "that of the feature changes what it has")]
    pub(super) fn read_again(&mut self, _all: bool, _app: &App) {}
}
