//! Connections that are cut, silent, or away.

use super::{Sharing, assert_resumed, eventually_share, sharing, steals, tabs};
use crate::harness::{Chrome, Page, Published, Site, Tab, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn a_stream_that_is_cut_is_resumed_for_all_tabs() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2, 3] {
        let Sharing { server, site, mut published, tabs, before } = sharing(&chrome, &[], count);
        site.set_upstream(None);
        eventually("the seat is free", || server.seats() == 0);
        published.publish(&server, "acme", "missed");
        tabs.iter().for_each(|tab| tab.eventually_is("connecting", serde_json::Value::Null));
        site.set_upstream(Some(server.address()));
        tabs.iter().for_each(|tab| tab.eventually_has("missed"));
        assert_eq!(site.ids().last(), Some(&before));
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        assert_eq!(steals(&tabs), 0);
        tabs.into_iter().for_each(Tab::close);
    }
}

/// The server's half of the connection is gone, and the browser notices nothing.
#[test]
fn a_silent_stream_is_given_up_and_resumed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2, 3] {
        let Sharing { server, site, mut published, tabs, before } =
            sharing(&chrome, &["--keepalive", "1s"], count);
        site.silence();
        eventually("the seat is free", || server.seats() == 0);
        published.publish(&server, "acme", "missed");
        tabs.iter().for_each(|tab| tab.eventually_has("missed"));
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        assert_eq!(site.ids(), ["".to_owned(), before], "the holder itself resumes");
        assert_eq!(steals(&tabs), 0);
        tabs.into_iter().for_each(Tab::close);
    }
}

/// The server's `retry` is an hour, so that only `online` can be what ends the pause.
#[test]
fn a_browser_that_is_online_again_reconnects_at_once() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2] {
        let Sharing { server, site, mut published, tabs, before } =
            sharing(&chrome, &["--retry-max", "3600s", "--retry-min", "3600s"], count);
        tabs.iter().for_each(|tab| tab.set_offline(true));
        site.set_upstream(None);
        eventually("the seat is free", || server.seats() == 0);
        published.publish(&server, "acme", "missed");
        site.set_upstream(Some(server.address()));
        tabs.iter().for_each(|tab| tab.eventually_is("connecting", serde_json::Value::Null));
        tabs.iter().for_each(|tab| tab.set_offline(false));
        tabs.iter().for_each(|tab| tab.eventually_has("missed"));
        assert_eq!(site.ids(), ["".to_owned(), before]);
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        tabs.into_iter().for_each(Tab::close);
    }
}

/// A tab cannot do better than the one that holds the stream already.
#[test]
fn no_tab_steals_while_the_server_is_away() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let server = server(&["--keepalive", "1s"]);
    let site = Site::start(server.address());
    let mut published = Published::default();
    let tabs = tabs(&chrome, &site, 3);
    site.set_upstream(None);
    let before = site.ids().len();
    // Longer than the silence and the time for an answer: 4.5 s.
    std::thread::sleep(std::time::Duration::from_secs(6));
    let requests = site.ids().len() - before;
    // One tab, that waits 0.2 s, 0.4 s, 0.8 s, and so on, less a quarter each.
    assert!((1..=8).contains(&requests), "{requests}");
    assert_eq!(steals(&tabs), 0);
    published.publish(&server, "acme", "missed");
    site.set_upstream(Some(server.address()));
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
}
