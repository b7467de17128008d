//! How streams begin, counted as their clients read it.

use std::collections::BTreeMap;

use super::metrics;
use crate::support::topic::{RUN, numbered, publish};
use crate::support::{Server, Transport};

const MEMBER: &str = "/api/acme/events";
const PUBLIC: &str = "/api/acme/public/events";

/// Opens a stream of each kind with these ids, and counts how they begin.
#[derive(Debug, Default, PartialEq)]
struct Greetings(BTreeMap<&'static str, f64>);

// ===== impl Greetings =====

impl Greetings {
    /// Opens a stream, reads how it begins, and returns its id.
    fn open(&mut self, server: &Server, path: &str, last: Option<&str>) -> String {
        let header = last.map(|id| format!("last-event-id: {id}\r\n"));
        let mut stream = server.stream_with(path, &header.unwrap_or_default());
        let (_, id, name) = stream.greeting();
        let kind = match (name.as_str(), last) {
            ("connected", None) => "new",
            ("connected", Some(_)) => "reread",
            ("resumed", Some(_)) => "resumed",
            other => panic!("{other:?}"),
        };
        *self.0.entry(kind).or_default() += 1.0;
        id
    }

    /// Those that the server has counted.
    fn counted(server: &Server) -> Self {
        let metrics = metrics(server);
        let kinds = ["new", "reread", "resumed"];
        let counted = |kind| metrics.samples[&format!("nudged_greetings_total{{kind=\"{kind}\"}}")];
        Self(kinds.into_iter().map(|kind| (kind, counted(kind))).collect())
    }
}

#[test]
fn greetings_are_counted_as_clients_read_them() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--coalesce", "0"]);
        let mut read = Greetings::default();
        publish(&server, RUN, &numbered(1));
        for path in [MEMBER, PUBLIC, RUN] {
            let id = read.open(&server, path, None);
            read.open(&server, path, None);
            read.open(&server, path, Some(&id));
            // Of another server, and of another program.
            read.open(&server, path, Some("0123456789abcdef-7"));
            read.open(&server, path, Some("urn:uuid:0"));
            assert_eq!(read, Greetings::counted(&server), "{path} {transport:?}");
            // In the URL, as pages have it; the empty field of some clients is none.
            let url = |id: &str| format!("{path}?last_event_id={id}");
            assert_eq!(read.open(&server, &url(""), None), id);
            let before = read.0["resumed"];
            read.open(&server, &url(&id), Some(" "));
            assert_eq!(read.0["resumed"], before + 1.0);
            assert_eq!(read, Greetings::counted(&server), "{path} {transport:?}");
        }
        assert_eq!(read.0.values().sum::<f64>(), 21.0);
        assert_eq!(metrics(&server).samples["nudged_streams_opened_total"], 21.0);
    }
}

/// Where a topic begins is no id, but for that of an event.
#[test]
fn a_topic_that_is_read_from_its_begin_is_new() {
    let server = Server::start(&["--workers", "1"]);
    let first = publish(&server, RUN, &numbered(1));
    for since in ["all", "now", "0", "nonsense"] {
        server.stream_with(&format!("{RUN}?since={since}"), "").connected();
    }
    let mut stream = server.stream_with(&format!("{RUN}?since={first}"), "");
    assert_eq!(stream.greeting().2, "resumed");
    let expected = [("new", 4.0), ("reread", 0.0), ("resumed", 1.0)];
    assert_eq!(Greetings::counted(&server), Greetings(expected.into()));
}

/// A client that has gone before its stream began, and a request without one, are greeted by nothing.
#[test]
fn what_opens_no_stream_is_no_greeting() {
    let server = Server::start(&["--workers", "1", "--streams", "1"]);
    let request = |line: &str| server.request(&format!("{line} HTTP/1.1\r\nhost: test\r\n\r\n"));
    assert_eq!(request("HEAD /api/acme/events").status(), 200);
    let open = server.streams("acme", 1);
    assert_eq!(request("GET /api/acme/events").status(), 503);
    assert_eq!(request("GET /api/acme/events?keys=").status(), 400);
    let expected = [("new", 1.0), ("reread", 0.0), ("resumed", 0.0)];
    assert_eq!(Greetings::counted(&server), Greetings(expected.into()));
    drop(open);
}
