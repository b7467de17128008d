//! New processes that are of no use, each of which costs a line of the log; and such as differ from the old one.

use serde_json::json;

use super::checker::Checker;
use super::upgradable::{PROGRAM, Upgradable};
use crate::support::programs::{PYTHON, requires};

const STREAMS: usize = 200;

fn start() -> Upgradable {
    Upgradable::start(&["--workers", "2"])
}

#[test]
fn a_program_that_cannot_serve_changes_nothing() {
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    server.install("no program");
    server.fails_to_upgrade();
    server.install("#!/bin/sh\nexit 3\n");
    server.fails_to_upgrade();
    server.install("#!/bin/sh\nkill -9 $$\n");
    server.fails_to_upgrade();
    // It closes the connection to the old process, and goes on.
    server.install("#!/bin/sh\nexec <&-\nexec sleep 60\n");
    server.fails_to_upgrade();
    // It does not know the settings.
    server.install(&format!("#!/bin/sh\nexec {PROGRAM} --unknown-flag\n"));
    server.fails_to_upgrade();
    // It is another command of the program.
    server.install(&format!("#!/bin/sh\nexec {PROGRAM} --version\n"));
    server.fails_to_upgrade();
    server.install_nothing();
    server.fails_to_upgrade();
    server.install_program();
    server.upgrade();
    checker.expect_nothing("no successor was of use");
}

#[test]
fn a_successor_of_another_version_is_refused() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    server.install_relay(json!({ "kind": "Hello", "when": "before", "do": "version" }));
    let why = server.fails_to_upgrade();
    assert!(why.contains("98") && why.contains("99"), "{why}");
    server.install_program();
    server.upgrade();
    checker.expect_nothing("the successor was of another version");
}

/// It would have to close streams.
#[test]
fn a_successor_with_too_few_descriptors_is_refused() {
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    server.install(&format!("#!/bin/sh\nulimit -n {}\nexec {PROGRAM} \"$@\"\n", STREAMS / 2));
    let why = server.fails_to_upgrade();
    assert!(why.contains("may open 100 files"), "{why}");
    server.install_program();
    server.upgrade();
    checker.expect_nothing("the successor had too few descriptors");
}

#[test]
fn a_successor_may_have_more_or_fewer_workers() {
    let mut server = Upgradable::start(&[]);
    let checker = Checker::start(server.address(), STREAMS);
    for workers in [1, 3, 2] {
        // Its own successor is started from the script's path again.
        let start = format!("exec -a \"$0\" {PROGRAM} \"$@\"");
        let script = format!("#!/bin/bash\nexport NUDGED_WORKERS={workers}\n{start}\n");
        server.install(&script);
        server.upgrade();
        assert_eq!(server.workers(), workers);
    }
    checker.expect_nothing("there were other numbers of workers");
}
