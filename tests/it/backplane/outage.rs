//! A broker that is away: at the start, for a while, and for good.

use std::process::Stdio;

use super::{
    JSON, NDJSON, RUN, expect_not_stored, expect_unavailable, id_of, member, publish_keys, ready,
    start,
};
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, requires};
use crate::support::{Server, eventually};

const SHORT: [&str; 4] = ["--backplane-timeout", "1s", "--coalesce", "0"];

fn problem(server: &Server, path: &str) -> (u16, String) {
    let answer = server.get(path);
    let text = if answer.status() == 200 { answer.body } else { answer.problem() };
    (answer.head.split(' ').nth(1).expect("a status").parse().expect("a number"), text)
}

#[test]
fn a_server_whose_broker_is_away_says_so_and_begins_once_it_comes() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start();
    nats.kill();
    let server = start(&nats, &SHORT);
    assert_eq!(server.get("/livez").status(), 200);
    eventually("it says why", || {
        let (status, why) = problem(&server, "/readyz");
        assert_eq!(status, 503, "{why}");
        why.starts_with("the log is not loaded: ") && !why.ends_with("connecting to the broker")
    });
    let answer = server.get("/readyz");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");

    expect_not_stored(&publish_keys(&server, "acme", "a"));
    let line = r#"{"org":"acme","keys":["a"]}"#;
    expect_not_stored(&server.post("/api/events", NDJSON, line));
    expect_not_stored(&server.post(RUN, JSON, r#"{"event":"a","data":1}"#));
    expect_not_stored(&server.post("/api/acme/reread", JSON, "{}"));
    expect_not_stored(&server.post("/api/reread", JSON, "{}"));
    for path in ["/api/acme/events", RUN] {
        let delete = format!("DELETE {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        expect_not_stored(&server.request(&delete));
        // A stream could not resume, so its client comes back: an EventSource only after this.
        let stream =
            format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n");
        let answer = server.request(&stream);
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.body.starts_with("retry: "), "{answer:?}");
        assert!(
            !answer.body.contains("127.0.0.1"),
            "strangers see where the broker is: {answer:?}"
        );
        let (status, why) = problem(&server, path);
        assert_eq!(status, 503, "{why}");
        assert_eq!(why, "the log is not loaded");
    }
    // Nor could a page resume from a position of now.
    let (status, why) = problem(&server, "/api/acme/position");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("the log is not loaded"), "{why}");
    // What is wrong is refused as ever.
    assert_eq!(server.post("/api/acme/events", JSON, "{}").status(), 400);

    nats.start_again();
    eventually("the log is loaded", || server.get("/readyz").status() == 200);
    let mut stream = server.stream("acme");
    stream.connected();
    let id = id_of(&publish_keys(&server, "acme", "b"));
    stream.expect_invalidate(&id, &["b"]);
}

/// Its connections stay, and nothing comes back: streams stay open, publishes are refused, and all goes on afterwards.
#[test]
fn publishes_are_refused_while_the_broker_hangs_and_streams_stay() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let server = ready(&nats, &SHORT);
    let mut stream = server.stream("acme");
    stream.connected();
    nats.pause();
    expect_unavailable(&publish_keys(&server, "acme", "lost"));
    assert_eq!(server.get("/readyz").status(), 200, "it is of use to streams");
    assert_eq!(server.seats(), 1);
    // Resuming needs no broker.
    server.stream("acme").connected();
    nats.go_on();
    let mut answer = publish_keys(&server, "acme", "b");
    eventually("publishes are accepted again", || {
        answer = publish_keys(&server, "acme", "b");
        answer.status() == 202
    });
    let id = id_of(&answer);
    // What was refused may have been stored.
    loop {
        let event = stream.next();
        assert!(event.contains("event: invalidate\n"), "{event}");
        if event.starts_with(&format!("id: {id}\n")) {
            break;
        }
    }
}

#[test]
fn a_server_that_is_cut_off_is_ready_unless_it_is_configured_otherwise() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start();
    let [stays, leaves] = [
        ready(&nats, &["--backplane-trust-disk"]),
        ready(&nats, &["--backplane-trust-disk", "--unready-when-cut-off"]),
    ];
    assert_eq!(stays.metric("nudged_backplane_connected"), 1);
    nats.kill();
    eventually("both notice", || {
        [&stays, &leaves].iter().all(|server| server.metric("nudged_backplane_connected") == 0)
    });
    assert_eq!(stays.get("/readyz").status(), 200);
    eventually("it is not ready", || leaves.get("/readyz").status() == 503);
    let (_, why) = problem(&leaves, "/readyz");
    assert!(why.starts_with("the log cannot be reached"), "{why}");
    // It serves streams all the same.
    leaves.stream("acme").connected();
    nats.start_again();
    eventually("it is ready again", || leaves.get("/readyz").status() == 200);
    assert_eq!(member(&publish_keys(&leaves, "acme", "a"), "type"), serde_json::Value::Null);
}

/// It ends no other before the log has its claim, and takes no place if that fails.
#[test]
fn an_exclusive_stream_that_cannot_claim_its_topic_ends_no_other() {
    requires!(NATS_SERVER);
    let nats = NatsServer::start();
    let server = ready(&nats, &SHORT);
    let mut stream = server.stream_with(RUN, "");
    stream.connected();
    nats.pause();
    let exclusive = format!("GET {RUN}?exclusive HTTP/1.1\r\nhost: test\r\n");
    let answer = server.request(&format!("{exclusive}accept: text/event-stream\r\n\r\n"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.body.starts_with("retry: "), "{answer:?}");
    // The first claim is on its way still, so this one may not be.
    let answer = server.request(&format!("{exclusive}\r\n"));
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert_eq!(server.seats(), 1, "that of the first one");
    nats.go_on();
    // A claim that was stored all the same has no stream any more, and ends this one for it.
    let mut answer = server.post(RUN, JSON, r#"{"event":"a","data":1}"#);
    eventually("publishes are accepted again", || {
        answer = server.post(RUN, JSON, r#"{"event":"a","data":1}"#);
        answer.status() == 202
    });
}

/// SCENARIO: the broker is away for longer than `--backplane-timeout`, and `nudged publish --topic` may try again for longer.
/// BUG: the server answered that the event may have been stored, although no broker had got it: the command gave up.
/// FIX: the answer is that nothing was stored, and the command tries again.
#[test]
fn an_event_that_no_broker_got_is_published_again() {
    requires!(NATS_SERVER);
    let mut nats = NatsServer::start();
    let server = ready(&nats, &SHORT);
    let mut stream = server.stream_with(RUN, "");
    stream.connected();
    nats.kill();
    eventually("it is noticed", || server.metric("nudged_backplane_connected") == 0);
    let mut command = Server::command();
    command.args(["publish", "acme", "--topic", "run-7", "--event", "output", "--data", "7"]);
    command.env("NUDGED_URL", format!("http://{}", server.address()));
    let publishing = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let publishing = publishing.expect("the program");
    let unavailable = "nudged_backplane_appends_total{result=\"unavailable\"}";
    eventually("it is refused", || server.metric(unavailable) > 0);
    nats.start_again();
    let output = publishing.wait_with_output().expect("the program");
    let notes = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(0), "{notes}");
    assert!(notes.contains("nothing of this request was stored; trying again in "), "{notes}");
    while !stream.next().contains("event: output\ndata: 7\n") {}
}
