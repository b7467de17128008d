//! Responses that are no stream, and tickets that fail.

use serde_json::{Value, json};

use super::{Sharing, assert_resumed, eventually_share, sharing, tabs};
use crate::harness::{Chrome, Page, Published, Site, Tab, Tickets, answer, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn tickets_that_are_refused_are_replaced_for_ever() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2] {
        let server = server(&[]);
        let site = Site::start(server.address());
        let mut published = Published::default();
        let tabs = tabs(&chrome, &site, count);
        let asked = site.asked();
        site.answer_api(Some(answer(401, "text/plain", "no")));
        site.set_upstream(Some(server.address()));
        // Why is known to the tab that holds the stream.
        tabs[0].eventually_is("connecting", 401);
        tabs[1..].iter().for_each(|tab| tab.eventually_is("connecting", Value::Null));
        eventually("further tickets", || site.asked() >= asked + 3);
        published.publish(&server, "acme", "missed");
        site.answer_api(None);
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        tabs.into_iter().for_each(Tab::close);
    }
}

/// The server's `retry` is an hour; `online` ends each pause.
#[test]
fn a_new_ticket_is_used_at_once_and_one_that_is_refused_too_waits() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--retry-min", "3600s", "--retry-max", "3600s"]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let mut published = Published::default();
    let tabs = tabs(&chrome, &site, 2);
    let online = || _ = tabs[0].run("dispatchEvent(new Event('online'))");
    site.set_upstream(Some(server.address()));
    tabs[0].eventually_is("connecting", Value::Null);
    site.answer_next([answer(401, "text/plain", "no")]);
    published.publish(&server, "acme", "missed");
    online();
    tabs.iter().for_each(|tab| tab.eventually_has("missed"));
    assert_eq!((site.asked(), site.ids().len()), (3, 3));

    site.answer_api(Some(answer(401, "text/plain", "no")));
    site.set_upstream(Some(server.address()));
    tabs[0].eventually_is("connecting", Value::Null);
    online();
    tabs[0].eventually_is("connecting", 401);
    eventually("the new one was refused", || site.ids().len() == 5);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!((site.asked(), site.ids().len()), (4, 5));
    // It may not wait yet.
    eventually("the next one was refused", || {
        online();
        site.ids().len() > 5
    });
    site.answer_api(None);
    eventually("it has come back", || {
        online();
        server.seats() == 1
    });
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
}

#[test]
fn a_final_refusal_ends_each_tab() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for (status, has_ticket) in [(401, false), (403, true), (404, true), (410, true)] {
        let server = server(&[]);
        let site = Site::start(server.address());
        let mut published = Published::default();
        let tabs = if has_ticket {
            tabs(&chrome, &site, 2)
        } else {
            let url = site.page(&json!({ "url": "/api/acme/events", "user": "anna" }));
            let tab = chrome.tab(&format!("{}/empty", site.origin()));
            tab.run(&format!("document.cookie = 'nudged_token={}; path=/'", site.mint("anna")));
            tab.go(&url);
            let tabs = vec![tab, chrome.tab(&url)];
            tabs.iter().for_each(|tab| tab.eventually_connected(1));
            tabs
        };
        published.publish(&server, "acme", "before");
        tabs.iter().for_each(|tab| tab.eventually_has("before"));
        let before = site.ids().len();
        site.answer_api(Some(answer(status, "text/plain", "no")));
        site.set_upstream(Some(server.address()));
        tabs.iter().for_each(|tab| tab.eventually_is("closed", status));
        site.answer_api(None);
        tabs.iter().for_each(|tab| _ = tab.run("dispatchEvent(new Event('online'))"));
        tabs.iter().for_each(|tab| _ = tab.run("dispatchEvent(new Event('pageshow'))"));
        assert_eq!(site.ids().len(), before + 2, "each has asked for itself");
        assert_eq!((server.seats(), site.streams()), (0, 0));
        tabs.into_iter().for_each(Tab::close);
    }
}

