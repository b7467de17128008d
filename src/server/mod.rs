//! Sockets and threads: a [`Server`] is bound, then runs until it is stopped.

mod abort_on_drop;
pub(crate) mod acceptor;
mod bind_error;
pub(crate) mod conn_context;
mod exclusive;
mod files;
mod head_clock;
mod http1;
mod http2;
mod http2_body;
mod http2_conn;
mod http2_io;
mod http2_requests;
mod listen;
mod listening_socket;
mod outbox;
pub(crate) mod passed_connection;
pub(crate) mod proxy_protocol;
pub(crate) mod reactor;
mod reload;
mod serving;
mod shared_log;
mod socket;
mod state_file;
pub mod systemd;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod unix_socket;
#[cfg(target_os = "linux")]
pub(crate) mod upgrade;
#[cfg(not(target_os = "linux"))]
#[path = "no_upgrade.rs"]
mod upgrade;
mod upgrader;
mod worker;

use std::future::Future;
use std::io;
use std::pin::pin;

use self::listen::Listeners;
use self::reload::Sources;
use self::serving::{Serving, Stop};
use self::state_file::Keeping;
use self::systemd::PassedSockets;
use crate::config::Config;

pub use self::bind_error::BindError;
pub use self::listen::Address;
pub use self::listening_socket::ListeningSocket;
pub use self::outbox::OutboxError;
pub use self::reload::Reloader;
pub use self::shared_log::BackplaneError;
pub use self::tls::Tls;
#[cfg(feature = "tls")]
pub use self::tls::TlsError;
#[cfg(all(any(test, fuzzing), feature = "tls"))]
pub(crate) use self::tls::record_layer;
#[cfg(target_os = "linux")]
pub use self::upgrade::Predecessor;
pub use self::upgrader::{Program, UpgradeRefused, Upgrader};
pub use crate::state::StateError;

/// A server that is bound to its addresses and does not accept connections yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Listeners,
    sources: Sources,
    state: Keeping,
    upgrader: Upgrader,
    program: Option<Program>,
    on_start: Option<OnStart>,
    #[cfg(target_os = "linux")]
    predecessor: Option<Predecessor>,
}

/// What is called once a server serves.
struct OnStart(Box<dyn FnOnce() + Send>);

/// Why a server did not start, or stopped by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A worker's thread or runtime could not be created.
    Start(io::Error),
    /// Another server drains the outbox, and both have no log to share; or it cannot be known.
    Outbox(String),
    /// The process that this one was to take over from has given that up, or what it has cannot be taken over.
    TakeOver(String),
    /// The file with the state of an earlier server cannot be removed: see [`Config::state`].
    State(StateError),
    /// A worker, or a thread that follows the log or drains the outbox, ended by itself, which is a defect.
    WorkerDied,
}

// ===== impl OnStart =====

impl std::fmt::Debug for OnStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnStart")
    }
}

// ===== impl Server =====

