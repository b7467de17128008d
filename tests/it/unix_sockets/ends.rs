//! However a stream over a Unix socket ends, its seat and its descriptor are free.

use std::io::{IoSlice, PipeReader, Read, pipe};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::Place;
use crate::support::large::{LARGE, keys, publish};
use crate::support::programs::{CURL, requires};
use crate::support::server::Signal;
use crate::support::{Client, Stream, eventually};

const STREAMS: usize = 20;

#[test]
fn a_client_that_closes_shuts_down_or_leaves_bytes_unread_frees_its_seat() {
    let place = Place::new();
    let server = place.serve(&["--workers", "2", "--coalesce", "0"]);
    drop(place.streams("acme", 32));
    eventually("they have ended", || server.seats() == 0);
    let before = server.descriptors();
    let closes = place.streams("acme", STREAMS);
    let halves = place.streams("acme", STREAMS);
    let unread = place.streams("acme", STREAMS);
    let resets = place.streams("acme", STREAMS);
    server.publish("acme", &["unread"]);
    drop(closes);
    halves.iter().for_each(|stream| stream.client.half_close());
    drop(unread);
    resets.into_iter().for_each(|stream| stream.client.reset());
    eventually("every seat is free", || server.seats() == 0);
    eventually("every descriptor is closed", || server.descriptors() <= before);
    drop(halves);
}

#[test]
fn a_client_that_is_killed_frees_its_seat() {
    requires!(CURL);
    let place = Place::new();
    let server = place.serve(&[]);
    let curl = || {
        let mut curl = Command::new("curl");
        curl.args(["-sN", "--unix-socket"]).arg(&place.path).arg("http://test/api/acme/events");
        curl.stdout(Stdio::null()).spawn().expect("a program")
    };
    let mut clients: Vec<_> = (0..5).map(|_| curl()).collect();
    eventually("they stream", || server.seats() == 5);
    for client in &mut clients {
        client.kill().expect("it runs");
        client.wait().expect("it has ended");
    }
    eventually("every seat is free", || server.seats() == 0);
}

/// A write to a Unix socket fails once so much is unread, as one to a socket of TCP.
#[test]
fn a_client_that_does_not_read_is_found_and_closed() {
    let place = Place::new();
    let server =
        place.serve(&[LARGE, &["--stall-timeout", "1s", "--peer-timeout", "10m"]].concat());
    let idle = place.streams("other", 1);
    let stalled = place.streams("acme", 3);
    let keys = keys(1);
    server.publish("acme", &keys.iter().map(String::as_str).collect::<Vec<_>>());
    eventually("they are closed", || server.closed().get("stalled") == Some(&3));
    assert_eq!(server.seats(), 1, "not the one without an event");
    for mut stream in stalled {
        let rest = stream.client.try_read_to_end().expect("an end");
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it is not taken for complete");
    }
    drop(idle);
    eventually("every seat is free", || server.seats() == 0);
}

/// One that is not read does not hold a drain up, nor one that sends nothing.
#[test]
fn a_drain_ends_every_connection() {
    let place = Place::new();
    let mut server =
        place.serve(&[LARGE, &["--drain-window", "0", "--drain-grace", "1s"]].concat());
    let _stalled = place.streams("acme", 2);
    let _silent = place.connect();
    let mut reads = place.streams("acme", 1).remove(0);
    publish(&server, 2, &mut reads);
    server.signal(Signal::TERM);
    reads.farewell();
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_connection_that_sends_nothing_is_closed_in_time() {
    let place = Place::new();
    let _server = place.serve(&["--head-timeout", "200ms", "--idle-timeout", "300ms"]);
    let mut silent = place.connect();
    let mut idle = place.connect();
    idle.send("GET /livez HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(idle.read_answer().status(), 200);
    let mut half = place.connect();
    half.send("GET /livez HT");
    assert_eq!(silent.read_to_end(), b"");
    assert_eq!(idle.read_to_end(), b"");
    _ = half.try_read_to_end().expect("an end");
}

#[test]
fn a_thousand_streams_over_one_socket_receive_an_event_and_leave_nothing() {
    let place = Place::new();
    let server = place.serve(&["--workers", "2"]);
    drop(place.streams("warm", 32));
    eventually("they have ended", || server.seats() == 0);
    let before = server.descriptors();
    let mut streams = place.streams("acme", 1_000);
    assert_eq!(server.seats(), 1_000);
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    drop(streams);
    eventually("every seat is free", || server.seats() == 0);
    eventually("every descriptor is closed", || server.descriptors() <= before);
}

/// Sends these bytes, and a descriptor beside them, which nothing here has open after that. Returns what notices when
/// nothing else has it either.
fn send_descriptor(client: &Client, bytes: &[u8]) -> PipeReader {
    let (reader, writer) = pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&reader, true).expect("a pipe");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [writer.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = sendmsg(client.socket(), &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty());
    assert_eq!(sent.expect("connected"), bytes.len());
    reader
}

fn expect_closed(mut reader: &PipeReader) {
    eventually("nothing has it open", || matches!(reader.read(&mut [0]), Ok(0)));
}

/// SCENARIO: a client sends descriptors (SCM_RIGHTS) beside a request, and beside what is dropped behind it.
/// FIX: what is read without room for them closes them: none is ever one of the server's.
#[test]
fn descriptors_that_a_client_sends_are_closed() {
    let place = Place::new();
    let server = place.serve(&[]);
    let before = server.descriptors_at_rest();
    let mut client = place.connect();
    let request = b"GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n";
    let beside_request = send_descriptor(&client, request);
    let head = client.read_head();
    let mut stream = Stream { client, head };
    stream.connected();
    let behind = send_descriptor(&stream.client, b"anything");
    [&beside_request, &behind].into_iter().for_each(expect_closed);
    assert!(server.descriptors() <= before + 1, "its socket");
    let id = server.publish("acme", &["a"]).expect("subscribed");
    stream.expect_invalidate(&id, &["a"]);
}
