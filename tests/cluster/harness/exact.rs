//! Streams that a test reads event by event.

use std::time::Instant;

use nudged::wire::{Event, Parser};

use super::Cluster;
use crate::support::{BOUND, Stream};

/// The next event that is no keepalive. The stream's chunks are whole events.
pub(crate) fn next(stream: &mut Stream) -> Event {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < BOUND, "nothing but keepalives");
        let chunk = stream.next();
        let mut found = None;
        let push = Parser::default().push(chunk.as_bytes(), |event| found = Some(event));
        push.expect("an event of a usual size");
        if let Some(event) = found.filter(|event| event.name != "ping") {
            return event;
        }
    }
}

/// The keys of an `invalidate`.
pub(crate) fn keys(event: &Event) -> Vec<String> {
    assert_eq!(event.name, "invalidate", "{event:?}");
    let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
    let keys = data["keys"].as_array().expect("keys").iter();
    keys.map(|key| key.as_str().expect("a string").to_owned()).collect()
}

/// The position in an id.
pub(crate) fn position(id: &str) -> u64 {
    id.split_once('-').expect("<epoch>-<position>").1.parse().expect("a number")
}

// ===== impl Cluster =====

impl Cluster {
    /// Opens a member stream at a node, from this id if it is not empty, and reads its first event.
    pub(crate) fn stream(&self, node: usize, org: &str, id: &str) -> (Stream, Event) {
        let field = if id.is_empty() { String::new() } else { format!("last-event-id: {id}\r\n") };
        let path = format!("/api/{org}/events");
        let mut stream = self.nodes[node].server().stream_with(&path, &field);
        let greeting = next(&mut stream);
        (stream, greeting)
    }

    /// Publishes at a node, and returns the id of its answer.
    pub(crate) fn publish_at(&self, node: usize, org: &str, keys: &[&str]) -> String {
        self.nodes[node].server().publish(org, keys).expect("with a log, every publish has an id")
    }

    /// Returns once every node has applied what was published before.
    pub(crate) fn catch_up(&self) {
        let streams = (0..self.nodes.len()).map(|node| self.stream(node, "catch-up", "").0);
        let mut streams: Vec<_> = streams.collect();
        let published = position(&self.publish_at(0, "catch-up", &["now"]));
        for stream in &mut streams {
            // A barrier may have it read everything again.
            while position(&next(stream).id) < published {}
        }
    }

    /// Publishes so many bytes of keys of other orgs, in records of a usual size, and has every node apply them.
    pub(crate) fn fill(&self, bytes: usize) {
        let key = "a".repeat(500);
        let line = |n| format!("{{\"org\":\"other{n}\",\"keys\":[\"{key}\"]}}\n");
        let body: String = (0..100).map(line).collect();
        for _ in 0..bytes.div_ceil(body.len()) {
            let answer = self.nodes[0].server().post("/api/events", "application/x-ndjson", &body);
            assert_eq!(answer.status(), 202, "{answer:?}");
        }
        self.catch_up();
    }
}
