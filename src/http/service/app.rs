//! What all requests share.

#[cfg(feature = "postgres")]
use std::sync::Arc;

use crate::admission::Admission;
use crate::backplane::{Backplane, Status};
use crate::config::{AuthConfig, BackplaneConfig, Config};
use crate::http::auth::{Auth, AuthError};
use crate::http::cors::Cors;
use crate::http::exposition::Exposition;
#[cfg(feature = "postgres")]
use crate::http::exposition::OutboxCounters;
use crate::http::hosts::Hosts;
use crate::http::publish::Publisher;
use crate::http::rate_limit::RateLimiter;
use crate::http::reject::Reject;
use crate::hub::Hub;
use crate::stream::Clock;
use crate::sync::{AtomicBool, Ordering};

/// The state that the workers of a server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) metrics: Exposition,
    /// The server is about to shut down, so `/readyz` answers 503.
    stopping: AtomicBool,
    pub(super) admission: Admission,
    pub(super) rate_limiter: Option<RateLimiter>,
    pub(super) auth: Auth,
    pub(super) hosts: Hosts,
    pub(super) cors: Cors,
    /// The log that it shares with other servers.
    pub(super) backplane: Option<Backplane>,
    /// The log has been loaded, or there is none.
    is_loaded: AtomicBool,
}

// ===== impl App =====

impl App {
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock, admission: Admission) -> Self {
        let dropped = config.log_lines_dropped.clone();
        let metrics = Exposition::new(hub, admission.clone(), dropped);
        let auth = Auth::new(&config.auth);
        let (hosts, cors) = (Hosts::new(&config), Cors::new(&config));
        let rate_limiter = config.publish_rate.map(RateLimiter::new);
        Self {
            config,
            clock,
            metrics,
            stopping: AtomicBool::new(false),
            admission,
            rate_limiter,
            auth,
            hosts,
            cors,
            backplane: None,
            is_loaded: AtomicBool::new(true),
        }
    }

    /// The same with a log, through which everything is published.
    pub(crate) fn with_backplane(mut self, hub: &Hub, backplane: Backplane) -> Self {
        self.metrics.add_backplane(hub.clone(), backplane.clone());
        Self { backplane: Some(backplane), is_loaded: AtomicBool::new(false), ..self }
    }

    /// The same, whose metrics have those of the outbox.
    #[cfg(feature = "postgres")]
    pub(crate) fn with_outbox(mut self, counters: Arc<OutboxCounters>) -> Self {
        self.metrics.add_outbox(counters);
        self
    }

    /// What publishes to this hub, by way of the log if there is one.
    pub(super) fn publisher<'a>(&'a self, hub: &'a Hub) -> Publisher<'a> {
        let (rate_limiter, backplane) = (self.rate_limiter.as_ref(), self.backplane.as_ref());
        Publisher { hub, rate_limiter, backplane }
    }

    /// Refuses while the log is read for the first time: a stream that would open now, or at a position of now, could
    /// not resume, and its client would re-read everything. Why it is not loaded names the broker, which is for probes
    /// alone.
    pub(super) fn check_loaded(&self) -> Result<(), Reject> {
        self.loaded().map_err(|_| Reject::NotLoaded { why: None })
    }

    /// Whether the log is loaded, or why it is not.
    fn loaded(&self) -> Result<(), Option<String>> {
        if self.is_loaded.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(backplane) = &self.backplane else { return Ok(()) };
        let Status { is_loaded, why, .. } = backplane.state();
        if !is_loaded {
            return Err(why);
        }
        self.is_loaded.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether requests should come here.
    pub(super) fn check_ready(&self) -> Result<(), Reject> {
        if self.is_stopping() {
            return Err(Reject::Draining);
        }
        if !self.has_keys() {
            return Err(Reject::Auth(AuthError::NoKeysYet));
        }
        self.loaded().map_err(|why| Reject::NotLoaded { why })?;
        let needs_broker = |config: &BackplaneConfig| config.unready_when_cut_off;
        match &self.backplane {
            Some(backplane) if self.config.backplane.as_ref().is_some_and(needs_broker) => {
                let Status { is_connected, why, .. } = backplane.state();
                if is_connected { Ok(()) } else { Err(Reject::CutOff { why }) }
            }
            _ => Ok(()),
        }
    }

    /// Makes `/readyz` answer 503, so that load balancers send no more connections.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts a refusal if a limit is its cause.
    pub(super) fn counted(&self, reject: Reject) -> Reject {
        if let Some(limit) = reject.limit() {
            self.admission.count_refusal(limit);
        }
        reject
    }

    /// Has no request wait for anything but its own body any more: the hub drains.
    pub(crate) fn close(&self) {
        self.auth.close();
    }

    /// Whether there are keys for every kind of token that is configured. If not, has them fetched. Inside a runtime.
    pub(super) fn has_keys(&self) -> bool {
        self.auth.is_ready(self.clock.now())
    }

    /// Takes the keys of this configuration in place of those that there are, but for the published ones.
    pub(crate) fn replace_keys(&self, config: &AuthConfig) {
        self.auth.replace_keys(config);
    }

    /// Fetches published keys again, however new they are. Inside a runtime.
    pub(crate) fn refetch_keys(&self) {
        self.auth.refetch(self.clock.now());
    }

    /// Fetches published keys, so that the first requests need not wait for them. Inside a runtime.
    pub(crate) fn warm_up(&self) {
        self.auth.prefetch(self.clock.now());
    }
}
