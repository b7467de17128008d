//! An upgrade while the process before still serves what had begun there.

use super::upgradable::Upgradable;
use crate::support::server::Signal;
use crate::support::{Client, eventually};

/// What the drain of a predecessor may take here.
const SETTINGS: [&str; 4] = ["--coalesce", "0", "--workers", "1"];

const BODY: &str = r#"{"keys":["late"]}"#;

/// A publish of which the body is missing.
fn begin_publish(server: &Upgradable) -> Client {
    let mut client = server.connect();
    let (length, json) = (BODY.len(), "application/json");
    client.send(&format!(
        "POST /api/acme/events HTTP/1.1\r\nhost: test\r\ncontent-type: {json}\r\ncontent-length: {length}\r\n\r\n{}",
        &BODY[..4],
    ));
    client
}

/// Starts the next process, while the ones before serve on.
fn upgrade(server: &mut Upgradable) {
    let known = server.servers();
    server.signal(Signal::USR2);
    server.log.line(&["the new process has taken over"]);
    let is_new = |pid: &u32| !known.contains(pid);
    let new = server.servers().into_iter().find(is_new).expect("the new one");
    server.go_on_with(new);
}

/// SCENARIO: a publish begins at a server that is replaced, and ends when its successor has been replaced too.
/// BUG: the successor published it to its own hub, which has no streams any more: it was acknowledged, and lost.
/// FIX: it passes it on to its own successor.
#[test]
fn a_publish_that_ends_two_upgrades_later_is_not_lost() {
    let mut server = Upgradable::start(&SETTINGS);
    let mut stream = server.stream("acme");
    stream.connected();
    let mut first = begin_publish(&server);
    server.settle();
    upgrade(&mut server);
    // This one keeps the second process.
    let mut second = begin_publish(&server);
    server.settle();
    upgrade(&mut server);
    assert_eq!(server.servers().len(), 3);
    for client in [&mut first, &mut second] {
        client.send(&BODY[4..]);
        let answer = client.read_answer();
        assert_eq!(answer.status(), 202, "{answer:?}");
        let answer: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        stream.expect_invalidate(answer["id"].as_str().expect("an id"), &["late"]);
    }
    eventually("the others end", || server.servers() == [server.pid()]);
    let live = server.publish("acme", &["live"]).expect("subscribed");
    stream.expect_invalidate(&live, &["live"]);
}
