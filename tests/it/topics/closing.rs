//! The end of a topic, and keepalives of its streams.

use super::{JSON, RUN, before, close, close_with, expect_end, numbered, numbered_frame, publish};
use crate::bytes::Way;
use crate::support::eventually;

#[test]
fn a_topic_that_is_closed_ends_its_streams_with_the_reason() {
    for way in Way::all() {
        let server = way.start(&[]);
        let first = publish(&server, RUN, &numbered(1));
        let mut streams = [RUN, RUN].map(|path| way.open(&server, path));
        for stream in &mut streams {
            stream.connected();
            assert_eq!(stream.next(), numbered_frame(&first, 1), "{way:?}");
        }
        assert_eq!(close(&server, RUN, r#"{"reason":"done é\n"}"#), 2, "{way:?}");
        for mut stream in streams {
            let id = crate::support::after(&first, 1);
            let data = r#"{"reason":"done \u00e9\n"}"#;
            assert_eq!(stream.next(), format!("id: {id}\nevent: closed\ndata: {data}\n\n"));
            expect_end(&mut stream);
        }
        eventually("the ends are counted", || server.closed().get("closed") == Some(&2));
        assert_eq!(server.closed().len(), 1, "{way:?}");
        assert_eq!(server.seats(), 0);

        // What was kept is gone, and what comes has ids of a new epoch.
        let mut stream = way.open(&server, RUN);
        let id = stream.connected();
        assert!(stream.client.is_silent());
        let second = publish(&server, RUN, &numbered(2));
        assert_eq!(before(&second), id, "{way:?}");
        assert_ne!(second.split_once('-').map(|id| id.0), first.split_once('-').map(|id| id.0));
        assert_eq!(stream.next(), numbered_frame(&second, 2), "{way:?}");
    }
}

#[test]
fn a_stream_that_comes_too_late_for_the_end_begins_anew() {
    for way in Way::all() {
        let server = way.start(&[]);
        let first = publish(&server, RUN, &numbered(1));
        assert_eq!(close(&server, RUN, ""), 0, "{way:?}");
        let mut stream = way.open(&server, &format!("{RUN}?last_event_id={first}"));
        stream.connected();
        assert!(stream.client.is_silent());
    }
}

#[test]
fn a_reason_need_not_be_given_and_a_topic_need_not_exist() {
    for way in Way::all() {
        let server = way.start(&[]);
        assert_eq!(close(&server, "/api/acme/topics/unknown/events", r#"{"reason":"x"}"#), 0);
        assert_eq!(close(&server, "/api/unknown/topics/unknown/events", ""), 0);
        let long = format!(r#"{{"reason":"{}"}}"#, "é".repeat(128));
        for (body, reason) in [("", "closed"), ("{}", "closed"), (&long, &"\\u00e9".repeat(128))] {
            let mut stream = way.open(&server, RUN);
            stream.connected();
            assert_eq!(close(&server, RUN, body), 1);
            let ends = format!("\nevent: closed\ndata: {{\"reason\":\"{reason}\"}}\n\n");
            let last = stream.next();
            assert!(last.ends_with(&ends), "{way:?}: {last}");
            expect_end(&mut stream);
        }
    }
}

#[test]
fn another_body_closes_nothing() {
    for way in Way::all() {
        let server = way.start(&[]);
        let mut stream = way.open(&server, RUN);
        stream.connected();
        let long = format!(r#"{{"reason":"{}"}}"#, "é".repeat(129));
        for (body, status, detail) in [
            (&*long, 422, "the reason has 258 bytes; at most 256 are allowed"),
            (r#"{"reason":1}"#, 400, r#"expected a document like {"reason":"done"}"#),
            (r#"{"reason":null}"#, 400, "expected a string"),
            (r#"{"why":"done"}"#, 400, "unknown field `why`, expected `reason`"),
            (r#"{"reason":"a","reason":"b"}"#, 400, "duplicate field `reason`"),
            (r#"["done"]"#, 400, "this is an array"),
            ("done", 400, "or an empty body"),
        ] {
            let answer = close_with(&server, RUN, body);
            assert_eq!(answer.status(), status, "{body}: {answer:?}");
            assert!(answer.problem().contains(detail), "{body}: {answer:?}");
        }
        let typed = server.request(&format!(
            "DELETE {RUN} HTTP/1.1\r\nhost: t\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
        assert_eq!((typed.status(), typed.problem().contains(JSON)), (415, true));
        let id = publish(&server, RUN, &numbered(1));
        assert_eq!(stream.next(), numbered_frame(&id, 1), "{way:?}: it goes on");
    }
}

#[test]
fn a_stream_of_a_topic_is_kept_open_by_comments_or_events() {
    for way in Way::all() {
        let server = way.start(&["--keepalive", "1s"]);
        for (query, expected) in
            [("", ": keepalive\n"), ("?ping=event", "event: ping\ndata: {}\n\n")]
        {
            let mut stream = way.open(&server, &format!("{RUN}{query}"));
            stream.connected();
            for _ in 0..2 {
                assert_eq!(stream.next(), expected, "{way:?}");
            }
        }
    }
}

/// A command to the streams of an org is about invalidations, and so are positions.
#[test]
fn commands_to_an_org_leave_its_topics_alone() {
    for way in Way::all() {
        let server = way.start(&["--reread-window", "0"]);
        let mut stream = way.open(&server, RUN);
        stream.connected();
        let first = publish(&server, RUN, &numbered(1));
        assert_eq!(stream.next(), numbered_frame(&first, 1));
        for request in ["DELETE /api/acme/events", "POST /api/acme/reread", "POST /api/reread"] {
            let answer = server.request(&format!("{request} HTTP/1.1\r\nhost: t\r\n\r\n"));
            let expected = (202, r#"{"streams":0}"#);
            assert_eq!((answer.status(), &*answer.body), expected, "{way:?} {request}");
        }
        let position = server.get("/api/acme/position").body;
        assert_eq!(position.matches("\"streams\":0").count(), 2, "{way:?} {position}");
        assert!(!position.contains(first.split_once('-').expect("an id").0), "{position}");
        let id = publish(&server, RUN, &numbered(2));
        assert_eq!(id, crate::support::after(&first, 1), "{way:?}: of the same epoch");
        assert_eq!(stream.next(), numbered_frame(&id, 2), "{way:?}");
        // What was received before is no reason to read everything again.
        let mut back = way.open(&server, &format!("{RUN}?last_event_id={first}"));
        assert_eq!(back.greeting().2, "resumed", "{way:?}");
        assert_eq!(back.next(), numbered_frame(&id, 2), "{way:?}");
    }
}
