//! Several tabs of a Chromium with one stream, which a tab takes over from another.

mod deploys;
mod hidden;
mod holders;
pub(crate) mod hostile;
mod joining;
mod network;
mod refusals;
mod scope;
mod users;
mod wire;

use serde_json::{Value, json};

use crate::harness::{Chrome, Page, Published, Site, Tab, server};
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::{Server, eventually};

/// Opens tabs of Anna, one after the other: the first one holds the stream.
fn tabs<'chrome>(chrome: &'chrome Chrome, site: &Site, count: usize) -> Vec<Tab<'chrome>> {
    let url = site.page(&json!({ "ticket": "anna", "spread": 0 }));
    let open = |_| {
        let tab = chrome.tab(&url);
        tab.eventually_is("open", Value::Null);
        tab.eventually_connected(1);
        tab
    };
    (0..count).map(open).collect()
}

/// Tabs of Anna with one stream, which have had one key.
struct Sharing<'chrome> {
    server: Server,
    site: Site,
    published: Published,
    tabs: Vec<Tab<'chrome>>,
    /// The id of that key's event.
    before: String,
}

/// Of a server with these arguments.
fn sharing<'chrome>(chrome: &'chrome Chrome, more: &[&str], count: usize) -> Sharing<'chrome> {
    let server = server(more);
    let site = Site::start(server.address());
    let mut published = Published::default();
    let tabs = tabs(chrome, &site, count);
    let before = published.publish(&server, "acme", "before");
    tabs.iter().for_each(|tab| tab.eventually_has("before"));
    Sharing { server, site, published, tabs, before }
}

/// Waits until all tabs share one stream, and had every key that was published.
fn eventually_share(tabs: &[Tab<'_>], server: &Server, site: &Site, published: &mut Published) {
    eventually("there is one stream", || server.seats() == 1 && site.streams() == 1);
    published.publish(server, "acme", "last");
    for tab in tabs {
        tab.eventually_has("last");
        published.eventually_reach(tab);
        tab.eventually_is("open", Value::Null);
    }
    eventually("there is still one stream", || server.seats() == 1 && site.streams() == 1);
}

/// No tab was notified that everything is stale but when it opened.
fn assert_resumed(tabs: &[Tab<'_>]) {
    for tab in tabs {
        assert_eq!(tab.connected(), 1, "{:?}", tab.seen());
    }
}

/// How often they took the stream from another tab that did not answer.
fn steals(tabs: &[Tab<'_>]) -> u64 {
    let steals = |tab: &Tab<'_>| tab.run("return steals").as_u64().expect("a number");
    tabs.iter().map(steals).sum()
}

#[test]
fn tabs_of_one_user_share_a_stream() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&[]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let mut published = Published::default();
    let tabs = tabs(&chrome, &site, 3);
    // Longer than one digit, so that ids that are compared as texts or numbers would differ.
    for number in 0..12 {
        published.publish(&server, "acme", &format!("posts:{number}"));
    }
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
    assert_eq!(site.ids(), [""]);
    let ids: Vec<_> = tabs.iter().map(|tab| tab.run("return stream.id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    for tab in &tabs {
        let keys = tab.keys();
        assert_eq!(keys.len(), 13, "each key comes once: {keys:?}");
    }
}