impl Server {
    /// Binds every address for every worker.
    ///
    /// # Errors
    /// [`BindError`]: an address that cannot be bound, a certificate that cannot be used, or settings that a log
    /// cannot be shared with.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        Self::adopt(config, PassedSockets::default())
    }

    /// Does what [`Self::adopt`] does, but binds and serves nothing. It may be called while another server listens on
    /// the same addresses; whether one does is not checked.
    ///
    /// # Errors
    /// [`BindError`], as of [`Self::adopt`].
    pub fn check(config: &Config, sockets: &PassedSockets) -> Result<Vec<Address>, BindError> {
        shared_log::check(config).map_err(BindError::Backplane)?;
        outbox::check(config).map_err(BindError::Outbox)?;
        state_file::check(config).map_err(BindError::State)?;
        Sources::load(config)?;
        Listeners::check(sockets, config)
    }

    /// The configuration it was bound with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Binds to listening sockets that are open already. Those of public addresses stand in for [`Config::listen`], if
    /// there is one; those of internal addresses come beside [`Config::internal_listen`].
    ///
    /// # Errors
    /// [`BindError`]: there is one of a public address and a [`Config::plain_listen`], one of them has no
    /// address, or is reachable from a network although the
    /// server is open without [`Config::insecure_open`]; or the certificate cannot be used.
    pub fn adopt(config: Config, sockets: PassedSockets) -> Result<Self, BindError> {
        Self::with_listeners(config, |config| Listeners::open(sockets, config), Keeping::hold)
    }

    /// Takes over from another process, which has started this one for that: its listening sockets stand for all addresses
    /// of the configuration. Its histories and its open streams follow when the server runs.
    ///
    /// # Errors
    /// [`BindError`], as of [`Self::adopt`]. The other process goes on, and logs it.
    #[cfg(target_os = "linux")]
    pub fn take_over(config: Config, mut predecessor: Predecessor) -> Result<Self, BindError> {
        let kept = predecessor.take_listeners();
        let open = |config: &Config| Listeners::take_over(kept, config);
        match Self::with_listeners(config, open, Keeping::later) {
            Ok(server) => Ok(Self { predecessor: Some(predecessor), ..server }),
            Err(why) => {
                predecessor.refuse(&why.to_string());
                Err(why)
            }
        }
    }

    fn with_listeners(
        mut config: Config,
        open: impl FnOnce(&Config) -> Result<Listeners, BindError>,
        keep: impl FnOnce(&Config) -> Result<Keeping, StateError>,
    ) -> Result<Self, BindError> {
        config.resolve_public_orgs();
        shared_log::check(&config).map_err(BindError::Backplane)?;
        outbox::check(&config).map_err(BindError::Outbox)?;
        let sources = Sources::load(&config)?;
        let listeners = open(&config)?;
        let state = keep(&config).map_err(BindError::State)?;
        Ok(Self {
            config,
            listeners,
            sources,
            state,
            upgrader: Upgrader::new(),
            program: None,
            on_start: None,
            #[cfg(target_os = "linux")]
            predecessor: None,
        })
    }

    /// The same, which can be replaced by a successor that is started from this program ([`Upgrader`]).
    pub fn with_program(self, program: Program) -> Self {
        self.upgrader.allow();
        Self { program: Some(program), ..self }
    }

    /// The same, which calls this once it serves: if it takes over from another process, not before all is its own.
    pub fn on_start(self, call: impl FnOnce() + Send + 'static) -> Self {
        Self { on_start: Some(OnStart(Box::new(call))), ..self }
    }

    /// What asks it to be replaced while it runs.
    pub fn upgrader(&self) -> Upgrader {
        self.upgrader.clone()
    }

    /// The addresses it listens on, the internal ones last.
    pub fn addresses(&self) -> &[Address] {
        self.listeners.addresses()
    }

    /// Its certificate, which can be reloaded while it runs.
    pub fn tls(&self) -> Option<&Tls> {
        self.sources.tls()
    }

    /// What asks it to read its keys and its certificate again while it runs; `None` if it has neither files of keys,
    /// nor a JWK set, nor a certificate. Files that change it reads again by itself, within 5 s.
    pub fn reloader(&self) -> Option<Reloader> {
        self.sources.reloader()
    }

    /// Serves until `stop` resolves, and then drains: `/readyz` responds 503 at once; after
    /// [`Config::drain_delay`] no connection is accepted any more, and the streams end, evenly spread over
    /// [`Config::drain_window`]; requests in flight are finished. Returns when all connections have ended, or
    /// [`Config::drain_timeout`] after `stop` at the latest. A server that shares a log, and may be the only one that
    /// knows of a loss in it, waits within this time until it has appended that for the others.
    ///
    /// Returns too when a successor has taken over ([`Upgrader`]), and what has stayed here has ended.
    ///
    /// Under systemd it notifies the manager of readiness and stop, and pings the watchdog.
    ///
    /// # Errors
    /// [`ServeError`]: the workers could not be started, or one of them died.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let stop = pin!(stop);
        let mut stop = Stop::new(stop);
        // It is large, and is here once.
        let mut serving = Box::pin(Serving::start(self, &mut stop)).await?;
        let ending = Box::pin(serving.serve(&mut stop)).await?;
        Box::pin(serving.drain(ending)).await
    }
}

// ===== impl ServeError =====

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(why) => write!(f, "a worker could not be started: {why}"),
            Self::Outbox(why) => write!(f, "--outbox: {why}"),
            Self::TakeOver(why) => write!(f, "cannot take over from the old process: {why}"),
            Self::State(why) => why.fmt(f),
            Self::WorkerDied => f.write_str("a worker died; see the log for its panic"),
        }
    }
}

impl std::error::Error for ServeError {}
