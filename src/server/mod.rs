//! Sockets and threads: a [`Server`] is bound, then run until it is told to stop.

mod conn;
mod listen;
mod worker;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use self::listen::Listeners;
use self::worker::Worker;
use crate::admission::Admission;
use crate::config::Config;
use crate::http::App;
use crate::hub::Hub;
use crate::stream::Clock;

pub use self::listen::BindError;

/// A server that holds its addresses and does not accept yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Listeners,
}

/// Why a server did not start, or did not go on.
#[derive(Debug)]
pub enum ServeError {
    /// A worker's thread or runtime could not be made.
    Start(io::Error),
    /// A worker ended by itself, which only a defect makes it do.
    WorkerDied,
}

// ===== impl Server =====

impl Server {
    /// Binds every address for every worker.
    ///
    /// # Errors
    /// Says which address could not be had, and why.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let listeners = Listeners::bind(&config)?;
        Ok(Self { config, listeners })
    }

    /// Where it listens, with the ports that the system chose where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// Serves until `stop` resolves, then ends every stream and waits for requests in flight, for at
    /// most [`Config::drain_timeout`].
    ///
    /// # Errors
    /// [`ServeError`]: the workers could not be started, or one of them died.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { config, listeners } = self;
        let hub = Hub::with_lanes(config.hub.clone(), config.workers);
        let clock = Clock::start();
        let (descriptors, _) = rlimit::Resource::NOFILE.get().map_err(ServeError::Start)?;
        let admission = Admission::new(&config, usize::try_from(descriptors).unwrap_or(usize::MAX));
        let app = Arc::new(App::new(config, hub.clone(), clock, admission));
        let (drain, draining) = watch::channel(false);

        let mut workers = Vec::new();
        for (lane, sockets) in listeners.into_workers().into_iter().enumerate() {
            let worker = Worker::new(app.clone(), hub.on_lane(lane), clock, sockets);
            workers.push(worker.start(draining.clone()).map_err(ServeError::Start)?);
        }
        drop(draining);

        let died = {
            let mut stop = std::pin::pin!(stop);
            let mut deaths = std::pin::pin!(first_death(&mut workers));
            std::future::poll_fn(|cx| {
                if deaths.as_mut().poll(cx).is_ready() {
                    return std::task::Poll::Ready(true);
                }
                stop.as_mut().poll(cx).map(|()| false)
            })
            .await
        };
        if died {
            return Err(ServeError::WorkerDied);
        }
        hub.close(clock.now());
        drain.send_replace(true);
        let mut clean = true;
        for worker in workers {
            clean &= worker.join().await;
        }
        if clean { Ok(()) } else { Err(ServeError::WorkerDied) }
    }
}

/// Resolves when any worker has ended.
async fn first_death(workers: &mut [worker::Running]) {
    std::future::poll_fn(|cx| {
        match workers.iter_mut().any(|worker| worker.poll_end(cx).is_ready()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

// ===== impl ServeError =====

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(why) => write!(f, "a worker could not be started: {why}"),
            Self::WorkerDied => f.write_str("a worker died; see the log for its panic"),
        }
    }
}

impl std::error::Error for ServeError {}
