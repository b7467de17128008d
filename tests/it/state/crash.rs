//! Ends of a server that are no drain: nothing of before is used, nothing half written stays.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use super::{ACME, Place, reread, resumed, stop};
use crate::support::server::Signal;
use crate::support::{Server, eventually};

#[test]
fn after_a_crash_clients_re_read() {
    let place = Place::new();
    let start = place.stopped();
    let mut server = place.start(&[]);
    let mut stream = resumed(&server, ACME, &start);
    let id = server.publish("acme", &["b"]).expect("subscribed");
    stream.expect_invalidate(&crate::support::after(&start, 1), &["a"]);
    stream.expect_invalidate(&id, &["b"]);
    server.signal(Signal::KILL);
    assert_eq!(server.wait(), None);
    assert_eq!(place.names(), ["state.tmp"], "that of before is gone");

    let server = place.start(&[]);
    // Nothing of the crashed server's, and nothing of what it had taken.
    let next = reread(&server, ACME, &id);
    reread(&server, ACME, &start);
    stop(server);
    assert_eq!(place.names(), ["state"]);
    resumed(&place.start(&[]), ACME, &next);
}

/// A second signal ends it at once.
#[test]
fn a_drain_that_is_cut_short_writes_nothing() {
    let place = Place::new();
    let mut server = place.start(&["--drain-window", "50m", "--drain-timeout", "1h"]);
    let mut stream = server.stream("acme");
    let id = stream.connected();
    server.signal(Signal::TERM);
    eventually("it drains", || TcpStream::connect(server.address()).is_err());
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(128 + 15));
    assert!(place.names().is_empty());
    reread(&place.start(&[]), ACME, &id);
}

/// Whole or not at all, wherever it is killed, by either signal; and what is left does not fill the folder.
#[test]
fn a_server_that_is_killed_while_it_writes_leaves_a_whole_file_or_none() {
    let place = Place::new();
    let (mut halves, mut wholes) = (0, 0);
    for n in 0..6 {
        let flags = ["--topics-bytes-total", "200000000", "--topic-streams", "9"];
        let mut server = place.start(&flags);
        let run = |n| format!("/api/acme/topics/run-{n}/events");
        let text = format!(r#"{{"event":"output","text":"{}"}}"#, "x".repeat(60_000));
        let ids: Vec<_> = (0..200)
            .map(|n| server.post(&run(n), "application/json", &text).body)
            .map(|body| body.split('"').nth(3).expect("an id").to_owned())
            .collect();
        server.signal(Signal::TERM);
        let size =
            || fs::metadata(format!("{}.tmp", place.file)).map_or(u64::MAX, |file| file.len());
        eventually("it writes", || size() > n * 1_000_000);
        server.signal(if n % 2 == 0 { Signal::KILL } else { Signal::TERM });
        server.wait();
        let is_whole = place.names() == ["state"];
        assert!(is_whole || place.names() == ["state.tmp"], "{:?}", place.names());
        *(if is_whole { &mut wholes } else { &mut halves }) += 1;

        let server = place.start(&flags);
        assert_eq!(fs::metadata(format!("{}.tmp", place.file)).expect("a file").len(), 0);
        for (n, id) in ids.iter().enumerate() {
            match is_whole {
                true => drop(resumed(&server, &run(n), id)),
                false => drop(reread(&server, &run(n), id)),
            }
        }
        let mut server = server;
        server.signal(Signal::KILL);
        server.wait();
    }
    assert!(halves > 0, "{halves} halves, {wholes} whole: none was killed while it wrote");
}

#[test]
fn only_its_user_reads_it_whatever_the_umask_is() {
    for umask in ["0", "0777"] {
        let place = Place::new();
        let script = format!("umask {umask} && exec \"$0\" \"$@\"");
        let start = || {
            let command = Server::command_by(&["sh", "-c", &script]);
            place.start_as(command, crate::support::Transport::Http1, &[])
        };
        let mode = |name: &str| {
            let file = fs::metadata(place.dir.file(name)).expect("a file");
            file.permissions().mode() & 0o7777
        };
        let server = start();
        let id = server.stream("acme").connected();
        assert_eq!(mode("state.tmp"), 0o600);
        stop(server);
        assert_eq!(mode("state"), 0o600);
        resumed(&start(), ACME, &id);
    }
}
