//! What all requests share.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use crate::admission::Admission;
use crate::backplane::{Backplane, Status};
use crate::config::{AuthConfig, BackplaneConfig, Config};
use crate::http::access_log;
use crate::http::auth::{Auth, AuthError};
use crate::http::cors::Cors;
use crate::http::exposition::Exposition;
#[cfg(feature = "postgres")]
use crate::http::exposition::OutboxCounters;
use crate::http::hosts::Hosts;
use crate::http::ops::Lists;
use crate::http::publish::Publisher;
use crate::http::rate_limit::RateLimiter;
use crate::http::reject::Reject;
use crate::http::successor::{Done, NotPassedOn, Operation, Operations};
use crate::hub::Hub;
use crate::stream::{AccessLog, Clock};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// The state that the workers of a server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) metrics: Exposition,
    /// What operators see of orgs and topics.
    pub(super) lists: Arc<Lists>,
    /// The server is about to shut down, so `/readyz` answers 503, unless another process has taken over.
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
    /// What another process that has taken over performs for this one.
    successor: OnceLock<Arc<Operations>>,
    /// Locked while an operation is performed that a predecessor has passed on; `true` once none is any more.
    passed_on: Mutex<bool>,
}

// ===== impl App =====

impl App {
    pub(crate) fn new(config: Config, hub: Hub, clock: Clock, admission: Admission) -> Self {
        let metrics = Exposition::new(&config, hub, admission.clone());
        let auth = Auth::new(&config.auth);
        let (hosts, cors) = (Hosts::new(&config), Cors::new(&config));
        let rate_limiter = config.publish_rate.map(RateLimiter::new);
        Self {
            config,
            clock,
            metrics,
            lists: Arc::default(),
            stopping: AtomicBool::new(false),
            admission,
            rate_limiter,
            auth,
            hosts,
            cors,
            backplane: None,
            is_loaded: AtomicBool::new(true),
            successor: OnceLock::new(),
            passed_on: Mutex::new(false),
        }
    }

    /// What the ends of streams are logged with, if they are.
    pub(crate) fn access_log(&self) -> Option<AccessLog> {
        let log = AccessLog { clock: self.clock, log: access_log::write };
        self.config.access_log.then_some(log)
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

    /// The same, whose metrics have when the certificate in use expires.
    pub(crate) fn with_certificate(
        mut self,
        expires: impl Fn() -> Option<SystemTime> + Send + Sync + 'static,
    ) -> Self {
        self.metrics.add_certificate(expires);
        self
    }

    /// What publishes to this hub, by way of the log if there is one.
    pub(super) fn publisher<'a>(&'a self, hub: &'a Hub) -> Publisher<'a> {
        let (rate_limiter, backplane) = (self.rate_limiter.as_ref(), self.backplane.as_ref());
        Publisher { hub, rate_limiter, backplane, successor: &self.successor }
    }

    /// Another process has taken over, which listens at the same addresses: without a log, it performs what is published
    /// and commanded here from now on. No stream begins here any more. It is called once, while every worker is stopped, so
    /// that nothing is half done.
    pub(crate) fn succeed(&self, operations: Arc<Operations>) {
        let is_first = self.successor.set(operations).is_ok();
        debug_assert!(is_first, "one process takes over");
    }

    /// As long as this is held, nothing is performed that a predecessor passes on: the thread that does is no worker, and
    /// does not stop with these.
    pub(crate) fn pause_passed_on(&self) -> MutexGuard<'_, bool> {
        self.passed_on.lock()
    }

    /// Nothing is performed any more that a predecessor passes on: what the hub remembers is about to be saved.
    pub(crate) fn refuse_passed_on(&self) {
        *self.passed_on.lock() = true;
    }

    /// Performs an operation that a predecessor has passed on: here, or by way of the successor if there is one by now. It
    /// blocks until that has answered, for some seconds at most.
    ///
    /// # Errors
    /// [`NotPassedOn`].
    pub(crate) fn perform_passed_on(
        &self,
        operation: &Operation,
        hub: &Hub,
        window: Duration,
    ) -> Result<Done, NotPassedOn> {
        let is_over = self.passed_on.lock();
        if let Some(successor) = self.successor.get() {
            drop(is_over);
            return successor.forward(operation).map_err(NotPassedOn::from);
        }
        if *is_over {
            return Err(NotPassedOn::Refused("this process is stopping".into()));
        }
        let done = operation.perform(hub, self.clock.now(), window);
        done.map_err(|why| NotPassedOn::Refused(why.to_string()))
    }

    /// Whether another process has taken over.
    pub(super) fn has_successor(&self) -> bool {
        self.successor.get().is_some()
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
        // Where another process has taken over, it is not this one that the next connection comes to.
        if self.is_stopping() && !self.has_successor() {
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

    /// Shows that all has ended when so much time has passed, at the latest.
    pub(crate) fn drain_for(&self, timeout: Duration) {
        // A clock that has no such time says little.
        let now = SystemTime::now();
        self.metrics.drain_until(now.checked_add(timeout).unwrap_or(now));
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

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use http::{Request, StatusCode, header};

    use super::*;
    use crate::admission::Entrance;
    use crate::http::ServiceFactory;
    use crate::http::auth::Grant;
    use crate::http::successor::{Operation, OperationSender};
    use crate::hub::View;

    /// It is not asked for anything.
    #[derive(Debug)]
    struct Unused;

    impl OperationSender for Unused {
        fn send(&self, _: u64, _: &Operation) -> Result<(), String> {
            unreachable!("nothing is published")
        }
    }

    /// Its stream would be of a hub that nothing is published to. An `EventSource` comes back after the end of a stream, and
    /// would not after an error status, its own or that of a proxy whose server closes the connection.
    #[tokio::test]
    async fn where_another_process_has_taken_over_no_stream_begins_and_the_address_is_ready() {
        let (config, clock) = (Config::default(), Clock::start());
        let hub = Hub::new(config.hub.clone());
        let admission = Admission::new(&config, 1_024);
        let app = Arc::new(App::new(config, hub.clone(), clock, admission));
        let factory = ServiceFactory::new(app.clone(), hub.clone());
        let admitted = factory.admit(Some(Ipv4Addr::LOCALHOST.into()), Entrance::Public).await;
        let service = factory.service(admitted);
        let (org, request) = ("acme".parse().expect("a name"), Request::new(()));
        let open = || service.open(&org, View::Member, &request, &Grant::everyone());
        assert!(open().is_ok() && app.check_ready().is_ok());
        app.stop();
        assert!(matches!(app.check_ready(), Err(Reject::Draining)), "in a drain it is not");

        app.succeed(Arc::new(Operations::new(Unused, clock)));
        assert!(app.check_ready().is_ok(), "the next connection comes to the other process");
        assert!(matches!(open(), Err(Reject::Draining)));
        let first = b"GET /api/acme/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert!(service.open_stream(&Bytes::from_static(first)).is_err());
        assert_eq!(hub.seats(), 0);
        let to_browser = service.refuse(Reject::Draining, true);
        assert_eq!(to_browser.status(), StatusCode::OK);
        assert_eq!(to_browser.headers()[header::CONTENT_TYPE], "text/event-stream");
        let to_others = service.refuse(Reject::Draining, false);
        assert_eq!(to_others.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(to_others.headers().contains_key(header::RETRY_AFTER));
    }
}
