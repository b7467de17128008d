//! Hidden tabs.

use serde_json::json;

use crate::harness::{Chrome, Page, Site, publish, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn a_hidden_tab_is_notified_when_it_is_looked_at() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let open = || {
        let tab = chrome.tab(&site.page(&json!({ "ticket": "anna", "spread": 0 })));
        tab.eventually_connected(1);
        // The id of one that is notified at once is what the page has received.
        tab.run("window.eager = nudged('/api/acme/events', { ticket, hidden: true })");
        tab.set_hidden(true);
        tab
    };
    let (holder, hidden) = (open(), open());
    let id = hidden.run("return stream.id");
    let published =
        [&["a", "b"][..], &["b"], &["c", "a"]].map(|keys| publish(&server, "acme", keys));
    let last = |published: &[Option<String>]| published.last().cloned().flatten().expect("an id");
    for tab in [&hidden, &holder] {
        let received = || tab.run("return eager.id") == last(&published);
        eventually("the page has received them", received);
        assert_eq!(tab.keys(), [""; 0]);
        assert_eq!(tab.run("return stream.id"), id, "up to here it was notified");
    }
    for tab in [&hidden, &holder] {
        tab.set_hidden(false);
        tab.eventually_has("c");
        assert_eq!(
            json!(tab.seen_of("invalidate")),
            json!([["a", "b", "c"]]),
            "one union, at once"
        );
        assert_eq!(tab.connected(), 1);
        assert_ne!(tab.run("return stream.id"), id);
    }

    // So many that naming them costs more than reading everything.
    hidden.set_hidden(true);
    let batch = |batch| {
        let keys: Vec<_> = (0..200).map(|key| format!("many:{batch}:{key}")).collect();
        publish(&server, "acme", &keys.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let published: Vec<_> = (0..6).map(batch).collect();
    let received = || hidden.run("return eager.id") == last(&published);
    eventually("the page has received them", received);
    assert_eq!(hidden.connected(), 1);
    hidden.set_hidden(false);
    hidden.eventually_connected(2);
    assert_eq!(hidden.seen_of("connected"), [true, false]);
    assert_eq!(hidden.seen_of("invalidate").len(), 1, "no key in addition");
    publish(&server, "acme", &["last"]);
    hidden.eventually_has("last");
    assert_eq!(server.seats(), 1);
}

/// Tabs of one window: the one that is used is seen, the others are hidden.
#[test]
fn a_tab_that_was_hidden_through_a_restart_reads_once() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let first = server(&[]);
    let site = Site::start(first.address());
    let chrome = Chrome::start();
    let url = site.page(&json!({ "ticket": "anna", "spread": 0 }));
    let hidden = chrome.tab_of_window(&url);
    hidden.eventually_connected(1);
    let seen = chrome.tab_of_window(&url);
    seen.eventually_connected(1);
    let mut servers = vec![first];
    for restart in 1..=2 {
        let next = server(&[]);
        site.set_upstream(Some(next.address()));
        servers.push(next);
        seen.eventually_connected(1 + restart);
    }
    publish(&servers[2], "acme", &["last"]);
    seen.eventually_has("last");
    hidden.eventually_connected(2);
    publish(&servers[2], "acme", &["next"]);
    hidden.eventually_has("next");
    assert_eq!(hidden.connected(), 2, "{:?}", hidden.seen());
    assert_eq!(hidden.keys(), ["next"], "`connected` includes the last one");
}
