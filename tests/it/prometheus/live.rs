//! Every expression of the dashboard and the alerts, asked of a Prometheus that scrapes a server with all that has metrics.

use std::collections::BTreeSet;

use serde_json::Value;

use super::expression::{Known, Names};
use super::process::Prometheus;
use super::{file, grafana, panels, targets, text};
use crate::support::certificate::Certificate;
use crate::support::nats::NatsServer;
use crate::support::postgres::Postgres;
use crate::support::programs::{NATS_SERVER, OPENSSL, POSTGRES, PROMETHEUS, requires};
use crate::support::server::Signal;
use crate::support::{Server, Stream, eventually};

/// A server with TLS, a log and an outbox, which is scraped.
struct Scraped {
    prometheus: Prometheus,
    server: Server,
    _streams: [Stream; 2],
    _nats: NatsServer,
    _postgres: Postgres,
}

// ===== impl Scraped =====

impl Scraped {
    /// Starts all of it, and lets streams begin and end in every way that the dashboard shows.
    fn start() -> Self {
        let (nats, postgres) = (NatsServer::start(), Postgres::start());
        let (log, outbox) = (nats.url(), postgres.url());
        let certificate = Certificate::of_tests();
        let mut args = vec!["--plain-listen", "127.0.0.1:0", "--workers", "1"];
        args.extend(["--backplane", &log, "--outbox", &outbox]);
        args.extend(certificate.flags());
        let mut server = Server::start(&args);
        // The cleartext address comes first, for the requests below.
        server.addresses.reverse();
        eventually("the log is loaded", || server.get("/readyz").status() == 200);
        // Counters that begin with 0 there show an increase.
        let prometheus = Prometheus::of(server.address());

        let id = server.stream("acme").connected();
        server.publish("acme", &["a"]);
        let mut resumed =
            server.stream_with("/api/acme/events", &format!("last-event-id: {id}\r\n"));
        assert_eq!(resumed.greeting().2, "resumed");
        let unknown = "last-event-id: 0123456789abcdef-1\r\n";
        let mut reread = server.stream_with("/api/acme/events", unknown);
        assert_eq!(reread.greeting().2, "connected");
        server.publish("acme", &["b"]);
        postgres.sql().run("SELECT nudge('acme', 'c')");
        eventually("the row is published", || server.metric("nudged_outbox_published_total") == 1);
        Self { prometheus, server, _streams: [resumed, reread], _nats: nats, _postgres: postgres }
    }
}

/// An expression of the dashboard with its variables as Grafana fills them in.
fn filled(target: &Value) -> String {
    let expression = text(target, "expr").replace("$__rate_interval", "1m");
    expression.replace("$job", "nudged").replace("$instance", ".*")
}

/// The labels that a legend shows.
fn shown(target: &Value) -> Vec<String> {
    let legend = target["legendFormat"].as_str().unwrap_or_default();
    let labels = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().expect("a piece"));
    labels.map(str::to_owned).collect()
}

/// Names of series in the text of `/metrics`.
fn exposed(server: &Server) -> BTreeSet<String> {
    let metrics = server.get("/metrics").body;
    let series = metrics.lines().filter(|line| !line.starts_with('#'));
    series.map(|line| line.split([' ', '{']).next().expect("a piece").to_owned()).collect()
}

/// Fails if the expression names what Prometheus or `/metrics` does not have.
fn expect_known(expression: &str, known: &Known, exposed: &BTreeSet<String>) {
    let names = Names::of(expression);
    assert!(!names.metrics.is_empty(), "{expression}");
    let unknown = names.unknown(known);
    assert!(unknown.is_empty(), "{unknown:?} in {expression}");
    let missing: Vec<_> = names.metrics.iter().filter(|name| !exposed.contains(*name)).collect();
    // Prometheus makes this one itself.
    assert!(missing.iter().all(|name| *name == "up"), "{missing:?} in {expression}");
}

#[test]
fn prometheus_knows_all_that_dashboard_and_alerts_name_and_each_panel_shows_something() {
    requires!(PROMETHEUS, NATS_SERVER, POSTGRES, OPENSSL);
    let scraped = Scraped::start();
    let Scraped { prometheus, server, .. } = &scraped;
    let (known, exposed) = (prometheus.series(), exposed(server));

    let dashboard = grafana();
    for target in panels(&dashboard).into_iter().flat_map(targets) {
        let expression = filled(target);
        expect_known(&expression, &known, &exposed);
        let mut samples = Vec::new();
        eventually(&format!("there is data for {expression}"), || {
            samples = prometheus.query(&expression);
            !samples.is_empty() && samples.iter().all(|(_, value)| !value.is_nan())
        });
        for (labels, _) in samples {
            let missing = shown(target).into_iter().find(|name| labels.get(name).is_none());
            assert!(missing.is_none(), "no {missing:?} among {labels} of {expression}");
        }
    }
    // Otherwise no quantile is above the threshold of the alert.
    let bounds = &known["nudged_sweep_seconds_bucket"];
    let mut bounds = bounds.iter().map(|labels| labels["le"].parse::<f64>().expect("a number"));
    assert!(bounds.any(|bound| bound > 1.0 && bound.is_finite()));

    eventually("every alert is evaluated", || {
        prometheus.alerts().iter().all(|alert| alert["health"] != "unknown")
    });
    let alerts = prometheus.alerts();
    assert_eq!(alerts.len(), file("alerts.yml").matches("- alert: ").count());
    for alert in alerts {
        assert_eq!(alert["health"], "ok", "{alert}");
        expect_known(text(&alert, "query"), &known, &exposed);
        for name in ["summary", "description", "runbook"] {
            text(&alert["annotations"], name);
        }
        assert!(["critical", "warning"].contains(&text(&alert["labels"], "severity")), "{alert}");
    }
    // The certificate of the tests is valid for as long as it takes, and a busy machine sweeps slowly.
    let excepted = ["NudgedCertificateExpires", "NudgedCertificateExpiresSoon", "NudgedSweepSlow"];
    eventually("all is well", || {
        let mut active = prometheus.alerts().into_iter().filter(|rule| rule["state"] != "inactive");
        active.all(|rule| excepted.contains(&text(&rule, "name")))
    });

    server.signal(Signal::KILL);
    eventually("the alert for a server that is down waits for its time", || {
        let alerts = prometheus.alerts();
        alerts.iter().any(|alert| alert["name"] == "NudgedDown" && alert["state"] == "pending")
    });
}
