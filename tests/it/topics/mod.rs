//! Topics over HTTP: streams, publishes, ends, limits and tokens, on every way by which a stream reaches its client.

mod backlog;
mod bad_input;
mod closing;
mod exclusive;
mod limits;
mod operations;
mod since;
mod tokens;

use serde_json::Value;

use crate::support::topic::{JSON, RUN, numbered, numbered_frame, publish};
use crate::support::{Answer, Server, Stream, header};

const NDJSON: &str = "application/x-ndjson";

/// Publishes as many events, and returns their ids.
fn publish_some(server: &Server, path: &str, count: u64) -> Vec<String> {
    (1..=count).map(|n| publish(server, path, &numbered(n))).collect()
}

/// Closes a topic, and returns how many streams end.
fn close(server: &Server, path: &str, body: &str) -> u64 {
    let answer = close_with(server, path, body);
    assert_eq!(answer.status(), 202, "{body}: {answer:?}");
    let parsed: Value = serde_json::from_str(&answer.body).expect("JSON");
    let streams = parsed["streams"].as_u64().expect("a number");
    assert_eq!(answer.body, format!(r#"{{"streams":{streams}}}"#));
    streams
}

fn close_with(server: &Server, path: &str, body: &str) -> Answer {
    server.request(&format!(
        "DELETE {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// The id of the position before an event.
fn before(id: &str) -> String {
    let (epoch, seq) = id.split_once('-').expect("<epoch>-<seq>");
    format!("{epoch}-{}", seq.parse::<u64>().expect("a number") - 1)
}

/// Reads the end of a stream, which over HTTP/1.1 is that of its connection.
fn expect_end(stream: &mut Stream) {
    assert_eq!(stream.client.read_exact(5), b"0\r\n\r\n", "the last chunk and no more");
    if header(&stream.head, "connection") == Some("close") {
        assert_eq!(stream.client.read_to_end(), b"", "and the end");
    }
}
