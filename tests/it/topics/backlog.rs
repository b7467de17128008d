//! What a stream begins with: everything that its topic keeps, or what its client has missed.

use super::{NDJSON, RUN, before, numbered_frame, publish, publish_some};
use crate::bytes::Way;
use crate::support::{Stream, Transport};

/// Reads the greeting, whose bytes are checked, and returns its id.
fn greeting(stream: &mut Stream, name: &str) -> String {
    let (_, id, greeted) = stream.greeting();
    assert_eq!(greeted, name);
    id
}

#[test]
fn a_stream_begins_with_all_that_is_kept_and_goes_on_with_what_comes() {
    for way in Way::all() {
        let server = way.start(&[]);
        let events = [
            (r#"{"event":"output","data":{"n":1}}"#, "event: output\ndata: {\"n\":1}\n"),
            // JSON as it came, on one line of ASCII.
            (
                "{\"event\":\"status\",\"data\":[ 1.0,\r\n\t\"\u{e9}\\n\u{2028}\" ],\"bulk\":true}",
                "event: status\ndata: [ 1.0,\t\"\\u00e9\\n\\u2028\" ]\n",
            ),
            (r#"{"event":"a.b:c_d-E9","data":null}"#, "event: a.b:c_d-E9\ndata: null\n"),
            // Text as lines, in UTF-8.
            (
                r#"{"event":"html","text":"<p>\r\né</p>\r\n"}"#,
                "event: html\ndata: <p>\ndata: é</p>\ndata: \n",
            ),
            (r#"{"event":"empty","text":"","bulk":false}"#, "event: empty\ndata: \n"),
        ];
        let ids = events.map(|(body, _)| publish(&server, RUN, body));
        let mut stream = way.open(&server, RUN);
        assert_eq!(greeting(&mut stream, "connected"), before(&ids[0]), "{way:?}");
        for (id, (_, frame)) in ids.iter().zip(events) {
            assert_eq!(stream.next(), format!("id: {id}\n{frame}\n"), "{way:?}");
        }
        let live = publish(&server, RUN, r#"{"event":"live","data":{}}"#);
        assert_eq!(stream.next(), format!("id: {live}\nevent: live\ndata: {{}}\n\n"), "{way:?}");
        assert_eq!(live, crate::support::after(&ids[0], 5));
        assert!(stream.client.is_silent());
    }
}

#[test]
fn each_topic_and_each_org_has_events_of_its_own() {
    let server = crate::support::Server::start(&["--coalesce", "0"]);
    let paths = [
        RUN,
        "/api/acme/topics/run-8/events",
        "/api/other/topics/run-7/events",
        // Names of routes are names of topics too.
        "/api/acme/topics/events/events",
    ];
    let ids = paths.map(|path| publish(&server, path, r#"{"event":"at","text":"x"}"#));
    for (path, id) in paths.into_iter().zip(&ids) {
        let mut stream = server.stream_with(path, "");
        assert_eq!(stream.connected(), before(id));
        assert_eq!(stream.next(), format!("id: {id}\nevent: at\ndata: x\n\n"));
        assert!(stream.client.is_silent(), "{path}");
    }
    // Invalidations and topics do not see each other.
    let mut org = server.stream("acme");
    org.connected();
    let invalidated = server.publish("acme", &["posts"]).expect("subscribed");
    org.expect_invalidate(&invalidated, &["posts"]);
    assert!(org.client.is_silent());
}

#[test]
fn a_client_that_comes_back_gets_what_it_missed() {
    for way in Way::all() {
        let server = way.start(&[]);
        let ids = publish_some(&server, RUN, 4);
        for (missed, id) in [(3, &ids[0]), (1, &ids[2]), (0, &ids[3]), (4, &before(&ids[0]))] {
            let mut stream = way.open(&server, &format!("{RUN}?last_event_id={id}&since=all"));
            assert_eq!(&greeting(&mut stream, "resumed"), id, "{way:?}");
            for n in 5 - missed..=4 {
                assert_eq!(stream.next(), numbered_frame(&ids[n - 1], n as u64), "{way:?}");
            }
            assert!(stream.client.is_silent());
        }
        // An id that is not covered, here that of another topic, is a gap: what is kept follows.
        let other = publish(&server, "/api/acme/topics/b/events", r#"{"event":"x","data":1}"#);
        for id in [&*other, "x", "0123456789abcdef-1"] {
            let mut stream = way.open(&server, &format!("{RUN}?lastEventId={id}"));
            assert_eq!(greeting(&mut stream, "connected"), before(&ids[0]), "{way:?} {id}");
            for (id, n) in ids.iter().zip(1..) {
                assert_eq!(stream.next(), numbered_frame(id, n), "{way:?}");
            }
        }
    }
}

#[test]
fn the_field_of_the_last_id_precedes_the_url() {
    for transport in Transport::all() {
        let server = crate::support::Server::start_on(transport, &[]);
        let ids = publish_some(&server, RUN, 3);
        let path = format!("{RUN}?since=now&last_event_id={}", ids[0]);
        let mut stream = server.stream_with(&path, &format!("last-event-id: {}\r\n", ids[1]));
        assert_eq!(greeting(&mut stream, "resumed"), ids[1], "{transport:?}");
        assert_eq!(stream.next(), numbered_frame(&ids[2], 3));
    }
}

#[test]
fn lines_publish_keys_and_events_in_their_order() {
    for way in Way::all() {
        let server = way.start(&["--coalesce", "0"]);
        let mut org = way.open(&server, "/api/acme/events");
        org.connected();
        let lines = [
            r#"{"org":"acme","keys":["a"]}"#,
            r#"{"org":"acme","topic":"run-7","event":"output","data":{"n":1}}"#,
            "",
            r#"{"org":"other","topic":"run-7","event":"output","text":"o","bulk":true}"#,
            r#"{"text":"2","event":"output","topic":"run-7","org":"acme"}"#,
            r#"{"org":"acme","keys":["b"]}"#,
        ];
        let answer = server.post("/api/events", NDJSON, &lines.join("\n"));
        assert_eq!((answer.status(), &*answer.body), (202, r#"{"published":5}"#), "{way:?}");
        assert!(org.next().ends_with("data: {\"keys\":[\"a\"]}\n\n"));
        assert!(org.next().ends_with("data: {\"keys\":[\"b\"]}\n\n"));
        let mut stream = way.open(&server, RUN);
        let id = stream.connected();
        let id = |count| crate::support::after(&id, count);
        assert_eq!(stream.next(), numbered_frame(&id(1), 1), "{way:?}");
        let second = format!("id: {}\nevent: output\ndata: 2\n\n", id(2));
        assert_eq!(stream.next(), second, "{way:?}");
        let mut other = way.open(&server, "/api/other/topics/run-7/events");
        other.connected();
        assert!(other.next().ends_with("event: output\ndata: o\n\n"), "{way:?}");
    }
}
