//! Streams that a server of another version, or a proxy, might send.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Chrome, Page, Site, read_head};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

/// A server whose streams have what the test sends, and stay open. Ends with the test's process.
pub(super) struct Script {
    pub(super) address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

// ===== impl Script =====

impl Script {
    /// Each stream begins with this.
    pub(super) fn start(first: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let (streams, first) = (Arc::new(Mutex::new(Vec::new())), first.into());
        let accepted = Arc::clone(&streams);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                _ = read_head(&mut stream);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
                _ = stream.write_all(format!("{head}{first}").as_bytes());
                accepted.lock().expect("no panic").push(stream);
            }
        });
        Self { address, streams }
    }

    /// Sends it again and again on every stream that is open, as fast as it is read.
    pub(super) fn flood(&self, text: &str) {
        for mut stream in self.streams.lock().expect("no panic").drain(..) {
            let text = text.to_owned();
            thread::spawn(move || while stream.write_all(text.as_bytes()).is_ok() {});
        }
    }

    /// Sends it on every stream that is open.
    fn send(&self, text: &str) {
        for stream in self.streams.lock().expect("no panic").iter_mut() {
            _ = stream.write_all(text.as_bytes());
        }
    }
}

pub(super) fn event(id: &str, name: &str, data: &str) -> String {
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}

/// SCENARIO: the ids of a new server, and of a restored one, are smaller than what a tab has.
/// BUG: the sketch's tabs compared ids as numbers, and ignored what was not greater.
/// FIX: ids are compared for equality only.
#[test]
fn ids_may_be_anything() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let script = Script::start(event("ffffffffffffffff-7", "connected", r#"{"keepalive":20}"#));
    let site = Site::start(script.address);
    let chrome = Chrome::start();
    let url = site.page(&json!({ "ticket": "anna", "spread": 0 }));
    let tabs = [chrome.tab(&url), chrome.tab(&url), chrome.tab(&url)];
    tabs.iter().for_each(|tab| tab.eventually_connected(1));
    let keys = |key: &str| json!({ "keys": [key] }).to_string();
    script.send(&event("ffffffffffffffff-10", "invalidate", &keys("greater")));
    script.send(&event("ffffffffffffffff-8", "invalidate", &keys("smaller")));
    script.send(&event("0000000000000001-3", "connected", "{}"));
    // It includes keys that come shortly after it too.
    tabs.iter().for_each(|tab| tab.eventually_connected(2));
    script.send(&event("0000000000000001-4", "invalidate", &keys("after")));
    script.send(&event("no number", "invalidate", &keys("text")));
    script.send(&event("9", "invalidate", &keys("nine")));
    script.send(&event("10", "invalidate", &keys("ten")));
    for tab in &tabs {
        tab.eventually_has("ten");
        assert_eq!(tab.connected(), 2, "{:?}", tab.seen());
        let keys = tab.keys();
        assert!(keys.ends_with(&["after", "text", "nine", "ten"].map(String::from)), "{keys:?}");
        assert_eq!(tab.run("return stream.id"), "10");
    }
    // `connected` counts under an id that is known too.
    script.send(&event("10", "connected", "{}"));
    tabs.iter().for_each(|tab| tab.eventually_connected(3));
    assert_eq!(site.ids(), [""]);
}

/// SCENARIO: a key has U+2028, which is no line end of a stream.
/// BUG: the sketch's parser failed there, and each new attempt left its stream open: six of them fill a browser's
/// connections to an origin.
/// FIX: only CR and LF end lines, and what ends a stream aborts it.
#[test]
fn a_key_may_have_any_character() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let script = Script::start(event("a-1", "connected", r#"{"keepalive":20}"#));
    let site = Site::start(script.address);
    let chrome = Chrome::start();
    let url = site.page(&json!({ "ticket": "anna" }));
    let tabs = [chrome.tab(&url), chrome.tab(&url)];
    tabs.iter().for_each(|tab| tab.eventually_connected(1));
    let key = "a\u{2028}b\u{2029}c\u{85}d\u{feff}e\u{1f600}f\u{0b}g: h";
    let text = event("a-2", "invalidate", &json!({ "keys": [key] }).to_string());
    script.send(&text);
    for tab in &tabs {
        tab.eventually_has(key);
        assert_eq!(tab.connected(), 1);
        tab.eventually_is("open", Value::Null);
    }
    assert_eq!((site.ids().len(), site.streams()), (1, 1));
}

/// The stream of an attempt that is given up does not stay.
#[test]
fn a_stream_that_cannot_be_read_is_ended_before_the_next_one() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let endless = "x".repeat(3 << 20);
    let script = Script::start(format!("retry: 100\n: {endless}"));
    let site = Site::start(script.address);
    let chrome = Chrome::start();
    let tab = chrome.tab(&site.page(&json!({ "ticket": "anna" })));
    eventually("it has come back several times", || site.ids().len() >= 4);
    eventually("one stream at most is open", || site.streams() <= 1);
    assert_eq!(tab.connected(), 0);
    assert_eq!(tab.status()[0], "connecting");
}

/// A position without an event is one too (WHATWG HTML, 9.2.6).
#[test]
fn an_id_without_data_is_where_a_stream_resumes() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let script = Script::start(event("a-1", "connected", r#"{"keepalive":20}"#));
    let site = Site::start(script.address);
    let chrome = Chrome::start();
    let url = site.page(&json!({ "ticket": "anna", "spread": 0 }));
    let tabs = [chrome.tab(&url), chrome.tab(&url)];
    tabs.iter().for_each(|tab| tab.eventually_connected(1));
    script.send("id: a-5\n\n");
    for tab in &tabs {
        eventually("the id has moved", || tab.run("return stream.id") == "a-5");
    }
    script.send(&event("a-6", "invalidate", r#"{"keys":["posts"]}"#));
    script.send("id: a-7\n\n");
    for tab in &tabs {
        eventually("the id has moved", || tab.run("return stream.id") == "a-7");
        assert_eq!((tab.connected(), tab.keys()), (1, vec!["posts".to_owned()]));
    }
    site.set_upstream(Some(script.address));
    tabs.iter().for_each(|tab| tab.eventually_connected(2));
    assert_eq!(site.ids(), ["", "a-7"]);
}
