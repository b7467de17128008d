//! Random schedules of publishes, tabs that come, go and are blocked, cuts and restarts: no key is lost without
//! `connected`, and once all is well one stream is open for all tabs of a user.
//!
//! `schedules/*.mjs` simulate a browser and a server around the client as it is served, in virtual time: thousands of
//! schedules, which also have users that change, tickets that are refused, and outages. `schedules/run.mjs` says how to
//! repeat one of them. A few run in Chromium, against the program.

use std::ops::Range;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::harness::{Chrome, Page, Published, Site, Tab, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, LOCKED_NODE, locked, requires};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser/nudged.js");
const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/schedules/run.mjs");

#[test]
fn no_schedule_of_simulated_tabs_loses_a_key() {
    requires!(LOCKED_NODE);
    let new = 1_000_000 + u64::from(random_seed());
    let runs = [1..601, new..new + 600].map(|seeds: Range<u64>| {
        let count = seeds.end - seeds.start;
        let mut node = Command::new(locked!("bin/node"));
        node.args([RUN, CLIENT, &seeds.start.to_string(), &count.to_string()]);
        node.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node")
    });
    for node in runs {
        let output = node.wait_with_output().expect("node");
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{out}{err}");
    }
}

#[test]
fn no_schedule_of_tabs_in_chromium_loses_a_key() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    for seed in [1, 2, random_seed()] {
        run(&chrome, seed);
    }
}

/// Most steps follow each other at once, or after some tenths of a second.
fn run(chrome: &Chrome, seed: u32) {
    let mut random = Random(u64::from(seed));
    let arguments = ["--keepalive", "1s"];
    let mut server = server(&arguments);
    let site = Site::start(server.address());
    let url = site.page(&json!({ "ticket": "anna", "spread": 100 })) + "&steals";
    let mut published = Published::default();
    let mut tabs: Vec<Tab<'_>> = vec![chrome.tab(&url), chrome.tab(&url)];
    let mut steps = Vec::new();
    for number in 0..14 {
        let step = [
            "publish", "publish", "publish", "open", "close", "block", "hide", "show", "cut",
            "silence", "restart",
        ][random.below(11)];
        steps.push(step);
        eprintln!("seed {seed}: {step}");
        let tab = random.below(tabs.len());
        match step {
            "publish" => _ = published.send(&server, "acme", &format!("posts:{number}")),
            "open" if tabs.len() < 4 => tabs.push(chrome.tab(&url)),
            "close" if tabs.len() > 1 => tabs.swap_remove(tab).close(),
            "block" => tabs[tab].block([0.3, 2.0, 5.0][random.below(3)]),
            "hide" => tabs[tab].set_hidden(true),
            "show" => tabs[tab].set_hidden(false),
            "cut" => {
                site.set_upstream(None);
                site.set_upstream(Some(server.address()));
            }
            "silence" => site.silence(),
            "restart" => {
                site.set_upstream(None);
                server = crate::harness::server(&arguments);
                site.set_upstream(Some(server.address()));
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis([0, 0, 20, 400][random.below(4)]));
    }
    for tab in &tabs {
        tab.set_hidden(false);
        tab.eventually_is("open", Value::Null);
    }
    let is_one = || server.seats() == 1 && site.streams() == 1;
    eventually("one stream is open", is_one);
    let id = published.publish(&server, "acme", "last");
    for tab in &tabs {
        published.eventually_reach(tab);
        eventually("the tab is at the last id", || tab.run("return stream.id") == id);
    }
    eventually(&format!("one stream is open, seed {seed}: {steps:?}"), is_one);
    tabs.into_iter().for_each(Tab::close);
}

fn random_seed() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.subsec_nanos()
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(mixed >> 33).expect("31 bits") % bound
    }
}
