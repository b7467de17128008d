//! Several users in one browser.

use serde_json::{Value, json};

use super::{Sharing, eventually_share, sharing};
use crate::harness::{Chrome, Page, Site, Tickets, answer, publish, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

/// SCENARIO: two users of one site, with one URL of the stream, have tabs in one browser; another tab has no user.
/// BUG: the sketch's tabs shared a stream by the URL, so that each received the other's keys, without a ticket too.
/// FIX: tabs share by what the ticket says of its user, and a tab without a ticket of its own receives nothing.
#[test]
fn users_of_one_origin_never_receive_the_keys_of_each_other() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let page = |user: &str| site.page(&json!({ "url": "/api/mine/events", "ticket": user }));
    let annas = [chrome.tab(&page("anna")), chrome.tab(&page("anna"))];
    let berts = [chrome.tab(&page("bert")), chrome.tab(&page("bert"))];
    annas.iter().chain(&berts).for_each(|tab| tab.eventually_connected(1));

    site.set_tickets(Tickets { status: 401, ..Default::default() });
    let without = chrome.tab(&page("anna"));
    without.eventually_is("closed", "no ticket");

    assert_eq!((server.seats(), site.streams()), (2, 2));
    for round in 0..3 {
        publish(&server, "anna", &[&format!("annas:{round}")]);
        publish(&server, "bert", &[&format!("berts:{round}")]);
    }
    for tab in &annas {
        tab.eventually_has("annas:2");
        assert_eq!(tab.keys(), ["annas:0", "annas:1", "annas:2"]);
        assert_eq!(tab.connected(), 1);
    }
    for tab in &berts {
        tab.eventually_has("berts:2");
        assert_eq!(tab.keys(), ["berts:0", "berts:1", "berts:2"]);
        assert_eq!(tab.connected(), 1);
    }
    let seen = [["status", "connecting"], ["status", "closed"]];
    let states: Vec<_> = without.seen().iter().map(|e| [e[0].clone(), e[1].clone()]).collect();
    assert_eq!(json!(states), json!(seen), "it received nothing");
}

#[test]
fn another_user_begins_anew() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let url = site.page(&json!({ "url": "/api/mine/events", "ticket": "anna", "spread": 0 }));
    let tabs = [chrome.tab(&url), chrome.tab(&url)];
    tabs.iter().for_each(|tab| tab.eventually_connected(1));
    publish(&server, "anna", &["annas"]);
    tabs.iter().for_each(|tab| tab.eventually_has("annas"));

    // The site's session has become another user's, and the first one's ticket is refused.
    tabs[0].run("user = 'bert'");
    site.answer_next([answer(401, "text/plain", "no")]);
    site.set_upstream(Some(server.address()));
    tabs[0].eventually_connected(2);
    assert_eq!(tabs[0].seen_of("connected"), [true, false]);
    eventually("each has a stream", || server.seats() == 2 && site.streams() == 2);
    assert_eq!(tabs[1].run("return steals"), 0, "the first user's lock is free");
    let ids = site.ids();
    assert_eq!(ids.iter().filter(|id| id.is_empty()).count(), 2, "bert has no id: {ids:?}");
    publish(&server, "bert", &["berts"]);
    publish(&server, "anna", &["annas-too"]);
    tabs[0].eventually_has("berts");
    tabs[1].eventually_has("annas-too");
    assert_eq!(tabs[0].keys(), ["annas", "berts"]);
    assert_eq!(tabs[1].keys(), ["annas", "annas-too"]);
    assert_eq!(tabs[1].connected(), 1, "{:?}", tabs[1].seen());
}

/// A ticket's times and number differ each time, and say nothing of its user.
#[test]
fn a_new_ticket_of_the_same_user_changes_nothing() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let Sharing { server, site, mut published, tabs, before } = sharing(&chrome, &[], 2);
    assert_eq!(site.asked(), 2);
    site.answer_next([answer(401, "text/plain", "no")]);
    site.set_upstream(None);
    eventually("the seat is free", || server.seats() == 0);
    published.publish(&server, "acme", "missed");
    site.set_upstream(Some(server.address()));
    eventually_share(&tabs, &server, &site, &mut published);
    super::assert_resumed(&tabs);
    assert_eq!(site.asked(), 3, "the one of the refused ticket");
    assert_eq!(site.ids().last(), Some(&before));
}

/// The cookie is of the whole origin, so `user` says whose it was when a page was loaded.
#[test]
fn sessions_of_cookies_differ_by_user() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let tabs = ["anna", "anna", "bert"].map(|user| {
        let tab = chrome.tab(&format!("{}/empty", site.origin()));
        tab.run(&format!("document.cookie = 'nudged_token={}; path=/'", site.mint(user)));
        tab.go(&site.page(&json!({ "url": "/api/mine/events", "user": user })));
        tab.eventually_is("open", Value::Null);
        tab.eventually_connected(1);
        tab
    });
    assert_eq!((server.seats(), site.streams()), (2, 2));
    publish(&server, "anna", &["annas"]);
    publish(&server, "bert", &["berts"]);
    tabs[2].eventually_has("berts");
    tabs[..2].iter().for_each(|tab| tab.eventually_has("annas"));
    let keys = tabs.each_ref().map(Page::keys);
    assert_eq!(json!(keys), json!([["annas"], ["annas"], ["berts"]]));
    assert!(site.heads().iter().all(|head| !head.contains("\r\nauthorization:")));
}
