//! A server that is replaced while it runs: the state is that of the last one.

use std::fs;
use std::os::unix::process::CommandExt;

use rustix::process::{Pid, kill_process_group};

use super::{ACME, Place, resumed};
use crate::support::server::{Signal, signal};
use crate::support::{Server, Transport, eventually};

/// The processes of a group, killed when this is dropped.
struct Group(i32);

// ===== impl Group =====

impl Group {
    /// Its processes that have not ended (`proc_pid_stat(5)`).
    fn members(&self) -> Vec<u32> {
        let pids = fs::read_dir("/proc")
            .expect("a folder")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is_member = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            let mut fields = fields.split(' ');
            let runs = fields.next().is_some_and(|state| state != "Z");
            runs && fields.nth(1).is_some_and(|group| group == self.0.to_string())
        };
        pids.filter(is_member).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        _ = Pid::from_raw(self.0).map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// The first one never writes it, and does not keep the second one from it.
#[test]
fn a_successor_writes_the_state_of_both() {
    let place = Place::new();
    let mut command = Server::command();
    command.process_group(0);
    let mut server = place.start_as(command, Transport::Http1, &[]);
    let group = Group(i32::try_from(server.pid()).expect("a process"));
    let mut stream = server.stream("acme");
    let start = stream.connected();
    let first = server.publish("acme", &["a"]).expect("subscribed");
    stream.expect_invalidate(&first, &["a"]);
    server.signal(Signal::USR2);
    assert_eq!(server.wait(), Some(0));
    assert!(place.names().is_empty(), "{:?}", place.names());

    let second = server.publish("acme", &["b"]).expect("subscribed");
    stream.expect_invalidate(&second, &["b"]);
    let successors = group.members();
    let [successor] = successors[..] else { panic!("{successors:?} instead of one") };
    signal(successor, Signal::TERM).expect("it runs");
    stream.farewell();
    eventually("it ends", || group.members().is_empty());
    assert_eq!(place.names(), ["state"]);

    let server = place.start(&[]);
    let mut stream = resumed(&server, ACME, &start);
    stream.expect_invalidate(&first, &["a"]);
    stream.expect_invalidate(&second, &["b"]);
}
