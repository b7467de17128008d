//! Tabs that come, go, or stand alone.

use serde_json::{Value, json};

use super::{Sharing, assert_resumed, eventually_share, sharing};
use crate::harness::{Chrome, Page, Published, Site, publish, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn a_tab_that_joins_while_the_holder_is_connecting_waits_for_it() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(None);
    let chrome = Chrome::start();
    let url = site.page(&json!({ "ticket": "anna" })) + "&steals";
    let tabs = [chrome.tab(&url), chrome.tab(&url), chrome.tab(&url)];
    // After 9 s: longer than a tab waits for an answer.
    eventually("the holder has tried again", || site.ids().len() >= 3);
    for tab in &tabs {
        assert_eq!(tab.seen_of("connected"), [Value::Null; 0]);
        assert_eq!(tab.status()[0], "connecting");
        assert_eq!(tab.run("return steals"), 0);
    }
    site.set_upstream(Some(server.address()));
    // Its pauses grow, since no `retry:` has come.
    eventually("it has a stream", || {
        tabs[0].run("dispatchEvent(new Event('online'))");
        server.seats() == 1
    });
    for tab in &tabs {
        tab.eventually_connected(1);
        assert_eq!(tab.seen_of("connected"), [true]);
    }
    let mut published = Published::default();
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
}

/// The next tab in line has the lock at once.
#[test]
fn a_stream_that_is_closed_goes_to_the_next_tab() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let Sharing { server, site, mut published, mut tabs, before } = sharing(&chrome, &[], 2);
    let closed = tabs.remove(0);
    closed.run("stream.close()");
    closed.eventually_is("closed", Value::Null);
    eventually("the successor has come", || site.ids().len() == 2);
    assert_eq!(site.ids()[1], before);
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
    assert_eq!(closed.keys(), ["before"]);

    // A tab that waits in line leaves it.
    closed.run(r#"follow({ ticket: "anna" })"#);
    closed.eventually_is("open", Value::Null);
    closed.run("stream.close()");
    tabs.remove(0).close();
    eventually("no stream is left", || server.seats() == 0 && site.streams() == 0);
    assert_eq!(site.ids().len(), 2);
}

/// One page may call `nudged` several times, in parts that are independent.
#[test]
fn parts_of_one_page_share_a_stream() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let tab = chrome.tab(&site.page(&json!({ "ticket": "anna" })));
    tab.eventually_connected(1);
    tab.run(r#"first = stream; follow({ ticket: "anna" })"#);
    tab.eventually_connected(2);
    assert_eq!(tab.seen_of("connected"), [true, true]);
    publish(&server, "acme", &["posts"]);
    eventually("both have it", || tab.keys() == ["posts", "posts"]);
    assert_eq!(server.seats(), 1);
    tab.run("first.close()");
    eventually("the successor has come", || site.ids().len() == 2 && server.seats() == 1);
    publish(&server, "acme", &["feed"]);
    eventually("the other one has it", || tab.keys() == ["posts", "posts", "feed"]);
}

/// Without a secure context there are no Web Locks.
#[test]
fn without_web_locks_each_tab_has_a_stream() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--host", "t,test,example.test"]);
    let site = Site::start(server.address());
    let flags = [
        "--host-resolver-rules=MAP example.test 127.0.0.1",
        "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
    ];
    let chrome = Chrome::start_with(&flags);
    let host = format!("example.test:{}", site.address.port());
    let url = site.page_at(&host, &json!({ "ticket": "anna" }));
    let tabs = [chrome.tab(&url), chrome.tab(&url)];
    for tab in &tabs {
        assert_eq!(tab.run("return [isSecureContext, !!navigator.locks]"), json!([false, false]));
        tab.eventually_connected(1);
        tab.eventually_is("open", Value::Null);
    }
    assert_eq!((server.seats(), site.streams()), (2, 2));
    let before = publish(&server, "acme", &["posts"]).expect("subscribed");
    tabs.iter().for_each(|tab| tab.eventually_has("posts"));
    site.set_upstream(None);
    eventually("the seats are free", || server.seats() == 0);
    publish(&server, "acme", &["missed"]);
    site.set_upstream(Some(server.address()));
    tabs.iter().for_each(|tab| tab.eventually_has("missed"));
    assert_eq!(site.ids()[site.ids().len() - 1], before);
    assert_resumed(&tabs);

    // The same by the option, in a context that has locks.
    let url = site.page(&json!({ "ticket": "anna", "share": false }));
    let alone = [chrome.tab(&url), chrome.tab(&url)];
    alone.iter().for_each(|tab| tab.eventually_connected(1));
    assert_eq!((server.seats(), site.streams()), (4, 4));
    publish(&server, "acme", &["last"]);
    for tab in tabs.iter().chain(&alone) {
        tab.eventually_has("last");
        assert_eq!(tab.keys().iter().filter(|key| *key == "last").count(), 1);
    }
}

/// A tab may miss messages of another one. The script stands for the tab that holds the stream: it has its lock and its
/// channel, which have one name.
#[test]
fn no_gap_between_tabs_is_silent() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let tab = chrome.tab(&site.page(&json!({ "ticket": "anna", "spread": 0 })));
    tab.eventually_connected(1);
    let id = publish(&server, "acme", &["posts"]).expect("subscribed");
    tab.eventually_has("posts");
    let other = chrome.tab(&format!("{}/empty", site.origin()));
    other.run(
        "return navigator.locks.query().then(({ held: [{ name }] }) => {
            window.channel = new BroadcastChannel(name);
            channel.onmessage = ({ data: [kind] }) => kind === '?' && channel.postMessage(['!', id, '', [], 20000]);
            window.id = arguments[0];
            return new Promise(done => navigator.locks.request(name, { steal: true }, () => {
                done();
                return new Promise(() => {});
            }));
        })"
        .replace("arguments[0]", &json!(id).to_string())
        .as_str(),
    );
    eventually("its stream has ended", || server.seats() == 0);
    let post = |kind: &str, id: &str, before: &str, keys: Value| {
        let message = json!([kind, id, before, keys, 20000]);
        other.run(&format!("channel.postMessage({message}); window.id = {};", json!(id)));
    };
    let steps = [
        // In turn; again; behind a gap; a sign of life behind a gap, and of what is known; everything.
        ("k", "i1", id.as_str(), json!(["one"]), 1, vec!["one"]),
        ("k", "i1", id.as_str(), json!(["one"]), 1, vec![]),
        ("k", "i2", "i1", json!([]), 1, vec![]),
        ("k", "i5", "i4", json!(["five"]), 2, vec![]),
        ("!", "i7", "", json!([]), 3, vec![]),
        ("!", "i5", "", json!([]), 3, vec![]),
        ("k", "i8", "i7", json!(["eight"]), 3, vec!["eight"]),
        ("k", "i9", "i8", Value::Null, 4, vec![]),
        ("k", "i9", "i8", Value::Null, 5, vec![]),
    ];
    let mut keys = vec!["posts".to_owned()];
    for (number, (kind, at, before, some, connected, expected)) in steps.into_iter().enumerate() {
        post(kind, at, before, some);
        tab.eventually_connected(connected);
        keys.extend(expected.into_iter().map(str::to_owned));
        eventually("each key once", || tab.keys() == keys);
        let id = if at == "i5" && number > 4 { "i7" } else { at };
        eventually("the id of the last news", || tab.run("return stream.id") == id);
        assert_eq!((tab.connected(), tab.keys()), (connected, keys.clone()), "step {number}");
    }
    assert_eq!((server.seats(), tab.run("return steals")), (0, json!(0)));
}
