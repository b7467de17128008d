//! The cases of web-platform-tests' `eventsource/format-*`: one test for each, under its name in that suite. The
//! suite runs in a browser against a server; here our parser reads the streams, whole, in pieces of one and two
//! bytes, and split at every byte. So does that of the browser client, in `tests/browser/parser.rs`.

use super::by_ours;
use super::readers::Received;

fn received(stream: impl AsRef<[u8]>) -> Received {
    let stream = stream.as_ref();
    let received = by_ours([stream]);
    for piece_len in [1, 2] {
        assert_eq!(by_ours(stream.chunks(piece_len)), received, "in pieces of {piece_len}");
    }
    for at in 0..=stream.len() {
        assert_eq!(by_ours([&stream[..at], &stream[at..]]), received, "cut at {at}");
    }
    received
}

/// The data of the events, all of them of type `message`.
fn messages(stream: impl AsRef<[u8]>) -> Vec<String> {
    let only_message = |[name, data, _]: [String; 3]| {
        assert_eq!(name, "message");
        data
    };
    received(stream).events.into_iter().map(only_message).collect()
}

/// Data and `lastEventId` of the events.
fn ids(stream: impl AsRef<[u8]>) -> Vec<(String, String)> {
    received(stream).events.into_iter().map(|[_, data, id]| (data, id)).collect()
}

fn pairs<const N: usize>(of: [(&str, &str); N]) -> Vec<(String, String)> {
    of.map(|(a, b)| (a.to_owned(), b.to_owned())).into()
}

#[test]
fn format_bom() {
    let stream = "\u{feff}data:first\n\n\u{feff}data:unknown field\n\ndata:last\n\n";
    assert_eq!(messages(stream), ["first", "last"]);
}

#[test]
fn format_bom_2() {
    // Only one is removed; the other becomes part of a field's name.
    assert_eq!(messages("\u{feff}\u{feff}data:a\n\ndata:b\n\n"), ["b"]);
}

#[test]
fn format_comments() {
    let long = "long ".repeat(500);
    let stream =
        format!("data:a\r:\0\n:\r\ndata:b\n:{long}\rdata:c\n:data:no\r:{long}\ndata:d\n\n");
    assert_eq!(messages(stream), ["a\nb\nc\nd"]);
}

#[test]
fn format_data_before_final_empty_line() {
    let received = received("retry:900\ndata:whole\n\nid:lost\ndata:cut off");
    assert_eq!(received.events, [["message", "whole", ""]]);
    assert_eq!((received.last_event_id.as_str(), received.retry_ms), ("", Some(900)));
    // Even if only the empty line is missing.
    assert_eq!(by_ours([&b"id:lost\ndata:cut off\n"[..]]).last_event_id, "");
}

#[test]
fn format_field_data() {
    assert_eq!(messages("data:\n\ndata\ndata\n\ndata:x\n\n"), ["", "\n", "x"]);
}

#[test]
fn format_field_event() {
    let events =
        received("event:named\ndata:a\n\ndata:b\n\nevent:without data\n\ndata:c\n\n").events;
    let names: Vec<_> =
        events.iter().map(|[name, data, _]| (name.as_str(), data.as_str())).collect();
    assert_eq!(names, [("named", "a"), ("message", "b"), ("message", "c")]);
}

#[test]
fn format_field_event_empty() {
    assert_eq!(messages("event: \ndata:a\n\nevent:x\nevent\ndata:b\n\n"), ["a", "b"]);
}

#[test]
fn format_field_id() {
    let received = received("id: \u{2026}\ndata:a\n\n");
    assert_eq!(received.events[0][2], "\u{2026}");
    assert_eq!(received.last_event_id, "\u{2026}", "for the next connection");
}

#[test]
fn format_field_id_2() {
    let stream = "id:\u{2026}\ndata:a\n\ndata:b\n\ndata:c\n\n";
    assert_eq!(ids(stream), pairs([("a", "\u{2026}"), ("b", "\u{2026}"), ("c", "\u{2026}")]));
}

