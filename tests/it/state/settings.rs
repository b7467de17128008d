//! The setting itself: what `--check` says, and disks that are full or cannot be written to.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use super::{ACME, Place, reread, resumed, stop};
use crate::support::programs::{MOUNTS, requires};
use crate::support::server::Signal;
use crate::support::{Server, Transport, eventually};

/// The program in a mount namespace of its own, after these commands.
fn mounted(commands: &str) -> Command {
    Server::command_by(&["unshare", "-m", "sh", "-c", &format!("{commands} && exec \"$0\" \"$@\"")])
}

#[test]
fn a_check_names_the_file_and_changes_nothing() {
    let place = Place::new();
    place.stopped();
    let before = fs::read(&place.file).expect("a file");
    let args = ["serve", "--check", "--listen", "127.0.0.1:0", "--state", &place.file];
    let checked = Server::command().args(args).output().expect("the program");
    assert!(checked.status.success(), "{checked:?}");
    let text = String::from_utf8(checked.stdout).expect("text");
    let line = format!("state over a restart: {} (--state)", place.file);
    assert!(text.lines().any(|known| known == line), "{text}");
    assert_eq!(place.names(), ["state"]);
    assert_eq!(fs::read(&place.file).expect("a file"), before);
}

#[test]
fn a_log_has_the_histories_itself() {
    let place = Place::new();
    let args = ["--backplane", "nats://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let message = "nudged: --state does nothing with --backplane: clients resume from the log, over a \
                   restart too\n";
    let args = [&["serve"], &args[..], &["--state", &place.file]].concat();
    for args in [&args[..], &[&args[..], &["--check"]].concat()] {
        assert_eq!(Server::refuses_to_start(args), (Some(2), message.to_owned()));
    }
    assert!(place.names().is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_to_keeps_the_server_from_starting() {
    requires!(MOUNTS);
    let place = Place::new();
    let folder = place.dir.path().display();
    let args = ["--listen", "127.0.0.1:0", "--state", &place.file];
    let refusal = |why: &str| {
        (Some(2), format!("nudged: --state: cannot create {}.tmp: {why}\n", place.file))
    };
    for args in [&args[..], &[&["serve", "--check"], &args[..]].concat()] {
        let read_only = mounted(&format!("mount -t tmpfs -o ro none {folder}"));
        let refused = Server::refuses_to_start_as(read_only, args);
        assert_eq!(refused, refusal("Read-only file system (os error 30)"));
    }
    let file = place.dir.file("none/state");
    let refused = Server::refuses_to_start(&["--listen", "127.0.0.1:0", "--state", &file]);
    let why = format!(
        "nudged: --state: cannot create {file}.tmp: No such file or directory (os error 2)\n"
    );
    assert_eq!(refused, (Some(2), why));
}

/// The server has ended as it should, and says what it could not do.
#[test]
fn a_full_disk_is_logged_and_leaves_no_half_file() {
    requires!(MOUNTS);
    let place = Place::new();
    let folder = place.dir.path().display();
    let command = mounted(&format!("mount -t tmpfs -o size=64k none {folder}"));
    let (mut server, log) = place.logging(command, &[]);
    // What is mounted there, for as long as this is open.
    let mounted = fs::File::open(format!("/proc/{}/root{folder}", server.pid())).expect("it runs");
    let names = || {
        let entries =
            fs::read_dir(format!("/proc/self/fd/{}", mounted.as_raw_fd())).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["state.tmp"]);
    let text = format!(r#"{{"event":"output","text":"{}"}}"#, "x".repeat(50_000));
    for n in 0..4 {
        let answer =
            server.post(&format!("/api/acme/topics/{n}/events"), "application/json", &text);
        assert_eq!(answer.status(), 202, "{answer:?}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let line = log.line(&["ERROR", "--state"]);
    let expected = format!(
        "--state: cannot write {}.tmp: No space left on device (os error 28); after the next start all clients \
         re-read everything",
        place.file
    );
    assert!(line.ends_with(&expected), "{line}");
    assert!(names().is_empty(), "{:?}", names());
}

/// As a folder of temporary files is swept, or by a user that wonders what it is.
#[test]
fn a_place_that_is_removed_meanwhile_is_taken_again() {
    let place = Place::new();
    let server = place.start(&[]);
    let id = server.stream("acme").connected();
    fs::remove_file(format!("{}.tmp", place.file)).expect("it is there");
    stop(server);
    assert_eq!(place.names(), ["state"]);
    resumed(&place.start(&[]), ACME, &id);
}

/// The name is relative to where the server was started.
#[test]
fn a_relative_name_is_in_the_folder_of_the_start() {
    let place = Place::new();
    let start = || {
        let mut command = Server::command();
        command.current_dir(place.dir.path()).env("NUDGED_STATE", "here");
        Server::start_as(command, Transport::Http1, &["--drain-window", "0"])
    };
    let server = start();
    let id = server.stream("acme").connected();
    stop(server);
    assert_eq!(place.names(), ["here"]);
    resumed(&start(), ACME, &id);
}

/// What has come to the path meanwhile is not the server's.
#[test]
fn a_file_that_has_come_to_the_path_meanwhile_is_left_as_it_is() {
    let place = Place::new();
    let (mut server, log) = place.logging(Server::command(), &[]);
    let id = server.stream("acme").connected();
    eventually("its seat is free", || server.seats() == 0);
    fs::write(&place.file, "a diary of some length").expect("written");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    log.line(&["ERROR", "is no state of nudged, and would be overwritten"]);
    assert_eq!(place.names(), ["state"]);
    assert_eq!(fs::read_to_string(&place.file).expect("text"), "a diary of some length");
    fs::remove_file(&place.file).expect("removed");
    reread(&place.start(&[]), ACME, &id);
}

/// Without `--state` no file is written, and nothing is said of one.
#[test]
fn without_the_setting_nothing_is_kept() {
    let place = Place::new();
    let start = || {
        let mut command = Server::command();
        command.current_dir(place.dir.path()).stderr(Stdio::piped());
        Server::start_as(command, Transport::Http1, &["--drain-window", "0", "--log", "info"])
    };
    let mut server = start();
    let mut log = server.take_stderr();
    let id = server.stream("acme").connected();
    stop(server);
    assert!(place.names().is_empty());
    assert!(!std::io::read_to_string(&mut log).expect("text").contains("--state"));
    reread(&start(), ACME, &id);
}
