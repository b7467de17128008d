//! The parser of event streams in the client, in Node, beside ours and the cases of web-platform-tests.

#[path = "../../src/fuzzing/readers.rs"]
#[allow(dead_code, reason = "the client is compared with our parser, which is compared with these")]
mod readers;
#[path = "../it/wire/wpt.rs"]
mod wpt;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nudged::wire::Parser;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use self::readers::Received;
use crate::support::killed::Killed;
use crate::support::programs::{NODE, are_available, requires};
use crate::support::stream_bytes::{bytes_like_a_stream, cut};

/// The client in Node, which parses one stream after the other.
struct Client {
    _node: Killed,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// It ends with its standard input.
static CLIENT: Mutex<Option<Client>> = Mutex::new(None);

/// What the client waits before it reconnects, in milliseconds: without a `retry:`, and at least and at most.
const RETRY_MS: u64 = 3000;
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 600_000;

// ===== impl Client =====

impl Client {
    fn start() -> Self {
        let mut node = Command::new("node")
            .arg("tests/browser/parser/parser.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let (to, from) = (node.stdin.take(), node.stdout.take());
        Self {
            _node: Killed(node),
            to: to.expect("piped"),
            from: BufReader::new(from.expect("piped")),
        }
    }

    fn received(&mut self, pieces: &[&[u8]]) -> Received {
        let hex = |piece: &&[u8]| piece.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let pieces = Value::from_iter(pieces.iter().map(hex));
        writeln!(self.to, "{pieces}").expect("node reads");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("node writes");
        let (events, retry_ms, last_event_id) = serde_json::from_str(&line).expect("a result");
        let retry_ms = Some(retry_ms).filter(|ms| *ms != RETRY_MS);
        Received { events, retry_ms, last_event_id }
    }
}

fn by_client(pieces: &[&[u8]]) -> Received {
    let mut client = CLIENT.lock().unwrap_or_else(PoisonError::into_inner);
    client.get_or_insert_with(Client::start).received(pieces)
}

fn by_rust(pieces: &[&[u8]]) -> Received {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in pieces {
        let result = parser.push(piece, |event| events.push([event.name, event.data, event.id]));
        result.expect("the stream is small");
    }
    let bounded = |ms: u64| ms.clamp(RETRY_MS_MIN, RETRY_MS_MAX);
    let retry_ms = parser.retry_ms().map(bounded).filter(|ms| *ms != RETRY_MS);
    Received { events, retry_ms, last_event_id: parser.last_event_id().to_owned() }
}

/// For the cases of web-platform-tests. Without Node they are skipped, and their assertions hold for our parser.
fn by_ours<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Received {
    let pieces: Vec<_> = pieces.into_iter().collect();
    if are_available(&[&NODE]) { by_client(&pieces) } else { by_rust(&pieces) }
}

// ===== any streams =====

#[test]
fn the_client_receives_what_our_parser_does_of_any_bytes_in_any_pieces() {
    requires!(NODE);
    let lengths = vec(0usize..6, 0..80);
    let config = ProptestConfig::with_cases(500);
    // One of its own, since the cases of web-platform-tests would wait long for the one that they share.
    let client = RefCell::new(Client::start());
    proptest!(config, |(stream in bytes_like_a_stream(), lengths in lengths)| {
        let expected = by_rust(&[&stream]);
        let mut client = client.borrow_mut();
        prop_assert_eq!(&client.received(&[&stream]), &expected);
        prop_assert_eq!(&client.received(&stream.chunks(1).collect::<Vec<_>>()), &expected);
        prop_assert_eq!(&client.received(&cut(&stream, &lengths)), &expected);
    });
}
