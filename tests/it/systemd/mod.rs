//! The units with a real systemd, installed as they say: start, upgrade, restart, stop.

mod notify;

use crate::support::programs::requires;
use crate::support::systemd::{Machine, SYSTEMD, Service};
use crate::support::{Answer, Client, Stream, after, eventually};

/// A machine on which the service runs, and a token for everything of the org `acme`.
struct Installed {
    machine: Machine,
    token: String,
}

const PORT: u16 = 6834;

/// Short, so that the tests are; the rest is as it comes.
const SETTINGS: &str = "NUDGED_HOST=test\nNUDGED_COALESCE=0\nNUDGED_DRAIN_WINDOW=300ms\n";

/// SCENARIO: an administrator installs nudged as its unit says, starts and stops it.
#[test]
fn the_installed_service_is_closed_and_drains() {
    requires!(SYSTEMD);
    let installed = Installed::start("");
    let mut stream = installed.stream("");
    stream.connected();
    let mut stranger = installed.connect();
    stranger.send("GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(stranger.read_answer().status(), 401);
    installed.machine.sh("systemctl stop nudged");
    assert!(stream.farewell() > 0);
    assert_eq!(installed.machine.service().active, "inactive");
}

/// SCENARIO: a new version is put in place, and `systemctl reload` makes it serve, twice.
#[test]
fn a_reload_is_an_upgrade_that_no_stream_notices() {
    requires!(SYSTEMD);
    let installed = Installed::start("");
    let mut stream = installed.stream("");
    let mut id = stream.connected();
    for release in [2, 1] {
        let old = installed.machine.service();
        installed.put_in_place(release);
        installed.upgrade(&old);
        id = installed.publish();
        stream.expect_invalidate(&id, &["posts"]);
    }
    assert!(id.ends_with("-2"), "ids go on: {id}");
    installed.expect_no_complaint();
}

/// SCENARIO: what lies at the path of the program is broken, and `systemctl reload` is run.
#[test]
fn a_new_version_that_fails_changes_nothing() {
    requires!(SYSTEMD);
    let installed = Installed::start("");
    let mut stream = installed.stream("");
    stream.connected();
    let old = installed.machine.service();
    installed.machine.sh("printf '#!/bin/sh\\nexit 7\\n' >/tmp/new; chmod +x /tmp/new");
    installed.machine.sh("mv /tmp/new /usr/local/bin/nudged; systemctl reload nudged");
    eventually("the failure is logged", || installed.machine.journal().contains("exit code 7"));
    eventually("it goes on", || installed.machine.service() == old);
    stream.expect_invalidate(&installed.publish(), &["posts"]);
    installed.put_in_place(2);
    installed.upgrade(&old);
    stream.expect_invalidate(&installed.publish(), &["posts"]);
    installed.expect_no_complaint();
}

/// SCENARIO: nudged is upgraded by `systemctl reload`; later the machine is shut down, or the unit restarted.
/// BUG: the new process was a child of the old one when systemd read `MAINPID=`. For systemd 252 it stays foreign then,
/// also when its parent is gone, and `systemctl stop` kills a foreign main process without waiting for its drain.
/// FIX: what stands between them has ended by then, and so the new process is a child of systemd.
#[test]
fn a_restart_after_an_upgrade_drains_and_resumes() {
    requires!(SYSTEMD);
    let installed = Installed::start("");
    let mut stream = installed.stream("");
    let id = stream.connected();
    installed.upgrade(&installed.machine.service());
    stream.expect_invalidate(&installed.publish(), &["posts"]);
    let drained = installed.machine.service();
    installed.machine.sh("systemctl restart nudged");
    assert!(stream.farewell() > 0);
    assert_ne!(installed.machine.service().main_pid, drained.main_pid);
    let mut stream = installed.stream(&format!("last-event-id: {id}\r\n"));
    assert_eq!(stream.greeting().2, "resumed");
    stream.expect_invalidate(&after(&id, 1), &["posts"]);
    installed.expect_no_complaint();
}

/// SCENARIO: the process that took over crashes, or hangs.
#[test]
fn the_process_that_took_over_is_supervised() {
    requires!(SYSTEMD);
    let installed = Installed::start("[Service]\nWatchdogSec=2s\n");
    for (signal, restarts) in [("KILL", 1), ("STOP", 2)] {
        installed.upgrade(&installed.machine.service());
        let new = installed.machine.service();
        installed.machine.sh(&format!("kill -s {signal} {}", new.main_pid));
        eventually("systemd starts it again", || {
            let service = installed.machine.service();
            service.active == "active" && service.restarts == restarts
        });
        installed.stream("").connected();
    }
}

// ===== impl Installed =====

impl Installed {
    /// Follows the instructions of the unit. `more` are lines for a drop-in.
    fn start(more: &str) -> Self {
        let machine = Machine::boot();
        let unit = include_str!("../../../.systemd/nudged.service");
        let commands = unit.lines().filter_map(|line| line.strip_prefix("#   "));
        machine.sh(&commands.collect::<Vec<_>>().join("\n"));
        machine.sh("ln -s /opt/nudged/1/nudged /usr/local/bin/nudged");
        machine.sh(&format!("printf '%s' '{SETTINGS}' >/etc/nudged.env"));
        if !more.is_empty() {
            let folder = "/etc/systemd/system/nudged.service.d";
            machine.sh(&format!("mkdir {folder}; printf '%s' '{more}' >{folder}/test.conf"));
        }
        machine.sh("systemctl daemon-reload; systemctl start nudged.socket nudged.service");
        let scope = "--org acme --scope subscribe,publish";
        let token =
            machine.sh(&format!("nudged token --secret-file /etc/nudged/jwt-secret {scope}"));
        Self { machine, token }
    }

    /// Switches the symbolic link to a release.
    fn put_in_place(&self, release: u8) {
        let link = "/usr/local/bin/nudged";
        self.machine.sh(&format!("ln -s /opt/nudged/{release}/nudged {link}.new"));
        self.machine.sh(&format!("mv -T {link}.new {link}"));
    }

    /// Reloads the service, and returns once another process, which runs what is in place, is the only one.
    fn upgrade(&self, old: &Service) {
        self.machine.sh("systemctl reload nudged");
        let mut new = old.clone();
        eventually("another process is the main one", || {
            new = self.machine.service();
            new.main_pid != old.main_pid && new.active == "active"
        });
        assert_eq!(new.restarts, old.restarts, "{}", self.machine.journal());
        eventually("the old process ends", || self.machine.processes() == [new.main_pid]);
        let runs = self.machine.sh(&format!("readlink /proc/{}/exe", new.main_pid));
        assert_eq!(runs, self.machine.sh("readlink /usr/local/bin/nudged"));
    }

    fn connect(&self) -> Client {
        self.machine.connect(PORT)
    }

    /// A member's stream, with more header lines.
    fn stream(&self, headers: &str) -> Stream {
        let headers = format!("authorization: Bearer {}\r\n{headers}", self.token);
        Stream::open(self.connect(), "/api/acme/events", &headers)
    }

    /// Publishes a key, and returns the id of the event.
    fn publish(&self) -> String {
        let (token, body) = (&self.token, r#"{"keys":["posts"]}"#);
        let mut client = self.connect();
        client.send(&format!(
            "POST /api/acme/events HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer: Answer = client.read_answer();
        assert_eq!(answer.status(), 202, "{answer:?}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        body["id"].as_str().expect("an id").to_owned()
    }

    /// What systemd logs if the protocol with it is violated, and where it does not wait for a drain.
    fn expect_no_complaint(&self) {
        let journal = self.machine.journal();
        for complaint in ["not our child", "reception only permitted", "Killing process"] {
            assert!(!journal.contains(complaint), "{complaint}:\n{journal}");
        }
    }
}
