//! Files that a server finds at its start and cannot use: what it says, what becomes of them, and what clients notice.

use std::fs::{self, File};

use super::{ACME, Place, reread, resumed, stop};
use crate::support::Server;
use crate::support::log::Log;
use crate::support::programs::{LIBFAKETIME, LIBFAKETIME_FILE, requires};

/// A server that keeps its state there, whose wall clock is off by this, in the notation of `faketime`.
fn start_at(place: &Place, offset: &str, more: &[&str]) -> (Server, Log) {
    let mut command = Server::command();
    for (name, value) in [
        ("LD_PRELOAD", LIBFAKETIME_FILE),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        // Times of files are as they are.
        ("NO_FAKE_STAT", "1"),
    ] {
        command.env(name, value);
    }
    place.logging(command, more)
}

/// Checks that a server has removed its file unused, for this reason, and that clients re-read.
fn expect_unused(place: &Place, (server, log): (Server, Log), id: &str, why: &str) {
    let line = log.line(&["WARN", "--state"]);
    let file = &place.file;
    let expected =
        format!("--state {file}: removed unused, and all clients re-read everything: {why}");
    assert!(line.ends_with(&expected), "{line}\n{expected}");
    assert_eq!(place.names(), ["state.tmp"]);
    reread(&server, ACME, id);
    // It is as good as any other.
    let id = server.stream("acme").connected();
    stop(server);
    resumed(&place.start(&[]), ACME, &id);
}

fn start(place: &Place) -> (Server, Log) {
    place.logging(Server::command(), &[])
}

/// Nothing is kept for longer than five minutes, as the settings are.
#[test]
fn a_stale_file_costs_a_re_read() {
    requires!(LIBFAKETIME);
    let place = Place::new();
    let id = place.stopped();
    let (server, log) = start_at(&place, "+3600s", &[]);
    let line = log.line(&["WARN", "--state"]);
    let seconds = line.split("it was written ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds: u64 = seconds.and_then(|text| text.parse().ok()).expect("seconds");
    assert!((3_600..3_700).contains(&seconds), "{line}");
    let end = format!(
        "--state {}: removed unused, and all clients re-read everything: it was written {seconds} s ago, and \
         nothing in it is kept for more than 300 s (--history-age, --topic-age)",
        place.file
    );
    assert!(line.ends_with(&end), "{line}");
    assert_eq!(place.names(), ["state.tmp"]);
    reread(&server, ACME, &id);
}

/// Events age while there is no server: of what is too old, no id is covered.
#[test]
fn the_time_without_a_server_counts() {
    requires!(LIBFAKETIME);
    let place = Place::new();
    let id = place.stopped();
    let (server, _log) = start_at(&place, "+200s", &[]);
    resumed(&server, ACME, &id);
    drop(server);
    let flags = ["--history-age", "1s", "--topic-age", "1h"];
    let server = place.start(&flags);
    let id = server.stream("acme").connected();
    server.publish("acme", &["a"]).expect("remembered");
    stop(server);
    let (server, _log) = start_at(&place, "+60s", &flags);
    reread(&server, ACME, &id);
}

#[test]
fn a_file_from_the_future_costs_a_re_read() {
    requires!(LIBFAKETIME);
    let place = Place::new();
    let id = place.stopped();
    let (server, log) = start_at(&place, "-3600s", &[]);
    let line = log.line(&["WARN", "--state"]);
    assert!(line.contains("s from now: the clock was set back, so its age is not known"), "{line}");
    reread(&server, ACME, &id);
}

#[test]
fn a_copy_costs_a_re_read() {
    let place = Place::new();
    let id = place.stopped();
    let copy = place.dir.file("copy");
    fs::copy(&place.file, &copy).expect("copied");
    fs::rename(&copy, &place.file).expect("moved");
    let why = "it is a copy, or there is another name for it, so it may be from an earlier stop";
    expect_unused(&place, start(&place), &id, why);
}

/// Each length is tried in `src/state/tests.rs`.
#[test]
fn a_torn_file_costs_a_re_read() {
    for kept in [99, 50, 0] {
        let place = Place::new();
        let id = place.stopped();
        let file = File::options().write(true).open(&place.file).expect("a file");
        let len = file.metadata().expect("a file").len();
        // Its first bytes show that it is one.
        file.set_len((len * kept / 100).max(16)).expect("cut");
        expect_unused(&place, start(&place), &id, "it is torn: its end is missing");
    }
}

#[test]
fn a_file_of_another_version_costs_a_re_read() {
    let place = Place::new();
    let id = place.stopped();
    let file = File::options().write(true).open(&place.file).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, &[2], 16).expect("written");
    let why = "its format is version 2, of another nudged; this one reads version 1";
    expect_unused(&place, start(&place), &id, why);
}

/// Exit code and message are those of a wrong setting. What else is left as it is, is in `src/state/tests.rs`.
#[test]
fn a_file_that_is_not_its_own_keeps_the_server_from_starting() {
    let place = Place::new();
    fs::write(&place.file, "a diary of some length").expect("written");
    let args = ["--listen", "127.0.0.1:0", "--state", &place.file];
    let message = format!(
        "nudged: --state: {} is no state of nudged, and would be overwritten; remove it, or name another file\n",
        place.file
    );
    for args in [&args[..], &[&["serve", "--check"], &args[..]].concat()] {
        assert_eq!(Server::refuses_to_start(args), (Some(2), message.clone()));
    }
    assert_eq!(place.names(), ["state"]);
    assert_eq!(fs::read_to_string(&place.file).expect("text"), "a diary of some length");
}

/// SCENARIO: a server is started while the one that it replaces still runs, on another address.
/// BUG: the old one would write its state while the new one runs, and after a crash of that one the next server would
/// resume from it, without what the crashed one had published.
/// FIX: one server has a path, until it has ended.
#[test]
fn one_server_has_a_path_at_a_time() {
    let place = Place::new();
    let first = place.start(&[]);
    let id = first.stream("acme").connected();
    let args = ["--listen", "127.0.0.1:0", "--state", &place.file];
    let message = format!(
        "nudged: --state: another server is running that keeps its state there (it has locked {0}.tmp); stop it \
         first, or name another file\n",
        place.file
    );
    assert_eq!(Server::refuses_to_start(&args), (Some(2), message));
    // Settings can be checked beside it.
    let check = [&["serve", "--check"], &args[..]].concat();
    let checked = Server::command().args(check).output().expect("the program");
    assert!(checked.status.success(), "{checked:?}");
    stop(first);
    resumed(&place.start(&[]), ACME, &id);
}
