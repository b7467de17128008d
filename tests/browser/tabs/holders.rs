//! What ends or stops the tab that holds the stream.

use serde_json::{Value, json};

use super::{Sharing, assert_resumed, eventually_share, sharing, steals};
use crate::harness::{Chrome, Page, Tab};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

#[test]
fn a_tab_takes_over_from_one_that_is_closed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [2, 3] {
        let Sharing { server, site, mut published, mut tabs, before } =
            sharing(&chrome, &[], count);
        tabs.remove(0).close();
        published.publish(&server, "acme", "meanwhile");
        eventually("the successor has come", || site.ids().len() == 2);
        assert!(site.ids()[1] >= before, "{:?} {before}", site.ids());
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        assert_eq!(site.ids().len(), 2);
        tabs.drain(..).for_each(|tab| tab.close());
        eventually("no stream is left", || server.seats() == 0 && site.streams() == 0);
    }
}

/// With three tabs two that are seen notice the silence at once, and one of them gets the stream. On a busy machine the
/// other one may take the stream over while it reads: then it may have missed what was relayed, and gets `connected`.
#[test]
fn a_tab_that_is_seen_takes_over_from_one_whose_main_thread_is_blocked() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [2, 3] {
        let Sharing { server, site, mut published, tabs, before } =
            sharing(&chrome, &["--keepalive", "1s"], count);

        tabs[0].block_until_released(&site);
        published.publish(&server, "acme", "blocked");
        published.publish(&server, "acme", "blocked-too");
        for tab in &tabs[1..] {
            tab.eventually_has("blocked");
            tab.eventually_has("blocked-too");
        }
        // A page may have been blocked before or after it took the first key.
        assert!(site.ids()[1..].iter().all(|id| *id >= before), "{:?} {before}", site.ids());
        assert!(steals(&tabs[1..]) >= 1);
        site.hold(false);
        eventually_share(&tabs, &server, &site, &mut published);
        if steals(&tabs) == 1 {
            assert_resumed(&tabs);
        }
        tabs.into_iter().for_each(Tab::close);
    }
}

#[test]
fn the_stream_goes_to_and_fro_between_tabs_that_are_blocked() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let Sharing { server, site, mut published, tabs, .. } =
        sharing(&chrome, &["--keepalive", "1s"], 2);
    for (round, holder) in [0, 1, 0].into_iter().enumerate() {
        let other = &tabs[1 - holder];
        tabs[holder].block_until_released(&site);
        let key = format!("blocked:{round}");
        published.publish(&server, "acme", &key);
        other.eventually_has(&key);
        site.hold(false);
        eventually_share(&tabs, &server, &site, &mut published);
    }
    assert!(steals(&tabs) >= 3);
    if steals(&tabs) == 3 {
        assert_resumed(&tabs);
        assert_eq!(site.ids().len(), 4);
    }
}

/// What was sent to a tab while it could not receive is kept for it by the browser.
#[test]
fn a_blocked_tab_that_only_receives_misses_nothing() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let Sharing { server, site, mut published, tabs, .. } =
        sharing(&chrome, &["--keepalive", "1s"], 2);
    tabs[1].block_until_released(&site);
    for number in 0..10 {
        published.publish(&server, "acme", &format!("blocked:{number}"));
    }
    tabs[0].eventually_has("blocked:9");
    // The silence that it would notice passes: 1.5 s.
    std::thread::sleep(std::time::Duration::from_secs(2));
    site.hold(false);
    tabs[1].eventually_has("blocked:9");
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
}

/// A hidden tab does not steal: it needs nothing before it is looked at.
#[test]
fn a_hidden_tab_takes_over_when_it_is_looked_at() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let Sharing { server, site, mut published, tabs, .. } =
        sharing(&chrome, &["--keepalive", "1s"], 2);
    tabs[1].set_hidden(true);
    tabs[0].block_until_released(&site);
    published.publish(&server, "acme", "blocked");
    // Twice as long as a tab that is seen takes.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(tabs[1].run("return steals"), 0);
    tabs[1].set_hidden(false);
    tabs[1].eventually_has("blocked");
    assert_eq!(tabs[1].run("return steals"), 1);
    site.hold(false);
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
}

#[test]
fn a_frozen_tab_hands_the_stream_over_and_comes_back() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2] {
        let Sharing { server, site, mut published, tabs, before } = sharing(&chrome, &[], count);
        tabs[0].set_frozen(true);
        if count == 1 {
            eventually("the stream has ended", || server.seats() == 0);
        } else {
            eventually("the successor has come", || site.ids().len() == 2);
        }
        published.publish(&server, "acme", "frozen");
        tabs[1..].iter().for_each(|tab| tab.eventually_has("frozen"));
        tabs[0].set_frozen(false);
        tabs[0].set_hidden(true);
        tabs[0].set_hidden(false);
        published.eventually_reach(&tabs[0]);
        eventually_share(&tabs, &server, &site, &mut published);
        assert_eq!(site.ids(), ["".to_owned(), before]);
        assert_resumed(&tabs[1..]);
        tabs.into_iter().for_each(Tab::close);
    }
}

#[test]
fn a_page_that_is_reloaded_joins_or_opens_the_stream_again() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2, 3] {
        let Sharing { server, site, mut published, tabs, before } = sharing(&chrome, &[], count);
        tabs[0].reload();
        tabs[0].eventually_connected(1);
        assert_eq!(tabs[0].seen_of("connected"), [true]);
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs);
        let id = if count == 1 { "" } else { &before };
        assert_eq!(site.ids(), ["", id]);
        tabs.into_iter().for_each(Tab::close);
    }
}

/// SCENARIO: a page is left, and shown again from the browser's cache of pages (bfcache), twice.
/// BUG: the sketch ended in `0?.abort()` when it was shown again, and had no stream from then on. A held lock or an
/// open channel keep a page out of that cache.
/// FIX: a page that is left keeps nothing but its id.
#[test]
fn a_page_that_is_shown_again_by_back_and_forward_has_what_it_missed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2] {
        let Sharing { server, site, mut published, tabs, mut before } =
            sharing(&chrome, &[], count);
        if count == 1 {
            // Other browsers have no such events.
            tabs[0].run(
                "for (const name of ['freeze', 'resume'])
                    document.addEventListener(name, event => event.stopImmediatePropagation(), true);",
            );
        }
        for round in 1..=2 {
            tabs[0].go(&format!("{}/empty", site.origin()));
            eventually("its stream is another's", || server.seats() as usize == count - 1);
            let key = format!("left:{round}");
            let left = published.publish(&server, "acme", &key);
            tabs[1..].iter().for_each(|tab| tab.eventually_has(&key));
            tabs[0].back();
            let reasons = "const [entry] = performance.getEntriesByType('navigation');
                return [shown.length, shown.at(-1), entry.notRestoredReasons];";
            assert_eq!(tabs[0].run(reasons), json!([round + 1, true, Value::Null]));
            published.eventually_reach(&tabs[0]);
            if count == 1 {
                tabs[0].eventually_has(&key);
                assert_eq!(site.ids().last(), Some(&before));
                before = left;
            }
        }
        eventually_share(&tabs, &server, &site, &mut published);
        assert_resumed(&tabs[1..]);
        if count == 1 {
            assert_resumed(&tabs);
        }
        tabs.into_iter().for_each(Tab::close);
    }
}
