//! A server in the test's process: what only tests configure has no flag.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nudged::config::{
    Config, CorsPolicy, HubConfig, TLS_RECORDS_MAX, TlsFiles, TlsRecords, TlsSessions,
};
use nudged::server::Server;
use tokio::sync::oneshot;

use crate::support::certificate::Certificate;
use crate::support::client::{Answer, Client, post};

/// It stops when this is dropped.
pub(super) struct Local {
    /// Behind TLS.
    pub(super) secure: SocketAddr,
    /// In cleartext, for the test's own requests.
    plain: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// What a server does after so many records of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Records {
    pub(super) end_after: Option<u64>,
    pub(super) request_update_after: Option<u64>,
    /// rustls keeps every session.
    pub(super) keep: bool,
}

// ===== impl Local =====

impl Local {
    pub(super) fn start(records: Records) -> Self {
        let certificate = Certificate::of_tests();
        let loopback = vec![([127, 0, 0, 1], 0).into()];
        let hub = HubConfig {
            coalesce: Duration::ZERO,
            keepalive: Duration::from_secs(3_600),
            retry_ms: (50, 50),
            ..HubConfig::default()
        };
        let mut config = Config {
            listen: loopback.clone(),
            plain_listen: loopback,
            workers: 1,
            insecure_open: true,
            cors: CorsPolicy::Any,
            tls: Some(TlsFiles {
                certificate: certificate.certificate.into(),
                key: certificate.key.into(),
            }),
            drain_window: Duration::ZERO,
            hub,
            ..Config::default()
        };
        records.apply(&mut config);
        let server = Server::bind(config).expect("a free port");
        let [secure, plain] = server.addresses() else { panic!("two addresses") };
        let [secure, plain] =
            [secure, plain].map(|address| address.endpoint.tcp().expect("an address"));
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(server.run(async { _ = stopped.await }))
        });
        Self { secure, plain, _stop: stop }
    }

    fn request(&self, request: &str) -> Answer {
        let mut client = Client::connect(self.plain);
        client.send(request);
        client.read_answer()
    }

    pub(super) fn publish(&self, key: &str) {
        let body = format!("{{\"keys\":[\"{key}\"]}}");
        let answer = self.request(&post("/api/acme/events", "application/json", &body));
        assert_eq!(answer.status(), 202, "{answer:?}");
    }

    fn metrics(&self) -> String {
        self.request("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n").body
    }

    /// The value of a line of `/metrics`, by its name.
    pub(super) fn metric(&self, name: &str) -> u64 {
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}")).parse().expect("a number")
    }

    pub(super) fn seats(&self) -> u64 {
        self.metric("nudged_seats")
    }

    /// Ended streams by cause, without causes that did not occur.
    pub(super) fn closed(&self) -> BTreeMap<String, u64> {
        let metrics = self.metrics();
        let lines = metrics.lines();
        let lines = lines.filter_map(|l| l.strip_prefix("nudged_streams_closed_total{reason=\""));
        let causes = lines.map(|line| line.split_once("\"} ").expect("a cause and a number"));
        let causes = causes.map(|(cause, n)| (cause.to_owned(), n.parse().expect("a number")));
        causes.filter(|(_, n)| *n > 0).collect()
    }
}

// ===== impl Records =====

impl Records {
    fn apply(self, config: &mut Config) {
        let Self { end_after, request_update_after, keep } = self;
        let end_after = end_after.unwrap_or(TLS_RECORDS_MAX);
        config.tls_records = TlsRecords { end_after, request_update_after };
        config.tls_sessions = if keep { TlsSessions::Keep } else { TlsSessions::Release };
    }
}
