//! What a running server reads again, when it is asked to and when it changes: the files of its keys, its published
//! keys, and its certificate. Connections and streams go on; what cannot be used leaves in use what there was before.

#[cfg(feature = "jwt")]
mod key_files;
#[cfg(not(feature = "jwt"))]
#[path = "no_key_files.rs"]
mod key_files;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::key_files::KeyFiles;
use super::BindError;
use super::tls::Tls;
use crate::config::Config;
use crate::http::App;

/// Asks a running server to read its keys and its certificate again. Clones ask the same server.
#[derive(Clone, Debug)]
pub struct Reloader(Arc<Notify>);

/// Where a server has its keys and its certificate from.
#[derive(Debug)]
pub(super) struct Sources {
    tls: Option<Tls>,
    keys: KeyFiles,
    asked: Arc<Notify>,
}

/// Period at which the files are checked for changes.
const CHECK: Duration = Duration::from_secs(5);

/// Period at which the certificate is checked to be valid.
const DAY: Duration = Duration::from_secs(86_400);

// ===== impl Reloader =====

impl Reloader {
    /// Has the files of keys, the JWK set and the certificate read again, soon: new requests are authorised with the
    /// new keys, new handshakes use the new certificate, and streams that are open go on. What cannot be read, or is
    /// invalid, is logged, and what was in use stays.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

// ===== impl Sources =====

impl Sources {
    /// Loads the certificate of the configuration, if it names one; its keys are there already. Warns of secrets that
    /// all users may read.
    pub(super) fn load(config: &Config) -> Result<Self, BindError> {
        let keys = KeyFiles::of(config);
        let tls = Tls::load(config)?;
        Ok(Self { tls, keys, asked: Arc::default() })
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// What asks for a reload; `None` if there is nothing to read.
    pub(super) fn reloader(&self) -> Option<Reloader> {
        let has_some = self.tls.is_some() || !self.keys.is_empty();
        has_some.then(|| Reloader(self.asked.clone()))
    }

    /// Reads again what has changed, and everything when it is asked to. Warns once a day of a certificate that is not
    /// valid.
    pub(super) async fn watch(mut self, app: Arc<App>) {
        let mut validated = Instant::now();
        loop {
            #[expect(clippy::disallowed_methods, reason = "not in the serving path")]
            let asked = tokio::time::timeout(CHECK, self.asked.notified()).await.is_ok();
            self.keys.read_again(asked, &app);
            let Some(tls) = &self.tls else { continue };
            if asked || tls.has_changed() {
                tls.reload_and_log();
            } else if validated.elapsed() >= DAY {
                validated = Instant::now();
                tls.warn_if_invalid();
            }
        }
    }
}
