//! A real browser whose server is replaced: its `EventSource` has no error, and goes on.

use super::upgradable::Upgradable;
use crate::support::chromium::Browser;
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::relay::Relay;

/// Counts what the page would notice.
const OPEN: &str = "
    window.seen = []; window.opened = 0; window.errors = 0;
    window.source = new EventSource(arguments[0]);
    source.onopen = () => ++opened;
    source.onerror = () => ++errors;
    for (const name of ['connected', 'resumed', 'invalidate'])
        source.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));";

#[test]
fn an_event_source_has_no_error() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let flags = ["--coalesce", "0", "--insecure-open", "--cors-origin", "*"];
    let mut server = Upgradable::start(&flags);
    let page = Relay::start(None, |_| "<!doctype html><title>nudged</title>".into());
    let browser = Browser::open(&format!("http://{}/", page.address));
    browser.execute(OPEN, &format!("http://{}/api/acme/events", server.address()));
    eventually("the page has subscribed", || server.seats() == 1);
    let mut count = 1;
    for _ in 0..3 {
        server.publish("acme", &["before"]);
        server.upgrade();
        server.publish("acme", &["after"]);
        count += 2;
        eventually("the page has all events", || browser.seen().len() == count);
    }
    let names: Vec<_> = browser.seen().into_iter().map(|[name, ..]| name).collect();
    assert_eq!((names[0].as_str(), names.len()), ("connected", 7));
    assert!(names[1..].iter().all(|name| name == "invalidate"), "{names:?}");
    assert_eq!(
        browser.execute("return [opened, errors, source.readyState]", ""),
        serde_json::json!([1, 0, 1])
    );
}

/// The counter counts.
#[test]
fn an_event_source_has_an_error_when_its_server_is_restarted() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = Upgradable::start(&["--insecure-open", "--cors-origin", "*"]);
    let page = Relay::start(None, |_| "<!doctype html><title>nudged</title>".into());
    let browser = Browser::open(&format!("http://{}/", page.address));
    browser.execute(OPEN, &format!("http://{}/api/acme/events", server.address()));
    eventually("the page has subscribed", || server.seats() == 1);
    server.signal(crate::support::server::Signal::TERM);
    eventually("the page has an error", || browser.execute("return errors", "").as_u64() > Some(0));
}
