//! Chromium and Firefox: an `EventSource` over HTTP/1.1, whose connection updates its keys.

use super::server::Records;
use super::{Answers, EVERY, Site};
use crate::support::chromium::Browser;
use crate::support::eventually;
use crate::support::firefox::Firefox;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, FIREFOX, OPENSSL, requires};
use crate::support::site as page;

/// Opens the stream at this URL, from a page of another origin.
fn open(url: &str) -> String {
    format!(
        "window.seen = [];
        window.source = new EventSource('{url}');
        for (const name of ['connected', 'resumed', 'invalidate'])
            source.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));"
    )
}

/// The origin of an empty page.
fn page() -> String {
    page::Site::start([("/", "<!doctype html><title>nudged</title>".into())]).origin()
}

const UPDATING: Records =
    Records { request_update_after: Some(EVERY), end_after: None, keep: false };

/// Whether a page has received an event with this key.
fn has(seen: &[[String; 3]], key: &str) -> bool {
    seen.iter().any(|[_, data, _]| data.contains(&format!("[\"{key}\"]")))
}

/// Over HTTP/2 the session would stay with rustls.
pub(super) fn chromium(site: &Site) -> Browser {
    let flags = ["--disable-http2".into(), format!("--ssl-key-log-file={}", site.key_log())];
    let browser = Browser::open_with(&page(), &flags);
    browser.execute(&open(&site.tap.url()), "");
    eventually("the stream is open", || site.server.seats() == 1);
    browser
}

#[test]
fn chromium_follows_the_keys_of_the_server() {
    requires!(OPENSSL, CHROMEDRIVER, CHROMIUM);
    let site = Site::start(UPDATING);
    let browser = chromium(&site);
    site.updates_keys(Answers::None, |key| has(&browser.seen(), key));
    browser.execute("source.close()", "");
    site.ends_as("client");
}

#[test]
fn firefox_updates_its_keys() {
    requires!(OPENSSL, FIREFOX);
    let site = Site::start(UPDATING);
    let settings = "user_pref(\"network.http.http2.enabled\", false);\n";
    let browser = Firefox::open_with(&page(), settings, &site.key_log());
    browser.execute(&open(&site.tap.url()));
    eventually("the stream is open", || site.server.seats() == 1);
    site.updates_keys(Answers::One, |key| has(&browser.seen(), key));
    browser.execute("source.close()");
    site.ends_as("client");
}
