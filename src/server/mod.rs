//! Sockets and threads: a [`Server`] is bound, then runs until it is stopped.

mod abort_on_drop;
pub(crate) mod acceptor;
#[cfg(not(feature = "tls"))]
#[path = "no_certificate.rs"]
mod certificate;
#[cfg(feature = "tls")]
mod certificate;
pub(crate) mod conn_context;
mod exclusive;
mod files;
mod head_clock;
mod http1;
mod http2;
mod http2_body;
mod http2_conn;
mod http2_io;
mod listen;
mod outbox;
pub(crate) mod reactor;
mod reload;
mod shared_log;
mod socket;
pub mod systemd;
#[cfg(all(test, feature = "tls"))]
mod test_tls;
#[cfg(feature = "tls")]
mod tls_conn;
#[cfg(feature = "tls")]
mod tls_io;
#[cfg(feature = "tls")]
mod validity;
mod worker;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::Instant;

use self::abort_on_drop::AbortOnDrop;
use self::listen::Listeners;
use self::reload::Sources;
use self::systemd::PassedSockets;
use self::worker::Worker;
use crate::admission::Admission;
use crate::config::Config;
use crate::http::App;
use crate::stream::Clock;

pub use self::certificate::Tls;
#[cfg(feature = "tls")]
pub use self::certificate::TlsError;
pub use self::listen::{Address, BindError};
pub use self::outbox::OutboxError;
pub use self::reload::Reloader;
pub use self::shared_log::BackplaneError;

/// A server that is bound to its addresses and does not accept connections yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Listeners,
    sources: Sources,
}

/// Why a server did not start, or stopped by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A worker's thread or runtime could not be created.
    Start(io::Error),
    /// Another server drains the outbox, and both have no log to share; or it cannot be known.
    Outbox(String),
    /// A worker, or a thread that follows the log or drains the outbox, ended by itself, which is a defect.
    WorkerDied,
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
    /// [`BindError`]: there is one of a public address and a [`Config::plain_listen`], one of them is no listening
    /// TCP socket, or is reachable from a network although the
    /// server is open without [`Config::insecure_open`]; or the certificate cannot be used.
    pub fn adopt(mut config: Config, sockets: PassedSockets) -> Result<Self, BindError> {
        config.resolve_public_orgs();
        shared_log::check(&config).map_err(BindError::Backplane)?;
        outbox::check(&config).map_err(BindError::Outbox)?;
        let sources = Sources::load(&config)?;
        let listeners = Listeners::open(sockets, &config)?;
        Ok(Self { config, listeners, sources })
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
    /// Under systemd it notifies the manager of readiness and stop, and pings the watchdog.
    ///
    /// # Errors
    /// [`ServeError`]: the workers could not be started, or one of them died.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { mut config, listeners, sources } = self;
        // Those of the service manager too.
        let internal = listeners.addresses().iter().filter(|address| address.internal);
        config.internal_listen = internal.map(|address| address.socket).collect();
        let (delay, window, timeout) =
            (config.drain_delay, config.drain_window, config.drain_timeout);
        let (hub, clock) = (shared_log::hub(&config), Clock::start());
        // It follows until the last stream has ended.
        let backplane = shared_log::start(&config, &hub, clock).map_err(ServeError::Start)?;
        #[cfg(feature = "postgres")]
        let outbox =
            outbox::start(&config, &hub, clock, backplane.as_ref()).map_err(ServeError::Start)?;
        // It may be that this server must not run.
        #[cfg(feature = "postgres")]
        if let Some(outbox) = &outbox {
            outbox.started().await.map_err(ServeError::Outbox)?;
        }
        let (descriptors, _) = rlimit::Resource::NOFILE.get().map_err(ServeError::Start)?;
        let admission = Admission::new(&config, usize::try_from(descriptors).unwrap_or(usize::MAX));
        let app = App::new(config, hub.clone(), clock, admission);
        let app = match &backplane {
            Some(backplane) => app.with_backplane(&hub, backplane.clone()),
            None => app,
        };
        #[cfg(feature = "postgres")]
        let app = match &outbox {
            Some(outbox) => app.with_outbox(outbox.counters().clone()),
            None => app,
        };
        let app = Arc::new(app);
        app.warm_up();
        let (drain, draining) = watch::channel(None);

        let mut workers = Vec::new();
        for (shard, sockets) in listeners.into_workers().into_iter().enumerate() {
            let tls = sources.tls().cloned();
            let worker = Worker::new(app.clone(), hub.on_shard(shard), clock, sockets, tls);
            workers.push(worker.start(draining.clone()).map_err(ServeError::Start)?);
        }
        drop(draining);
        systemd::ready();
        let _watchdog = systemd::ping_watchdog(hub.clone(), clock);
        let has_sources = sources.reloader().is_some();
        let _reload = has_sources.then(|| AbortOnDrop::spawn(sources.watch(app.clone())));

        let stopped = async {
            stop.await;
            let deadline = Instant::now() + timeout;
            systemd::stopping();
            app.stop();
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            tokio::time::sleep(delay.min(timeout)).await;
            deadline
        };
        let log_ended = async {
            match &backplane {
                Some(backplane) => backplane.ended().await,
                None => pending().await,
            }
        };
        // Without the thread that follows the log, streams would be silent for ever.
        let stopped = unless_ended(stopped, log_ended);
        #[cfg(feature = "postgres")]
        let outbox_ended = async {
            match &outbox {
                Some(outbox) => outbox.ended().await,
                None => pending().await,
            }
        };
        // Without that which drains the outbox, rows would wait for ever.
        #[cfg(feature = "postgres")]
        let stopped = async { unless_ended(stopped, outbox_ended).await.flatten() };
        let Some(Some(deadline)) = unless_one_ends(stopped, &mut workers).await else {
            return Err(ServeError::WorkerDied);
        };
        #[cfg(feature = "postgres")]
        if let Some(outbox) = &outbox {
            outbox.stop();
        }
        // Accepting stops first, so that no stream begins while the others end.
        drain.send_replace(Some(deadline));
        hub.drain(clock.now(), window);
        app.close();
        let mut clean = true;
        for worker in workers {
            clean &= worker.join().await;
        }
        // What it publishes at last goes to the log.
        #[cfg(feature = "postgres")]
        if let Some(outbox) = outbox {
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            let ended = tokio::time::timeout_at(deadline, outbox.ended());
            _ = ended.await;
        }
        if let Some(backplane) = backplane {
            backplane.stop();
            #[expect(clippy::disallowed_methods, reason = "once, at the end")]
            let ended = tokio::time::timeout_at(deadline, backplane.ended());
            _ = ended.await;
        }
        if clean { Ok(()) } else { Err(ServeError::WorkerDied) }
    }
}

/// What `future` resolves to, or `None` if `other` ends before.
async fn unless_ended<T>(
    future: impl Future<Output = T>,
    other: impl Future<Output = ()>,
) -> Option<T> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => other.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// What `future` resolves to, or `None` as soon as any worker has ended.
async fn unless_one_ends<T>(
    future: impl Future<Output = T>,
    workers: &mut [worker::Running],
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match workers.iter_mut().any(|worker| worker.poll_end(cx).is_ready()) {
        true => Poll::Ready(None),
        false => future.as_mut().poll(cx).map(Some),
    })
    .await
}

// ===== impl ServeError =====

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(why) => write!(f, "a worker could not be started: {why}"),
            Self::Outbox(why) => write!(f, "--outbox: {why}"),
            Self::WorkerDied => f.write_str("a worker died; see the log for its panic"),
        }
    }
}

impl std::error::Error for ServeError {}
