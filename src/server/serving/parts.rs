//! The parts of a server, before it serves.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Serving, Watched};
use crate::admission::Admission;
use crate::http::App;
#[cfg(feature = "postgres")]
use crate::http::OutboxCounters;
use crate::server::reload::Sources;
#[cfg(target_os = "linux")]
use crate::server::upgrade::{Predecessor, UpgradeParts};
use crate::server::worker::Worker;
use crate::server::{OnStart, ServeError, Server, shared_log};
use crate::time::Clock;

/// The parts before the server serves.
pub(super) struct Parts {
    pub(super) serving: Serving,
    /// They have not been started.
    pub(super) workers: Vec<Worker>,
    pub(super) draining: watch::Receiver<Option<Instant>>,
    pub(super) sources: Sources,
    pub(super) on_start: Option<OnStart>,
    #[cfg(target_os = "linux")]
    pub(super) predecessor: Option<Predecessor>,
}

// ===== impl Parts =====

impl Parts {
    /// Makes the parts; nothing is served yet.
    pub(super) fn make(server: Server) -> Result<Self, ServeError> {
        let Server { mut config, listeners, sources, state, upgrader, .. } = server;
        #[cfg(target_os = "linux")]
        let sockets = listeners.keep().map_err(ServeError::Start)?;
        // Those of the service manager too.
        let internal = listeners.addresses().iter().filter(|address| address.internal);
        config.internal_listen = internal.map(|address| address.endpoint.clone()).collect();
        // What was kept by an earlier process has a time, too.
        let kept = config.hub.history_age.max(config.hub.topic_age);
        let clock = Clock::start_after(kept);
        let hub = state.start_hub(&config, clock).map_err(ServeError::State)?;
        // It follows until the last stream has ended.
        let backplane = shared_log::start(&config, &hub, clock).map_err(ServeError::Start)?;
        let (descriptors, _) = rlimit::Resource::NOFILE.get().map_err(ServeError::Start)?;
        let admission = Admission::new(&config, usize::try_from(descriptors).unwrap_or(usize::MAX));
        let app = App::new(config.clone(), hub.clone(), clock, admission.clone());
        let app = match &backplane {
            Some(backplane) => app.with_backplane(&hub, backplane.clone()),
            None => app,
        };
        let app = match sources.tls().cloned() {
            Some(tls) => app.with_certificate(move || tls.expires()),
            None => app,
        };
        #[cfg(feature = "postgres")]
        let outbox_counters = Arc::<OutboxCounters>::default();
        #[cfg(feature = "postgres")]
        let app = match &config.outbox {
            Some(_) => app.with_outbox(outbox_counters.clone()),
            None => app,
        };
        let app = Arc::new(app);
        let (sockets_of_workers, files) = listeners.into_workers();
        let shards = sockets_of_workers.into_iter().enumerate();
        let workers: Vec<_> = shards
            .map(|(shard, sockets)| {
                let tls = sources.tls().cloned();
                Worker::new(app.clone(), hub.on_shard(shard), clock, sockets, tls)
            })
            .collect();
        let (drain, draining) = watch::channel(None);
        let watched = Watched {
            workers: Vec::new(),
            backplane,
            #[cfg(feature = "postgres")]
            outbox: None,
            #[cfg(feature = "postgres")]
            stops_outbox: false,
        };
        let serving = Serving {
            #[cfg(target_os = "linux")]
            upgrade_parts: UpgradeParts::new(server.program, sockets, &workers),
            config,
            hub,
            clock,
            app,
            admission,
            watched,
            upgrader,
            state,
            drain,
            files,
            watchdog: None,
            _reload: None,
            #[cfg(feature = "postgres")]
            outbox_counters,
        };
        Ok(Self {
            serving,
            workers,
            draining,
            sources,
            on_start: server.on_start,
            #[cfg(target_os = "linux")]
            predecessor: server.predecessor,
        })
    }
}
