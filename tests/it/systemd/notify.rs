//! Which messages a service manager gets of an upgrade, and from which process: it takes messages of the main one only.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::time::{ClockId, clock_gettime};

use crate::support::http2_client::{Http2Client, WIDE};
use crate::support::server::{Signal, signal};
use crate::support::temp_dir::TempDir;
use crate::support::{BOUND, Server, Transport};

/// A service manager, and the folder with its socket and with what is started.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

/// Ends a process that is no child, when this is dropped.
struct Other(u32);

const WATCHDOG: &str = "WATCHDOG=1";

/// SCENARIO: `systemctl reload`, whose unit sends SIGUSR2.
#[test]
fn systemd_is_notified_of_an_upgrade_by_the_process_that_is_the_main_one() {
    let manager = Manager::new();
    let mut server = manager.start();
    let old = server.pid();
    // It stays with the old process, for a drain.
    let mut held = Http2Client::on(TcpStream::connect(server.address()).expect("it listens"), WIDE);
    let stream = held.get("/api/acme/events");
    assert!(held.event(stream).contains("connected"));
    for _ in 0..2 {
        assert_eq!(manager.next_message(), (old, WATCHDOG.into()));
    }
    server.signal(Signal::USR2);
    manager.expect_reloading(old);
    let (by, named) = manager.next_state();
    assert_eq!(by, old);
    let new = named.strip_prefix("MAINPID=").unwrap_or_else(|| panic!("no MAINPID: {named}"));
    let new = Other(new.parse().expect("a number"));
    assert_ne!(new.0, old);
    assert_eq!(manager.next_state(), (new.0, "READY=1".into()));
    assert_ne!(parent(new.0), old, "systemd does not wait for a process that is no child of it");
    assert_eq!(server.wait(), Some(0));
    for _ in 0..3 {
        assert_eq!(manager.next_message(), (new.0, WATCHDOG.into()));
    }
    signal(new.0, Signal::TERM).expect("it runs");
    assert_eq!(manager.next_state(), (new.0, "STOPPING=1".into()));
}

/// SCENARIO: what is to take over cannot.
#[test]
fn systemd_is_notified_of_the_end_of_an_upgrade_that_failed() {
    let manager = Manager::new();
    let server = manager.start();
    manager.put_in_place("/bin/false");
    server.signal(Signal::USR2);
    manager.expect_reloading(server.pid());
    assert_eq!(manager.next_state(), (server.pid(), "READY=1".into()));
    for _ in 0..3 {
        assert_eq!(manager.next_message(), (server.pid(), WATCHDOG.into()));
    }
    assert_eq!(server.get("/livez").status(), 200);
}

fn parent(process: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    line.trim().parse().expect("a number")
}

// ===== impl Manager =====

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new();
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        set_socket_passcred(&socket, true).expect("a socket");
        Self { socket, folder }
    }

    /// Starts a server from a path that may come to name something else.
    fn start(&self) -> Server {
        self.put_in_place(env!("CARGO_BIN_EXE_nudged"));
        let path = self.folder.file("nudged");
        let script = "path=$0; shift; exec \"$path\" \"$@\"";
        let mut command = Server::command_by(&["sh", "-c", script, &path]);
        command.env("NOTIFY_SOCKET", self.folder.file("notify")).env("WATCHDOG_USEC", "200000");
        let server = Server::start_as(command, Transport::Http1, &[]);
        assert_eq!(self.next_message(), (server.pid(), "READY=1".into()));
        server
    }

    fn put_in_place(&self, program: &str) {
        let (new, path) = (self.folder.file("new"), self.folder.file("nudged"));
        symlink(program, &new).expect("a link");
        fs::rename(new, path).expect("the same folder");
    }

    /// The next message, and the process that sent it.
    fn next_message(&self) -> (u32, String) {
        let (mut bytes, mut space) = ([0; 256], [MaybeUninit::uninit(); 64]);
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::empty(),
        );
        let length = received.expect("a message within the bound").bytes;
        let sender = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
            _ => None,
        });
        let sender = sender.expect("the kernel adds it").as_raw_nonzero().get();
        let text = String::from_utf8_lossy(&bytes[..length]).trim().to_owned();
        (u32::try_from(sender).expect("positive"), text)
    }

    /// The next one that is no ping of the watchdog.
    fn next_state(&self) -> (u32, String) {
        let states = std::iter::repeat_with(|| self.next_message());
        let mut states = states.filter(|(_, message)| message != WATCHDOG);
        states.next().expect("endless")
    }

    /// The message that systemd matches with its request by time (`Type=notify-reload`).
    fn expect_reloading(&self, process: u32) {
        let (by, message) = self.next_state();
        assert_eq!(by, process);
        let usec = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let usec: i64 = usec.unwrap_or_else(|| panic!("{message}")).parse().expect("a number");
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        let bound = i64::try_from(BOUND.as_micros()).expect("short");
        assert!(usec <= now && usec + bound > now, "{usec} at {now}");
    }
}

// ===== impl Other =====

impl Drop for Other {
    fn drop(&mut self) {
        _ = signal(self.0, Signal::KILL);
    }
}
