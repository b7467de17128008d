//! A server that listens on a Unix socket is replaced: its path, its streams, and what waits there, stay.

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::upgradable::Upgradable;
use crate::support::large::{LARGE, publish};
use crate::support::programs::{PYTHON, requires};
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Client, Stream, eventually};

fn start(args: &[&str]) -> (TempDir, PathBuf, Upgradable) {
    let dir = TempDir::new();
    let path = dir.path().join("socket");
    let listen = format!("127.0.0.1:0,unix:{}", path.display());
    let server = Upgradable::start(&[&["--listen", &listen, "--workers", "2"], args].concat());
    (dir, path, server)
}

fn connect(path: &Path) -> Client {
    let socket = UnixStream::connect(path).expect("it listens");
    Client::on(TcpStream::from(OwnedFd::from(socket)))
}

fn streams(path: &Path, count: usize) -> Vec<Stream> {
    let open = || Stream::open(connect(path), "/api/acme/events", "");
    let mut streams: Vec<_> = (0..count).map(|_| open()).collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    streams
}

fn livez(client: &mut Client) {
    client.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.read_answer().status(), 200);
}

#[test]
fn streams_and_waiting_connections_go_on_in_the_new_process() {
    let (_dir, path, mut server) = start(&["--coalesce", "0", "--access-log"]);
    let inode = || fs::metadata(&path).expect("a file").ino();
    let before = inode();
    let mut streams = streams(&path, 20);
    let (mut silent, mut kept) = (connect(&path), connect(&path));
    livez(&mut kept);
    for n in ["a", "b"] {
        server.upgrade();
        assert_eq!(inode(), before, "the same file");
        assert_eq!(server.seats(), 20);
        let id = server.publish("acme", &[n]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &[n]));
        livez(&mut connect(&path));
        livez(&mut kept);
    }
    livez(&mut silent);
    for (n, stream) in streams.into_iter().enumerate() {
        if n % 2 == 0 { stream.client.half_close() } else { drop(stream) }
    }
    eventually("every seat is free", || server.seats() == 0);
    // The last of them removes the file.
    server.signal(Signal::TERM);
    let pid = server.pid();
    eventually("it ends", || !fs::exists(format!("/proc/{pid}/fd")).is_ok_and(|is| is));
    assert!(!path.exists());
}

#[test]
fn an_upgrade_that_fails_leaves_the_socket_to_the_old_process() {
    requires!(PYTHON);
    let (_dir, path, mut server) = start(&[]);
    let mut streams = streams(&path, 5);
    for kind in ["Hello", "Took"] {
        server.install_relay(json!({ "kind": kind, "when": "before", "do": "kill-new" }));
        server.fails_to_upgrade();
        livez(&mut connect(&path));
    }
    server.install_program();
    server.upgrade();
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    livez(&mut connect(&path));
}

/// What it has not read is in the kernel, and goes with its socket.
#[test]
fn a_client_that_does_not_read_gets_the_rest_of_an_event_that_was_cut() {
    let (_dir, path, mut server) = start(&[LARGE, &["--history-bytes", "100000000"]].concat());
    let mut late = streams(&path, 2);
    let mut reads = streams(&path, 1).remove(0);
    publish(&server, 2, &mut reads);
    server.upgrade();
    let live = server.publish("acme", &["live"]).expect("subscribed");
    reads.expect_invalidate(&live, &["live"]);
    let end = format!("id: {live}\nevent: invalidate\ndata: {{\"keys\":[\"live\"]}}\n\n\r\n");
    let rests: Vec<_> =
        late.iter_mut().map(|late| late.client.read_until(end.as_bytes())).collect();
    assert!(rests[0] == rests[1] && rests[0].len() > 2_000_000, "not the same bytes");
    assert_eq!(server.metric("nudged_rereads_total"), 0);
}
