//! What all requests share.

use crate::admission::Admission;
use crate::config::{AuthConfig, Config};
use crate::http::auth::Auth;
use crate::http::exposition::Exposition;
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
}

// ===== impl App =====

impl App {
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock, admission: Admission) -> Self {
        let dropped = config.log_lines_dropped.clone();
        let metrics = Exposition::new(hub, admission.clone(), dropped);
        let auth = Auth::new(&config.auth);
        let rate_limiter = config.publish_rate.map(RateLimiter::new);
        Self {
            config,
            clock,
            metrics,
            stopping: AtomicBool::new(false),
            admission,
            rate_limiter,
            auth,
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
