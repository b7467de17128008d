use super::Operator;
use crate::harness::{Chrome, Site};
use crate::support::port::ReservedPort;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

/// What a server of a log with a certificate has at rest, without the lines that follow.
const AT_REST: &str = "# HELP nudged_connections Connections
nudged_build_info{version=\"1.2.3\",features=\"server,tls\"} 1
process_start_time_seconds 1000
nudged_draining 0
nudged_connections_max 100
nudged_streams_max 100
nudged_streams_closed_total{reason=\"client\"} 7
";

/// These lines in addition.
fn metrics(site: &Site, more: &str) {
    site.add("/metrics", format!("{AT_REST}{more}"));
}

#[test]
fn what_is_wrong_is_said_in_words_and_what_passes_is_not() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let good = "nudged_open 0
nudged_connections 90
nudged_streams_open{kind=\"member\"} 80
nudged_streams_open{kind=\"public\"} 10
nudged_streams_opened_total 1000
nudged_streams_closed_total{reason=\"stalled\"} 5
nudged_greetings_total{kind=\"new\"} 500
nudged_greetings_total{kind=\"resumed\"} 100
nudged_greetings_total{kind=\"reread\"} 400
nudged_refused_total{limit=\"rate\"} 3
nudged_proxy_protocol_refused_total{reason=\"v1\"} 3
nudged_log_lines_dropped_total 4
nudged_tls_certificate_expiry_timestamp_seconds 99999999999
nudged_backplane_connected 1
nudged_backplane_lag_seconds 0.5
nudged_backplane_cuts_total{reason=\"gap\"} 1
nudged_outbox_connected 1
process_open_fds 900
process_max_fds 1001
";
    let bad = "nudged_open 1
nudged_connections 91
nudged_streams_open{kind=\"member\"} 81
nudged_streams_open{kind=\"public\"} 10
nudged_streams_opened_total 1010
nudged_streams_closed_total{reason=\"stalled\"} 6
nudged_greetings_total{kind=\"new\"} 700
nudged_greetings_total{kind=\"resumed\"} 108
nudged_greetings_total{kind=\"reread\"} 412
nudged_refused_total{limit=\"rate\"} 5
nudged_proxy_protocol_refused_total{reason=\"v1\"} 4
nudged_log_lines_dropped_total 8
nudged_tls_certificate_expiry_timestamp_seconds 1000000000
nudged_backplane_connected 0
nudged_backplane_lag_seconds 1.5
nudged_backplane_cuts_total{reason=\"gap\"} 2
nudged_outbox_connected 0
process_open_fds 901
process_max_fds 1001
";
    let site = Site::start(None);
    metrics(&site, good);
    let chrome = Chrome::start();
    let page = Operator::open_scripted(&chrome, &site);
    page.eventually_has("#state", "Serving");
    page.eventually_numbers("Connections", "90");
    assert_eq!(page.text("#warnings li"), "", "what is counted from before is no news");

    metrics(&site, bad);
    let expected = [
        "Open: there is no key, so every client may subscribe and publish.",
        "Connections are nearly used up: 91 of 100.",
        "Streams are nearly used up: 91 of 100.",
        "Open files are nearly used up: 901 of 1,001.",
        "Refused: 2 in 5 min, by the limit rate.",
        "PROXY headers refused: 1 in 5 min, v1.",
        "Few streams resume: 40\u{a0}% in the last minute; the others re-read everything.",
        "Streams stalled: 1 in 5 min, whose clients did not read.",
        "Certificate: it has expired.",
        "The backplane is away: see the log.",
        "This server does not drain the outbox: another one does, or the log says why.",
        "The backplane is slow: the last record took 1.5\u{a0}s.",
        "The backplane was cut: 1 in 5 min, so all clients re-read everything.",
        "Log lines dropped: 4 in 5 min, which nothing read in time.",
    ];
    eventually("all of them", || page.text("#warnings li").lines().count() == expected.len());
    assert_eq!(page.text("#warnings li").lines().collect::<Vec<_>>(), expected);
    assert!(page.text("#live").starts_with("Serving. Open. Connections are nearly used up."));

    // Another process counts from 0: nothing has happened in it.
    let restarted =
        [(" 1000\n", " 1\n"), ("} 5\n", "} 2\n"), ("} 3\n", "} 1\n"), ("_total 4\n", "_total 1\n")]
            .iter()
            .fold(good.to_owned(), |text, (from, to)| text.replace(from, to));
    site.add(
        "/metrics",
        format!("{AT_REST}{restarted}").replace("_seconds 1000\n", "_seconds 2000\n"),
    );
    eventually("no warning", || page.text("#warnings li").is_empty());
    let shown = page.text("header, article, section");
    assert!(!shown.contains("-1") && !shown.contains("NaN"), "{shown}");
    page.assert_quiet();

    // What is no answer of a server is not shown as one.
    site.add("/metrics", "<!doctype html><title>Log in</title>");
    page.eventually_has("#state", "Cannot reach the server");
    page.eventually_has("#more", "no metrics of nudged");
    let page = Operator::open_scripted(&chrome, &site);
    page.eventually_has("#more", "no metrics of nudged");
    assert_eq!(page.number("Streams"), "");
    page.assert_quiet();

    // Behind a proxy with a prefix everything is beside the page.
    site.add("/inner/metrics", format!("{AT_REST}{good}"));
    site.add(
        "/inner/ops/orgs",
        r#"{"total":1,"orgs":[{"org":"acme","members":1,"public":0,"publishes_per_second":0}]}"#,
    );
    let page = Operator::open_scripted_at(&chrome, &site, "/inner/ops");
    page.eventually_numbers("Connections", "90");
    page.eventually_has("#orgs", "acme");
    page.assert_quiet();
}

/// The page pauses in the background: after what was under way, nothing is requested.
#[test]
fn a_hidden_page_requests_nothing_and_goes_on_when_it_is_seen() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let site = Site::start(None);
    metrics(&site, "nudged_connections 1\n");
    let chrome = Chrome::start();
    let page = Operator::open_scripted(&chrome, &site);
    page.run("const own = fetch; window.count = 0; fetch = (...all) => { count += 1; return own(...all); }");
    eventually("it requests the metrics", || page.run("return count").as_u64() > Some(1));
    page.0.set_hidden(true);
    let before = page.run("return new Promise(done => setTimeout(() => done(count), 1000))");
    let after = page.run("return new Promise(done => setTimeout(() => done(count), 2200))");
    assert_eq!(before, after);
    page.0.set_hidden(false);
    eventually("it goes on", || page.run("return count").as_u64() > after.as_u64());
    page.assert_quiet();
}

/// SCENARIO: the keys of a server cannot be fetched, or its log is still being read: `/readyz` is 503 for minutes.
/// BUG: the page called it serving.
/// FIX: it requests `/readyz` too, and shows the reason.
#[test]
fn a_server_that_is_not_ready_is_shown_with_the_reason() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let nothing = ReservedPort::new();
    let jwks = format!("http://{}/jwks", nothing.address);
    let server = Server::start(&["--jwks-url", &jwks, "--jwt-audience", "any"]);
    let chrome = Chrome::start();
    let page = Operator::open(&chrome, &server);
    page.eventually_has("#state", "Not ready");
    page.eventually_has("#more", "no keys");
    page.eventually_has("#live", "Not ready");
    page.assert_quiet();
}