#[test]
fn a_tab_that_is_logged_out_leaves_the_stream_to_the_others() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let mut published = Published::default();
    let mut tabs = tabs(&chrome, &site, 2);
    tabs[0].run("ticketStatus = 401");
    site.answer_next([answer(401, "text/plain", "no")]);
    site.set_upstream(Some(server.address()));
    tabs[0].eventually_is("closed", "no ticket");
    let without = tabs.remove(0);
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
    assert_eq!(without.keys(), [""; 0]);
}

#[test]
fn a_ticket_server_that_fails_is_asked_again() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    site.set_tickets(Tickets { status: 500, ..Tickets::default() });
    let tab = chrome.tab(&site.page(&json!({ "ticket": "anna" })));
    tab.eventually_is("connecting", "ticket");
    eventually("it has asked twice", || site.asked() == 2);
    assert_eq!(site.heads().len(), 0, "no stream without a ticket");
    site.set_tickets(Tickets::default());
    tab.run("dispatchEvent(new Event('online'))");
    tab.eventually_connected(1);
    assert_eq!(site.asked(), 3);
}

#[test]
fn what_is_no_stream_is_tried_again() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let answers = [
        (answer(502, "text/html", "<h1>Bad Gateway</h1>"), 502),
        (answer(200, "text/html", "<h1>Welcome to the Wi-Fi</h1>"), 200),
        (answer(429, "application/problem+json", "{}"), 429),
        (answer(503, "text/plain", "no"), 503),
    ];
    for (answer, status) in answers {
        let Sharing { server, site, mut published, tabs, before } = sharing(&chrome, &[], 2);
        site.answer_api(Some(answer));
        site.set_upstream(Some(server.address()));
        tabs[0].eventually_is("connecting", status);
        tabs[1].eventually_is("connecting", Value::Null);
        published.publish(&server, "acme", "missed");
        site.answer_api(None);
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        assert_eq!(site.ids().last(), Some(&before));
        tabs.into_iter().for_each(Tab::close);
    }
}

/// A browser at a limit gets `200`, a `retry:`, and the end of the stream.
#[test]
fn a_server_that_is_full_is_tried_again() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--streams", "1", "--public-orgs", "acme", "--public-keys", "posts"]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let mut other = server.stream_with("/api/acme/public/events", "");
    other.connected();
    let url = site.page(&json!({ "ticket": "anna" }));
    let tabs = [chrome.tab(&url), chrome.tab(&url)];
    eventually("it has come back", || site.ids().len() >= 3);
    let refused = || server.metric("nudged_refused_total{limit=\"streams\"}") as usize;
    eventually("each was refused", || refused() == site.ids().len());
    for tab in &tabs {
        assert_eq!(tab.connected(), 0, "{:?}", tab.seen());
        let states = tab.seen_of("status");
        assert!(states.iter().all(|state| state == "connecting"), "it was never open: {states:?}");
    }
    drop(other);
    tabs.iter().for_each(|tab| tab.eventually_connected(1));
    tabs.iter().for_each(|tab| tab.eventually_is("open", Value::Null));
    assert_eq!(server.seats(), 1);
}

/// The server's `retry` is 200 ms.
#[test]
fn a_server_that_says_when_to_come_again_is_left_alone_until_then() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let mut published = Published::default();
    let tabs = tabs(&chrome, &site, 2);
    let unavailable = answer(503, "text/plain", "no");
    let later = unavailable.replacen("\r\n", "\r\nretry-after: 300\r\n", 1);
    site.answer_next([unavailable, later]);
    site.set_upstream(Some(server.address()));
    eventually("it was asked to wait", || site.ids().len() == 3);
    // Longer than the next pause would be: 0.5 s.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(site.ids().len(), 3);
    published.publish(&server, "acme", "missed");
    tabs.iter().for_each(|tab| _ = tab.run("dispatchEvent(new Event('online'))"));
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
    assert_eq!(tabs[1].run("return steals"), 0);
}
