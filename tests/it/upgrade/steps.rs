//! One of the two processes is killed or stopped at each step of an upgrade, and the connection between them is cut or
//! disturbed: `relay.py` stands between them.

use std::io::ErrorKind;
use std::thread;

use serde_json::json;

use super::checker::Checker;
use super::upgradable::Upgradable;
use crate::support::eventually;
use crate::support::programs::{PYTHON, requires};
use crate::support::server::Signal;

const STREAMS: usize = 200;
/// Where there are several servers at once.
const FEW: usize = 20;

/// Up to the last message before the one that decides.
const BEFORE_LIVE: [&str; 8] =
    ["Listeners", "Hello", "Ready", "Hub", "Streams", "Sockets", "Took", "Commit"];

fn start() -> Upgradable {
    Upgradable::start(&["--workers", "2"])
}

#[test]
fn a_successor_that_is_killed_before_it_is_live_is_not_noticed() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    for kind in BEFORE_LIVE {
        for when in ["before", "after"] {
            // After `Commit` it may be live.
            if (kind, when) != ("Commit", "after") {
                server.install_relay(json!({ "kind": kind, "when": when, "do": "kill-new" }));
                server.fails_to_upgrade();
            }
        }
    }
    server.install_program();
    server.upgrade();
    checker.expect_nothing("successors were killed");
}

/// It goes on when the old process has given it up, and ends without a write.
#[test]
fn a_successor_that_is_stopped_is_given_up() {
    requires!(PYTHON);
    at_once(["Hub", "Streams", "Sockets", "Commit"], |kind| {
        let mut server = start();
        let checker = Checker::start(server.address(), FEW);
        let plan = json!({ "kind": kind, "when": "before", "do": "stop-new", "seconds": stop() });
        server.install_relay(plan);
        server.fails_to_upgrade();
        server.install_program();
        server.upgrade();
        checker.expect_nothing(&format!("the successor was stopped at {kind}"));
    });
}

/// Whether the upgrade is given up then or not, one of the two goes on, and the other ends.
///
/// SCENARIO: the machine is suspended for a quarter of a minute while a server is replaced.
/// BUG: each worker waited ten seconds for the outcome, and then panicked, before that could be known.
/// FIX: a worker waits for the outcome, which has deadlines of its own (`NUDGED_TEST_LONG=1` stops so long).
#[test]
fn an_old_process_that_is_stopped_goes_on_or_has_a_successor() {
    requires!(PYTHON);
    let steps = ["Hello", "Ready", "Hub", "Streams", "Sockets", "Took", "Commit", "Live"];
    at_once(steps, |kind| {
        let mut server = start();
        let checker = Checker::start(server.address(), FEW);
        let plan = json!({ "kind": kind, "when": "before", "do": "stop-old", "seconds": stop() });
        server.install_relay(plan);
        let old = server.pid();
        server.signal(Signal::USR2);
        eventually(&format!("one of them is left, {kind}"), || {
            server.trace().contains("do stop-old") && server.processes().len() == 1
        });
        let now = server.servers();
        let [pid] = now[..] else { panic!("{now:?}") };
        let is_decided = ["Commit", "Live"].contains(&kind);
        assert!(!is_decided || pid != old, "the successor was live: {kind}");
        server.go_on_with(pid);
        server.install_program();
        server.upgrade();
        checker.expect_nothing(&format!("the old process was stopped at {kind}"));
    });
}

/// Seconds, longer than all workers of the old process may be stopped for; with `NUDGED_TEST_LONG=1` than anything waits.
fn stop() -> f64 {
    if std::env::var("NUDGED_TEST_LONG").is_ok_and(|long| long == "1") { 12.0 } else { 1.5 }
}

/// Most of the time they wait.
fn at_once<const N: usize>(kinds: [&'static str; N], test: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        for kind in kinds {
            let test = &test;
            scope.spawn(move || test(kind));
        }
    });
}

/// A crash as any other: the successor that is not live holds nothing open.
#[test]
fn an_old_process_that_is_killed_before_the_end_takes_its_successor_with_it() {
    requires!(PYTHON);
    for kind in BEFORE_LIVE {
        // From `Took` on the old process decides at once, and then the new one.
        let when = if kind == "Took" { "before" } else { "after" };
        if kind == "Commit" {
            continue;
        }
        // The only byte that may come is one of a keepalive.
        let server = Upgradable::start(&["--keepalive", "5m"]);
        let mut streams = server.streams("acme", 8);
        server.install_relay(json!({ "kind": kind, "when": when, "do": "kill-old" }));
        server.signal(Signal::USR2);
        for stream in &mut streams {
            // No byte follows, in whatever way the connection ends.
            let rest = match stream.client.try_read_to_end() {
                Err(why) if why.kind() == ErrorKind::ConnectionReset => Vec::new(),
                rest => rest.expect("an end"),
            };
            assert!(rest.is_empty(), "{kind}: {:?}", String::from_utf8_lossy(&rest));
        }
        eventually("the successor ends", || server.processes().is_empty());
        let refused = std::net::TcpStream::connect(server.address());
        assert!(refused.is_err(), "{kind}: a socket that listens is left");
    }
}

#[test]
fn an_old_process_that_is_killed_after_the_end_is_not_noticed() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    server.install_relay(json!({ "kind": "Live", "when": "before", "do": "kill-old" }));
    server.signal(Signal::USR2);
    server.old_ends();
    server.install_program();
    server.upgrade();
    let seen = checker.finish();
    // A request that was in it has no response.
    assert!(seen.published.failed <= 1 && seen.probed.failed <= 1, "{seen:?}");
    assert_eq!(seen.probed.refused, 0, "{seen:?}");
    assert_eq!((seen.missing, seen.behind), (0, 0), "{seen:?}");
    assert_eq!(seen.tally.noticed(STREAMS), None);
}

#[test]
fn a_connection_between_them_that_breaks_is_not_noticed() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    for kind in BEFORE_LIVE {
        server.install_relay(json!({ "kind": kind, "when": "before", "do": "close" }));
        server.fails_to_upgrade();
    }
    server.install_program();
    server.upgrade();
    checker.expect_nothing("the connection between the processes broke");
}

#[test]
fn a_message_that_is_none_or_lacks_its_descriptors_is_not_noticed() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    for kind in BEFORE_LIVE {
        server.install_relay(json!({ "kind": kind, "when": "before", "do": "garbage" }));
        server.fails_to_upgrade();
    }
    for kind in ["Listeners", "Hub", "Streams", "Sockets"] {
        server.install_relay(json!({ "kind": kind, "when": "before", "do": "strip" }));
        server.fails_to_upgrade();
    }
    server.install_program();
    server.upgrade();
    checker.expect_nothing("messages were disturbed");
}

/// What a later version may add.
#[test]
fn a_message_that_may_be_skipped_is_skipped() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    for kind in ["Hello", "Hub", "Commit", "Live"] {
        server.install_relay(json!({ "kind": kind, "when": "before", "do": "skip" }));
        server.upgrade();
    }
    checker.expect_nothing("there were messages of a later version");
}
