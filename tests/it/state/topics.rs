//! What topics keep over a restart.

use super::{Place, reconnect, resumed, stop};
use crate::support::topic::{RUN, publish};
use crate::support::{Server, Stream, after};

/// Publishes an event and returns its id.
fn publish_one(server: &Server, n: u64, bulk: bool) -> String {
    let body = format!(r#"{{"event":"output","data":{n},"bulk":{bulk}}}"#);
    publish(server, RUN, &body)
}

fn expect(stream: &mut Stream, id: &str, n: u64) {
    assert_eq!(stream.next(), format!("id: {id}\nevent: output\ndata: {n}\n\n"));
}

/// The name and the id of a stream's greeting, and the events that follow it up to the one with this id.
fn content(mut stream: Stream, last: &str) -> Vec<String> {
    let (_, id, name) = stream.greeting();
    let mut content = vec![name, id];
    while !content.last().is_some_and(|event| event.starts_with(&format!("id: {last}\n"))) {
        content.push(stream.next());
    }
    assert!(stream.client.is_silent());
    content
}

/// Of the bulk events only the last two are kept, so that there are holes between the others.
#[test]
fn a_topic_is_the_same_after_a_restart() {
    let place = Place::new();
    let flags = ["--topic-events", "2"];
    let server = place.start(&flags);
    let bulk = [true, false, true, true, true, false, true];
    let ids: Vec<_> = (1..).zip(bulk).map(|(n, bulk)| publish_one(&server, n, bulk)).collect();
    let last = ids.last().expect("one");
    // From the start, from each id, and from before all of them.
    let positions = |server: &Server| -> Vec<Vec<String>> {
        let from = |id: &String| content(reconnect(server, RUN, id), last);
        let all = content(server.stream_with(RUN, ""), last);
        ids[..ids.len() - 1].iter().map(from).chain([all]).collect()
    };
    let before = positions(&server);
    assert_eq!(before.last().map(Vec::len), Some(2 + 4), "two of each class are kept");
    stop(server);

    let server = place.start(&flags);
    assert_eq!(positions(&server), before);
    let mut stream = resumed(&server, RUN, last);
    let live = publish_one(&server, 8, false);
    assert_eq!(live, after(last, 1), "the ids go on");
    expect(&mut stream, &live, 8);
    // Another event that is not bulk has made the oldest one give way.
    let mut whole = server.stream_with(RUN, "");
    whole.connected();
    for n in [5, 6, 7, 8] {
        expect(&mut whole, &after(&ids[0], n - 1), n);
    }
}

/// Its drain ends the stream, and the client comes back to the next server.
#[test]
fn a_topics_client_resumes_from_restart_to_restart() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let mut stream = server.stream_with(RUN, "");
    let start = stream.connected();
    for n in 1..=5 {
        let live = publish_one(&server, n, n % 2 == 0);
        expect(&mut stream, &live, n);
        server.signal(crate::support::server::Signal::TERM);
        stream.farewell();
        assert_eq!(server.wait(), Some(0));
        server = place.start(&[]);
        stream = resumed(&server, RUN, &live);
    }
    assert!(stream.client.is_silent());
    assert_eq!(publish_one(&server, 6, false), after(&start, 6));
}

/// SCENARIO: a topic is closed, and the server restarts.
/// BUG: it would be there again, with what it kept.
/// FIX: what is closed is not part of the state.
#[test]
fn a_closed_topic_stays_closed() {
    let place = Place::new();
    let server = place.start(&[]);
    let id = publish_one(&server, 1, false);
    let close = format!("DELETE {RUN} HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(server.request(&close).status(), 202);
    stop(server);
    let server = place.start(&[]);
    let connected = reconnect(&server, RUN, &id).connected();
    assert_ne!(connected, id);
}
