//! Signals that come at the wrong time, and the end of a server that was replaced.

use serde_json::json;

use super::checker::Checker;
use super::upgradable::{PROGRAM, Upgradable};
use crate::support::eventually;
use crate::support::programs::{PYTHON, Program, requires};
use crate::support::server::Signal;

const STREAMS: usize = 100;

static NAMESPACES: Program = Program::new(
    &["unshare", "--pid", "--fork", "true"],
    "process namespaces cannot be made: run as root",
);

fn start() -> Upgradable {
    Upgradable::start(&["--workers", "2"])
}

/// Stops the upgrade at this step for a second, and signals the old process meanwhile.
fn signal_at(server: &Upgradable, kind: &str, which: Signal) {
    server.install_relay(json!({ "kind": kind, "when": "before", "do": "wait", "seconds": 0.5 }));
    server.signal(Signal::USR2);
    eventually("it waits", || server.trace().contains("do wait"));
    server.signal(which);
}

#[test]
fn another_upgrade_meanwhile_is_refused() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    for kind in ["Hello", "Commit"] {
        signal_at(&server, kind, Signal::USR2);
        server.upgraded();
        assert_eq!(server.trace().matches("start ").count(), 1, "{}", server.trace());
        server.forget_trace();
    }
    checker.expect_nothing("there were signals for two upgrades at once");
}

#[test]
fn keys_that_are_read_again_meanwhile_change_nothing() {
    requires!(PYTHON);
    let mut server = start();
    let checker = Checker::start(server.address(), STREAMS);
    for kind in ["Hello", "Commit"] {
        signal_at(&server, kind, Signal::HUP);
        server.upgraded();
        server.forget_trace();
    }
    checker.expect_nothing("SIGHUP came during an upgrade");
}

/// The service manager means the server, whichever process that is by now: none is left, and every stream has its end.
#[test]
fn a_server_that_has_to_stop_during_an_upgrade_stops() {
    requires!(PYTHON);
    for kind in ["Hello", "Ready", "Commit"] {
        let server = start();
        let mut streams = server.streams("acme", 4);
        signal_at(&server, kind, Signal::TERM);
        if kind == "Commit" {
            // It may have been replaced before it stops.
            eventually("one is left, or none", || server.servers().len() <= 1);
            for process in server.servers().into_iter().filter(|process| *process != server.pid()) {
                _ = crate::support::server::signal(process, Signal::TERM);
            }
        }
        for stream in &mut streams {
            let last = stream.client.read_to_end();
            assert!(last.ends_with(b"\r\n0\r\n\r\n"), "{kind}: {last:?}");
        }
        eventually(&format!("all have ended, {kind}"), || server.processes().is_empty());
    }
}

#[test]
fn an_upgrade_of_a_server_that_stops_is_refused() {
    let server = Upgradable::start(&["--drain-window", "2s"]);
    let mut streams = server.streams("acme", 4);
    server.signal(Signal::TERM);
    streams[0].farewell();
    server.signal(Signal::USR2);
    server.log.line(&[" WARN ", "upgrade"]);
    assert_eq!(server.servers(), [server.pid()]);
    streams[1..].iter_mut().for_each(|stream| _ = stream.farewell());
    eventually("it has ended", || server.processes().is_empty());
}

/// A drain is what it would have been.
#[test]
fn a_successor_drains() {
    let mut server = start();
    let mut streams = server.streams("acme", 20);
    server.upgrade();
    server.signal(Signal::TERM);
    streams.iter_mut().for_each(|stream| _ = stream.farewell());
    eventually("it has ended", || server.processes().is_empty());
}

/// Its end would be that of all processes of its container.
#[test]
fn the_first_process_of_a_container_refuses() {
    requires!(NAMESPACES);
    let dir = crate::support::temp_dir::TempDir::new();
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", PROGRAM]);
    command.args(["--listen", "127.0.0.1:0", "--log", "info"]).env("NUDGED_HOST", "t,test");
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).current_dir(dir.path());
    let mut child = crate::support::killed::Killed(command.spawn().expect("unshare(1)"));
    let log = crate::support::log::Log::read(child.0.stderr.take().expect("piped"));
    let out = crate::support::log::Log::read(child.0.stdout.take().expect("piped"));
    let line = out.line(&["listening on http://"]);
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
    let address: std::net::SocketAddr = address.expect("a URL").parse().expect("an address");
    let client = crate::support::Client::connect(address);
    let mut stream = crate::support::Stream::open(client, "/api/acme/events", "");
    stream.connected();
    let children = format!("/proc/{0}/task/{0}/children", child.0.id());
    let server = std::fs::read_to_string(children).expect("it runs");
    let server: u32 = server.trim().parse().expect("one child");
    crate::support::server::signal(server, Signal::USR2).expect("it runs");
    let why = log.line(&[" WARN ", "upgrade"]);
    assert!(
        why.contains("process 1") || why.contains("pid 1") || why.contains("first process"),
        "{why}"
    );
    // It serves on.
    let mut client = crate::support::Client::connect(address);
    client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
    assert!(stream.client.is_silent());
}
