//! What answers as a database, and is none, or hangs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::{logging, next_keys};
use crate::support::postgres::Postgres;
use crate::support::programs::{POSTGRES, requires};

/// The bytes that a flood has: enough to be seen in the memory of a server that keeps them.
const FLOOD: usize = 256 * 1024 * 1024;

/// The memory of a server that does not.
const MEMORY_MAX: u64 = 128 * 1024 * 1024;

/// SCENARIO: two hosts are named, and the first one takes connections and does not respond, as one whose disk hangs. BUG:
/// the time to connect was one for all hosts, so that the second one was never tried. FIX: each host has its time.
#[test]
fn a_host_that_does_not_respond_is_passed_over() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let (first, second) = (silent.local_addr().expect("bound"), postgres.address());
    let attributes = "target_session_attrs=read-write";
    let url = format!("postgres://postgres@{first},{second}/postgres?{attributes}");
    let (server, log) = logging(&url, &[]);
    let lines = log.until("the outbox is drained");
    assert!(!lines.contains("not drained"), "{lines}");
    let mut stream = server.stream("acme");
    stream.connected();
    postgres.sql().run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
}

/// SCENARIO: what answers in place of the database sends without end: notices before the session begins, the value of a
/// setting, an error, or settings in answer to a request. BUG: all of it was kept for the ten seconds that a request may
/// take, until no memory was left, and the server was aborted. FIX: a connection from which more comes than was asked for
/// is ended.
#[test]
fn what_is_sent_without_end_is_not_kept() {
    let hello: &[&[u8]] = &[&message(b'R', &[0; 4]), &message(b'Z', b"I")];
    let notice = message(b'N', &[b"SNOTICE\0C00000\0M", &[b'x'; 1_000][..], b"\0\0"].concat());
    let huge = [&b"S\x7f\xff\xff\xff"[..], &[b'x'; 1_000]].concat();
    let settings: Vec<u8> = (0..100_000).flat_map(setting).collect();
    for (what, begins, flood) in [
        ("notices", &hello[..1], &notice),
        ("a value", &hello[..1], &huge),
        ("an error", &hello[..0], &[&b"E\x7f\xff\xff\xff"[..], &[b'x'; 1_000]].concat()),
        ("settings", hello, &settings),
    ] {
        let url = flooding(begins.concat(), flood.clone());
        let (server, log) = logging(&url, &[]);
        let lines = log.until("the outbox is not drained");
        assert!(lines.contains("it sends more than was asked for"), "{what}: {lines}");
        let peak = server.memory_peak();
        assert!(peak < MEMORY_MAX, "{what}: {peak}");
        assert_eq!(server.get("/readyz").status(), 200);
    }
}

/// SCENARIO: the version of the server is a long text. BUG: all of it was a line of the log, or, beyond a megabyte, only
/// that a line was dropped. FIX: what is shown of it has a bound.
#[test]
fn a_version_that_is_a_long_text_is_shown_in_part() {
    let version = [b"server_version\x009.6\n\x1b[31m", &[b'v'; 200_000][..], b"\0"].concat();
    let begins = [message(b'R', &[0; 4]), message(b'S', &version), message(b'Z', b"I")].concat();
    let (_server, log) = logging(&flooding(begins, Vec::new()), &[]);
    let line = log.line(&["the outbox is not drained"]);
    assert!(line.contains("is too old") && line.len() < 1_000, "{line}");
    assert!(!line.contains('\x1b'), "{line:?}");
}

/// What `--outbox` is for a server that answers each first message with this, and each second one with a flood.
fn flooding(begins: Vec<u8>, flood: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("postgres://u@{}/d?sslmode=disable", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            let (begins, flood) = (begins.clone(), flood.clone());
            std::thread::spawn(move || _ = answer(peer, &begins, &flood));
        }
    });
    url
}

fn answer(mut peer: TcpStream, begins: &[u8], flood: &[u8]) -> std::io::Result<()> {
    let mut request = [0; 4_096];
    _ = peer.read(&mut request)?;
    peer.write_all(begins)?;
    if begins.ends_with(b"I") {
        _ = peer.read(&mut request)?;
    }
    for _ in 0..FLOOD.checked_div(flood.len()).unwrap_or_default() {
        peer.write_all(flood)?;
    }
    Ok(())
}

/// A message of the protocol: its kind, its length, and what it has.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

fn setting(n: u32) -> Vec<u8> {
    message(b'S', &[format!("p{n}\0").as_bytes(), &[b'v'; 100], b"\0"].concat())
}
