//! What the other tests rely on: that the checker notices what must not happen.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::checker::Checker;
use super::shared::crowd::{Crowd, Tally};
use crate::support::port::ReservedPort;
use crate::support::server::Signal;
use crate::support::{Server, eventually};

const STREAMS: usize = 100;

/// In both ways: nothing keeps a stream open, nor a port.
#[test]
fn the_checker_notices_a_restart() {
    for end in [Signal::TERM, Signal::KILL] {
        let port = ReservedPort::new();
        let address = port.address.to_string();
        let args = ["--listen", &address, "--drain-delay", "0", "--drain-window", "200ms"];
        let mut server = Server::start(&args);
        let checker = Checker::start(server.address(), STREAMS);
        server.signal(end);
        server.wait();
        // So long that a connect comes meanwhile.
        eventually("it is noticed", || std::net::TcpStream::connect(&address).is_err());
        thread::sleep(Duration::from_millis(20));
        let server = Server::start(&args);
        eventually("the next one serves", || server.get("/livez").status() == 200);
        let seen = checker.finish();
        let noticed = seen.noticed().expect("all streams have ended");
        assert_eq!(seen.tally.ends, STREAMS as u64, "{noticed}");
        assert!(seen.probed.refused > 0, "{noticed}");
    }
}

/// A server that is only slow is none that was replaced.
#[test]
fn the_checker_notices_nothing_of_a_pause() {
    let server = Server::start(&[]);
    let checker = Checker::start(server.address(), STREAMS);
    server.pause(Duration::from_millis(300), || {});
    checker.expect_nothing("a pause");
}

const GREETING: &str =
    "retry: 1000\nid: 00000000000000ab-0\nevent: connected\ndata: {\"keepalive\":20}\n\n";

fn event(number: u64, key: &str) -> String {
    format!("id: 00000000000000ab-{number}\nevent: invalidate\ndata: {{\"keys\":[\"{key}\"]}}\n\n")
}

/// What each of two streams of one organisation receives, byte by byte.
fn received(streams: [&[u8]; 2]) -> Tally {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let mut crowd =
        Crowd::new(listener.local_addr().expect("bound"), &["acme".into()]).expect("a poller");
    let streams = streams.map(<[u8]>::to_vec);
    let server = thread::spawn(move || {
        for stream in streams {
            let (mut socket, _) = listener.accept().expect("a stream");
            _ = socket.read(&mut [0; 1024]).expect("a request");
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .expect("it reads");
            stream.iter().for_each(|byte| socket.write_all(&[*byte]).expect("it reads"));
        }
    });
    _ = crowd.open(2);
    eventually("both have ended", || {
        crowd.turn(Duration::from_millis(1)).expect("a poller");
        crowd.open_now() == 0
    });
    server.join().expect("it ends");
    crowd.tally
}

fn chunks(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()).collect()
}

/// Both end, as nothing else that the server sends may.
#[test]
fn the_checker_notices_each_fault_of_a_stream() {
    let good = chunks(&[GREETING, &event(1, "k:0:7"), ": keepalive\n", &event(2, "k:1:8")]);
    let clean = Tally { connected: 2, events: 4, keepalives: 2, ends: 2, ..Tally::default() };
    let count = |tally: Tally| Tally {
        faults: Vec::new(),
        longest_gap: Duration::ZERO,
        longest_latency: Duration::ZERO,
        ..tally
    };
    let both = received([&good, &good]);
    assert_eq!(count(both.clone()), clean, "{both:?}");

    let second = |texts: &[&str]| count(received([&good, &chunks(texts)]));
    let lost = second(&[GREETING, &event(2, "k:1:8")]);
    assert_eq!(lost, Tally { events: 3, keepalives: 1, lost: 1, ..clean.clone() });
    let doubled = second(&[GREETING, &event(1, "k:0:7"), &event(1, "k:0:7"), &event(2, "k:1:8")]);
    assert_eq!(doubled, Tally { events: 5, keepalives: 1, doubled: 1, ..clean.clone() });
    let changed = second(&[GREETING, &event(1, "k:0:8"), &event(2, "k:1:8")]);
    assert_eq!(changed, Tally { keepalives: 1, wrong: 1, ..clean.clone() });
    let again = second(&[GREETING, GREETING, &event(1, "k:0:7"), &event(2, "k:1:8")]);
    assert_eq!(again, Tally { connected: 3, keepalives: 1, wrong: 1, ..clean.clone() });
    let key_again = second(&[GREETING, &event(1, "k:0:7"), &event(2, "k:1:8"), &event(3, "k:1:8")]);
    assert_eq!(key_again, Tally { events: 5, keepalives: 1, doubled: 1, ..clean.clone() });
    let other_epoch = second(&[GREETING, &event(1, "k:0:7").replace("ab-", "ac-")]);
    // Its text is another one too.
    assert_eq!(other_epoch, Tally { events: 3, keepalives: 1, wrong: 2, ..clean });

    // What is no chunk, or no event, ends a stream at once.
    let mut cut = good.clone();
    cut.drain(good.len() - 10..good.len() - 9);
    cut.extend(b"x\r\n");
    let broken = received([&good, &cut]);
    assert!(broken.faults.iter().any(|fault| fault.contains("the end of a chunk")), "{broken:?}");
    let broken = received([&good, &chunks(&[GREETING, "id: 00000000000000ab-1\n"])]);
    assert!(broken.faults.iter().any(|fault| fault.contains("a chunk is not")), "{broken:?}");
    let broken = received([&good, b"0\r\n\r\n"]);
    assert!(broken.faults.iter().any(|fault| fault.contains("the size of a chunk")), "{broken:?}");
}
