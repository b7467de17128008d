//! Servers that are replaced.

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::{Sharing, assert_resumed, eventually_share, sharing, tabs};
use crate::harness::{Chrome, Page, Published, Site, Tab, flags, publish, server};
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Transport, eventually};

#[test]
fn each_tab_reads_once_after_a_restart() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for count in [1, 2, 3] {
        let Sharing { server: old, site, mut published, tabs, before } =
            sharing(&chrome, &[], count);
        drop(old);
        let new = server(&[]);
        site.set_upstream(Some(new.address()));
        for tab in &tabs {
            tab.eventually_connected(2);
            assert_eq!(tab.seen_of("connected"), [true, false]);
        }
        eventually_share(&tabs, &new, &site, &mut published);
        tabs.iter().for_each(|tab| assert_eq!(tab.connected(), 2, "{:?}", tab.seen()));
        assert_eq!(site.ids().last(), Some(&before));
        tabs.into_iter().for_each(Tab::close);
    }
}

/// The pages would otherwise all read at once.
#[test]
fn a_restart_is_spread_and_a_first_connected_is_not() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let old = server(&[]);
    let site = Site::start(old.address());
    let chrome = Chrome::start();
    let page = |spread: u64| {
        let options = serde_json::json!({ "ticket": "anna", "spread": spread, "share": false });
        let tab = chrome.tab(&site.page(&options));
        tab.eventually_connected(1);
        tab
    };
    // Random parts of a day, the most that there is, and of nothing.
    let (day, at_once) = (page(86_400_000), page(0));
    let new = server(&[]);
    site.set_upstream(Some(new.address()));
    at_once.eventually_connected(2);
    eventually("both are back", || new.seats() == 2);
    day.eventually_is("open", Value::Null);
    publish(&new, "acme", &["last"]);
    day.eventually_has("last");
    assert_eq!(day.connected(), 1, "keys do not wait for it");
}

#[test]
fn the_streams_of_a_server_that_drains_go_to_the_next_one() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let state = TempDir::new();
    let file = state.file("state");
    for count in [1, 2] {
        let settings = ["--drain-window", "200ms", "--state", &file];
        let Sharing { server: mut old, site, mut published, tabs, before } =
            sharing(&chrome, &settings, count);
        old.signal(Signal::TERM);
        assert_eq!(old.wait(), Some(0));
        tabs.iter().for_each(|tab| tab.eventually_is("connecting", Value::Null));
        let new = server(&settings);
        published.publish(&new, "acme", "meanwhile");
        site.forward_to(Some(new.address()));
        tabs.iter().for_each(|tab| tab.eventually_has("meanwhile"));
        eventually_share(&tabs, &new, &site, &mut published);
        assert_resumed(&tabs);
        assert_eq!(site.ids().last(), Some(&before));
        tabs.into_iter().for_each(Tab::close);
    }
}

/// A process group, killed when this is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        _ = kill_process_group(self.0, Signal::KILL);
    }
}

#[test]
fn no_tab_notices_an_upgrade() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let mut command = Server::command();
    command.process_group(0);
    let mut server =
        Server::start_as(command, Transport::Http1, &flags(&["--drain-window", "200ms"]));
    let group = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process");
    let _group = Group(group);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let mut published = Published::default();
    let tabs = tabs(&chrome, &site, 2);
    published.publish(&server, "acme", "before");
    tabs.iter().for_each(|tab| tab.eventually_has("before"));
    let before: Vec<_> = tabs.iter().map(|tab| tab.seen().len()).collect();
    server.signal(Signal::USR2);
    assert_eq!(server.wait(), Some(0), "its successor has taken over");
    eventually("the stream is its successor's", || server.seats() == 1);
    eventually_share(&tabs, &server, &site, &mut published);
    assert_resumed(&tabs);
    assert_eq!(site.ids(), [""], "the connection is the same");
    for (tab, before) in tabs.iter().zip(before) {
        assert_eq!(tab.seen().len(), before + 1, "the last key and nothing else: {:?}", tab.seen());
    }
}
