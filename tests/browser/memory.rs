//! The memory of pages that stay open, in Chromium: bytes and listeners after its collection of garbage.

use std::fmt::Write as _;

use serde_json::json;

use crate::harness::{Chrome, Page, Site, Tab, accepted, server};
use crate::support::client::post;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

/// It counts what it gets, and keeps nothing of it: a client for each of its users.
const PAGE: &str = "<!doctype html><title>memory</title><script type='module'>
    import { nudged } from '/nudged.js';
    window.keys = window.connects = window.opens = 0;
    window.streams = new URLSearchParams(location.search).get('users').split(' ').map(user => nudged(
        '/api/acme/events', {
        ticket: () => fetch(`/ticket?user=${user}`).then(answer => answer.text()),
        hidden: true, spread: 0,
        connected: () => { connects += 1; },
        invalidate: some => { keys += some.length; },
        status: state => { opens += state === 'open'; },
    }));
</script>";

/// What scripts have in use. What the browser itself has for a page is left out: it goes up and down by 80,000 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// Bytes.
    pub(crate) heap: f64,
    listeners: f64,
}

// ===== impl Use =====

impl Use {
    /// Of the process of this page.
    pub(crate) fn of(tab: &Tab<'_>) -> Self {
        let nothing = json!({});
        tab.devtools("Performance.enable", &nothing);
        // The browser notes up to 250 of a page's requests.
        tab.run("performance.clearResourceTimings()");
        // Twice, because what the first one frees may hold more.
        (0..2).for_each(|_| _ = tab.devtools("HeapProfiler.collectGarbage", &nothing));
        let usage = tab.devtools("Runtime.getHeapUsage", &nothing);
        let heap = usage["usedSize"].as_f64().expect("a number");
        let metrics = tab.devtools("Performance.getMetrics", &nothing);
        let metrics = metrics["metrics"].as_array().expect("a list");
        let listeners = metrics.iter().find(|metric| metric["name"] == "JSEventListeners");
        let listeners = listeners.expect("a metric")["value"].as_f64().expect("a number");
        Self { heap, listeners }
    }
}

fn assert_flat(before: Use, after: Use, bytes: f64) {
    assert!(after.heap - before.heap < bytes, "{before:?} {after:?}");
    assert!(after.listeners <= before.listeners, "{before:?} {after:?}");
}

/// Waits in the page until this counter has this value: each command of the driver leaves something in it.
fn wait(tab: &Tab<'_>, counter: &str, value: u64) {
    let script = format!(
        "const start = performance.now();
        return new Promise(done => {{
            const look = () => {counter} >= {value} || performance.now() - start > 20000 ? done({counter}) : setTimeout(look, 5);
            look();
        }});"
    );
    assert_eq!(tab.run(&script), value, "{counter}");
}

/// Publishes events with one key each, and waits until every tab has them.
fn publish_events(server: &Server, tabs: &[Tab<'_>], numbers: std::ops::Range<u64>) {
    let end = numbers.end;
    for first in numbers.step_by(100) {
        let mut lines = String::new();
        for n in first..end.min(first + 100) {
            writeln!(lines, r#"{{"org":"acme","keys":["post:{n}"]}}"#).expect("a string");
        }
        accepted(server, &post("/api/events", "application/x-ndjson", &lines));
        for tab in tabs {
            wait(tab, "keys", end.min(first + 100));
        }
    }
}

/// The stream's page has at most 17,000 bytes more, as have the two that receive from it. An id that stays for each of
/// 4,500 events is 125,000.
#[test]
fn five_thousand_events_leave_nothing_in_a_page() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    site.add("/memory", PAGE);
    let chrome = Chrome::start();
    let url = format!("{}/memory?users=anna", site.origin());
    let tabs = [chrome.tab(&url), chrome.tab(&url), chrome.tab(&url)];
    for tab in &tabs {
        wait(tab, "connects", 1);
    }
    publish_events(&server, &tabs, 0..500);
    let before = tabs.each_ref().map(Use::of);
    publish_events(&server, &tabs, 500..5000);
    let after = tabs.each_ref().map(Use::of);
    for (before, after) in before.iter().zip(&after) {
        assert_flat(*before, *after, 60_000.0);
    }
    assert_eq!((server.seats(), site.problems()), (1, vec![]));
}

/// Five clients, since a browser opens at most six connections to a site over HTTP/1, each of a user of its own.
#[test]
fn two_hundred_reconnections_leave_nothing_in_a_page() {
    requires!(CHROMEDRIVER, CHROMIUM);
    const CLIENTS: u64 = 5;
    let server = server(&["--retry-min", "100ms", "--retry-max", "100ms"]);
    let site = Site::start(server.address());
    site.add("/memory", PAGE);
    let chrome = Chrome::start();
    let tab = chrome.tab(&format!("{}/memory?users=a%20b%20c%20d%20e", site.origin()));
    let mut opens = CLIENTS;
    let mut reconnect = |times: u64| {
        for _ in 0..times {
            site.set_upstream(Some(server.address()));
            opens += CLIENTS;
            wait(&tab, "opens", opens);
            eventually("no other stream is open", || server.seats() == CLIENTS);
        }
    };
    wait(&tab, "opens", CLIENTS);
    reconnect(10);
    let before = Use::of(&tab);
    reconnect(40);
    let after = Use::of(&tab);
    assert_flat(before, after, 40_000.0);
    assert_eq!((site.ids().len() as u64, site.problems()), (51 * CLIENTS, vec![]));
    assert_eq!(tab.run("return connects"), CLIENTS);
}
