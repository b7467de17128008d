//! A server that shuts down follows the log until its streams have ended, and answers the publishes that it has begun.

use super::{expect_unavailable, id_of, publish_keys, ready};
use crate::support::client::post;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::server::Signal;
use crate::support::{Stream, eventually};

#[test]
fn streams_receive_what_is_published_elsewhere_until_their_end() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let delay = ["--drain-delay", "30m", "--drain-timeout", "1h", "--coalesce", "0"];
    let [draining, other] = [ready(&nats, &delay), ready(&nats, &[])];
    let mut stream = draining.stream("acme");
    stream.connected();
    draining.signal(Signal::TERM);
    eventually("it drains", || draining.get("/readyz").status() == 503);
    for key in ["a", "b"] {
        let id = id_of(&publish_keys(&other, "acme", key));
        stream.expect_invalidate(&id, &[key]);
    }
    let id = id_of(&publish_keys(&draining, "acme", "c"));
    stream.expect_invalidate(&id, &["c"]);
}

/// The same while the streams end, one after the other: those whose turn has not come go on.
#[test]
fn streams_that_have_still_to_end_receive_what_is_published() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let slowly = ["--workers", "1", "--drain-window", "30m", "--drain-timeout", "1h"];
    let [draining, other] = [ready(&nats, &slowly), ready(&nats, &[])];
    let mut streams = draining.streams("acme", 40);
    draining.signal(Signal::TERM);
    eventually("it accepts no more", || std::net::TcpStream::connect(draining.address()).is_err());
    // So many that a server which no longer follows would have ended to do so.
    let ids: Vec<_> = (0..50).map(|_| id_of(&publish_keys(&other, "acme", "a"))).collect();
    let last = format!("id: {}\n", ids[49]);
    let receives = |stream: &mut Stream| {
        loop {
            match stream.next() {
                event if event.starts_with(&last) => return true,
                event if event.starts_with("id: ") => {}
                _ => return false,
            }
        }
    };
    let received = streams.iter_mut().filter_map(|stream| receives(stream).then_some(())).count();
    assert!(received > 30, "{received}");
}

#[test]
fn a_publish_in_flight_is_answered() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let args = ["--workers", "1", "--drain-window", "0", "--backplane-timeout", "60s"];
    let mut server = ready(&nats, &args);
    nats.pause();
    let mut client = server.connect();
    client.send(&post("/api/acme/events", "application/json", r#"{"keys":["a"]}"#));
    let mut idle = server.connect();
    idle.send("GET /livez HTTP/1.1\r\n");
    server.settle();
    server.signal(Signal::TERM);
    // What carries no complete request ends after the grace, and the publish does not.
    assert_eq!(idle.try_read_to_end().unwrap_or_default(), b"");
    nats.go_on();
    id_of(&client.read_answer());
    assert_eq!(server.wait(), Some(0));
}

/// Neither the publish nor the end of the log's thread holds the end of the server.
#[test]
fn a_broker_that_hangs_does_not_hold_the_end() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let args = ["--workers", "1", "--drain-window", "0", "--backplane-timeout", "300ms"];
    let mut server = ready(&nats, &args);
    nats.pause();
    let mut client = server.connect();
    client.send(&post("/api/acme/events", "application/json", r#"{"keys":["a"]}"#));
    server.settle();
    server.signal(Signal::TERM);
    expect_unavailable(&client.read_answer());
    assert_eq!(server.wait(), Some(0));
}