#[test]
fn format_field_id_3() {
    let persists = "id:1\ndata:a\n\ndata:b\n\ndata:c\nid:2\n\ndata:d\n\n";
    assert_eq!(ids(persists), pairs([("a", "1"), ("b", "1"), ("c", "2"), ("d", "2")]));
    for reset in ["id:", "id: ", "id"] {
        let stream = format!("id:1\ndata:a\n\n{reset}\ndata:b\n\ndata:c\n\n");
        assert_eq!(ids(stream), pairs([("a", "1"), ("b", ""), ("c", "")]), "{reset:?}");
    }
    // An id without data counts too.
    assert_eq!(ids("id:9\n\ndata:a\n\n"), pairs([("a", "9")]));
}

#[test]
fn format_field_id_null() {
    for id in ["\0\0", "x\0", "\0x", "x\0x", " \0"] {
        assert_eq!(ids(format!("id:{id}\ndata:a\n\n")), pairs([("a", "")]), "{id:?}");
        assert_eq!(ids(format!("id:1\nid:{id}\ndata:a\n\n")), pairs([("a", "1")]), "{id:?}");
    }
}

#[test]
fn format_field_parsing() {
    let stream = "data:\0\ndata:  a\rData:no\ndata\0:no\ndata:b\r\0data:no\nda-ta:no\rdata_c\n\
                  data:d\rdata:\r\n data:no\ndata:e\n\n";
    assert_eq!(messages(stream), ["\0\n a\nb\nd\n\ne"]);
}

#[test]
fn format_field_retry() {
    assert_eq!(received("retry:04000\ndata:x\n\n").retry_ms, Some(4000), "decimal");
    assert_eq!(
        received("retry: 1000\nretry: 2000\n").retry_ms,
        Some(2000),
        "at once, before the end of the event"
    );
}

#[test]
fn format_field_retry_bogus() {
    for bogus in ["1000x", "-1", "+1", "1.5", "1 ", " 1", "0x10", "\u{661}", "1e3"] {
        let stream = format!("retry:4000\nretry: {bogus}\ndata:x\n\n");
        assert_eq!(received(stream).retry_ms, Some(4000), "{bogus:?}");
    }
}

#[test]
fn format_field_retry_empty() {
    for empty in ["retry", "retry:", "retry: "] {
        let received = received(format!("retry:700\n{empty}\ndata:x\n\n"));
        assert_eq!((received.retry_ms, received.events.len()), (Some(700), 1), "{empty:?}");
    }
}

#[test]
fn format_field_unknown() {
    let stream = "data:a\n data\ndata\nother:x\nno colon\n:a comment\ndata:b\n\n";
    assert_eq!(messages(stream), ["a\n\nb"]);
}

#[test]
fn format_leading_space() {
    assert_eq!(messages("data:\ta\rdata: \ndata:b\rdata:  c\n\n"), ["\ta\n\nb\n c"]);
}

#[test]
fn format_newlines() {
    assert_eq!(messages("data:a\r\ndata\ndata:b\r\n\r"), ["a\n\nb"]);
    assert_eq!(messages("data:a\r\rdata:b\n\ndata:c\r\n\r\ndata:d\n\r"), ["a", "b", "c", "d"]);
}

#[test]
fn format_null_character() {
    assert_eq!(messages("data:\0\n\n\n\n"), ["\0"]);
}

#[test]
fn format_utf_8() {
    assert_eq!(messages("data:ok\u{2026}\n\n"), ["ok\u{2026}"]);
    // One replacement character for each maximal part of a broken character (WHATWG Encoding, 4.1).
    let broken = b"data:\xe2\x80\ndata:\xf0\x9f\x98x\ndata:\xff\xc3\n\n";
    assert_eq!(messages(broken), ["\u{fffd}\n\u{fffd}x\n\u{fffd}\u{fffd}"]);
}
