//! What a stream is asked for: where it begins, which keys, which topic.

use serde_json::{Value, json};

use crate::harness::{Chrome, Page, Site, Tab, accepted, publish, server};
use crate::support::client::post;
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn a_page_that_knows_its_position_does_not_read_again() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let warm = chrome.tab(&site.page(&json!({ "ticket": "anna", "share": false })));
    warm.eventually_connected(1);
    let old = publish(&server, "acme", &["old"]).expect("subscribed");
    let page = publish(&server, "acme", &["page"]).expect("subscribed");
    let open = |since: &str| {
        let tab = chrome.tab(&site.page(&json!({ "ticket": "anna", "since": since, "spread": 0 })));
        tab.eventually_is("open", Value::Null);
        tab
    };
    let holder = open(&old);
    holder.eventually_has("page");
    assert_eq!(site.ids(), ["", &old]);
    let fresh = open(&page);
    let stale = open(&old);
    stale.eventually_connected(1);
    publish(&server, "acme", &["new"]);
    for (tab, connected, keys) in
        [(&holder, 0, vec!["page", "new"]), (&fresh, 0, vec!["new"]), (&stale, 1, vec!["new"])]
    {
        tab.eventually_has("new");
        assert_eq!(
            (tab.connected(), tab.keys()),
            (connected, keys.into_iter().map(String::from).collect())
        );
    }
    assert_eq!(server.seats(), 2);
}

/// SCENARIO: keepalives of a filtered stream carry the position, although nothing was sent.
/// BUG: the sketch's tabs took a sign of life whose id had moved for a gap, and read everything.
/// FIX: the holder says which id was before it.
#[test]
fn tabs_with_the_same_keys_share_a_stream_whose_id_moves_with_its_pings() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--keepalive", "1s"]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let tab = |keys: &[&str]| {
        let tab = chrome.tab(&site.page(&json!({ "ticket": "anna", "keys": keys, "spread": 0 })));
        tab.eventually_connected(1);
        tab
    };
    let posts = [tab(&["posts", "feed:*"]), tab(&["posts", "feed:*"]), tab(&["posts", "feed:*"])];
    let users = tab(&["users"]);
    assert_eq!(server.seats(), 2);
    let query = |head: &String| head.split(' ').nth(1).expect("a target").to_owned();
    let targets: Vec<_> = site.heads().iter().map(query).collect();
    let decoded = targets[0].replace("%3a", ":").replace("%2a", "*");
    assert!(decoded.ends_with("?keys=posts&keys=feed:*"), "{targets:?}");

    publish(&server, "acme", &["posts", "users"]);
    for round in 0..3 {
        let mut last = String::new();
        for number in 0..5 {
            last = publish(&server, "acme", &[&format!("others:{number}")]).expect("subscribed");
        }
        for tab in posts.iter().chain([&users]) {
            eventually(&format!("the id has moved, {round}"), || {
                tab.run("return stream.id") == last
            });
        }
    }
    publish(&server, "acme", &["feed:7"]);
    publish(&server, "acme", &["users"]);
    for tab in &posts {
        tab.eventually_has("feed:7");
        assert_eq!(tab.connected(), 1, "{:?}", tab.seen());
    }
    eventually("both events", || users.keys().iter().filter(|key| *key == "users").count() == 2);
    assert_eq!(users.connected(), 1, "{:?}", users.seen());
    assert_eq!(server.seats(), 2);
}

/// A tab that joined the topic's stream of another one would lack what that one has had.
#[test]
fn each_tab_has_the_backlog_of_a_topic_and_closed_ends_them() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let topic = |method: &str, body: &str| {
        let request = post("/api/acme/topics/run-7/events", "application/json", body);
        accepted(&server, &request.replacen("POST", method, 1));
    };
    topic("POST", r#"{"event":"output","data":{"line":1}}"#);
    topic("POST", r#"{"event":"output","text":"raw \u2028 line"}"#);
    let options =
        json!({ "url": "/api/acme/topics/run-7/events", "ticket": "anna", "event": true });
    let tabs = [chrome.tab(&site.page(&options)), chrome.tab(&site.page(&options))];
    let output = |tab: &Tab<'_>| {
        let seen = tab.seen().into_iter();
        let output = seen.filter(|entry| entry[0] == "event" && entry[1] == "output");
        output.map(|entry| entry[2].as_str().expect("data").to_owned()).collect::<Vec<_>>()
    };
    let expected = [r#"{"line":1}"#, "raw \u{2028} line", "3"];
    for tab in &tabs {
        eventually("the backlog", || output(tab).len() == 2);
    }
    topic("POST", r#"{"event":"output","data":3}"#);
    for tab in &tabs {
        eventually("what came", || output(tab).len() == 3);
        assert_eq!(output(tab), expected);
    }
    assert_eq!(server.seats(), 2);

    // One that is cut goes on where it was.
    site.set_upstream(Some(server.address()));
    eventually("both are back", || site.ids().len() == 4 && server.seats() == 2);
    topic("DELETE", r#"{"reason":"done"}"#);
    for tab in &tabs {
        tab.eventually_is("closed", "closed");
        assert_eq!(output(tab), expected, "nothing came twice");
        assert_eq!(tab.seen_of("event").last().expect("events"), "closed");
    }
    eventually("both have ended", || server.seats() == 0);
    tabs.iter().for_each(|tab| _ = tab.run("dispatchEvent(new Event('online'))"));
    assert_eq!(site.ids().len(), 4);
}
