//! Upgrades that succeed.

use std::fs;

use super::checker::Checker;
use super::upgradable::Upgradable;
use crate::support::eventually;

const STREAMS: usize = 500;

#[test]
fn no_client_notices_upgrades_in_a_row() {
    let mut server = Upgradable::start(&["--workers", "2"]);
    let checker = Checker::start(server.address(), STREAMS);
    let mut processes = vec![server.pid()];
    for _ in 0..3 {
        server.upgrade();
        processes.push(server.pid());
    }
    checker.expect_nothing("three upgrades");
    processes.sort_unstable();
    processes.dedup();
    assert_eq!(processes.len(), 4);
}

/// What a process has: its descriptors by kind, its threads by name, and its children.
fn belongings(pid: u32) -> Vec<String> {
    let entries = |folder: &str| {
        let entries = fs::read_dir(format!("/proc/{pid}/{folder}")).expect("it runs");
        entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let targets = entries("fd").into_iter().filter_map(|fd| fs::read_link(fd).ok());
    // A socket is one of its kind.
    let kind =
        |path: std::path::PathBuf| path.display().to_string().split('[').next().map(str::to_owned);
    let mut all: Vec<_> = targets.filter_map(kind).collect();
    for thread in entries("task") {
        let name = fs::read_to_string(thread.join("comm"));
        // It waits for the old process a moment longer.
        all.extend(name.ok().filter(|name| !name.starts_with("nudged-upgrade")));
        all.extend(
            fs::read_to_string(thread.join("children")).ok().filter(|list| !list.is_empty()),
        );
    }
    all.sort_unstable();
    all
}

/// The tenth successor has what the first has, and no process but it is left.
#[test]
fn nothing_is_left_of_upgrades_in_a_row() {
    let mut server = Upgradable::start(&["--workers", "2"]);
    let mut streams = server.streams("acme", 3);
    server.upgrade();
    let mut first = Vec::new();
    eventually("it has nothing of the upgrade any more", || {
        let before = std::mem::replace(&mut first, belongings(server.pid()));
        before == first
    });
    for _ in 0..9 {
        server.upgrade();
    }
    eventually("the tenth has what the first had", || {
        let now = belongings(server.pid());
        now == first || differs(&now, &first)
    });
    server.is_alone();
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
}

/// Shows the difference in the log of the test.
fn differs(now: &[String], first: &[String]) -> bool {
    println!("{now:?} instead of {first:?}");
    false
}

/// An operator has asked for it, and the level of the log is as by default.
#[test]
fn how_an_upgrade_ends_is_logged_by_default_and_announced_only_then() {
    let mut server = Upgradable::start(&["--log", "warn"]);
    server.install("#!/bin/sh\nexit 3\n");
    server.fails_to_upgrade();
    server.install_program();
    let line = server.upgrade();
    assert!(line.contains(" INFO ") && line.contains("stopped_ms="), "{line}");
}
