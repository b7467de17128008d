//! Keepalives move the ids of idle clients on, and give none to a client that lacks something.

use super::*;
use crate::hub::Filter;
use crate::wire::Keepalive;

const COALESCE: Duration = Duration::from_millis(50);

/// What an idle client's id would otherwise not survive: other orgs fill the tail twice, and the org is quiet.
#[test]
fn an_idle_client_resumes_on_another_server_after_the_tail_was_filled_twice() {
    let (mut log, one, other) =
        (Log::default(), Node::with_tail(config(), 2_000), Node::with_tail(config(), 2_000));
    log.append(&keys("acme", &["a"]));
    one.follow(&log);
    other.follow(&log);
    let (stream, _, first) = one.member(None);
    for _ in 0..100 {
        log.append(&keys("else", &["x"]));
    }
    one.follow(&log);
    other.follow(&log);
    let ping = ping(&stream);
    let (mark, _) = log.records[100];
    assert_eq!((ping.text.as_str(), ping.id), ("ping", Some(Hub::member_id(&org("acme"), mark))));
    drop(other.member(None));
    assert_eq!(other.member(Some(first)).1, Greeting::Connected, "it would not resume");
    assert_eq!(other.member(ping.id).1, Greeting::Resumed);
}

/// Whatever the client asked for, where it has nothing to say the keepalive stays what it is without a log.
#[test]
fn a_client_that_lacks_something_gets_no_id() {
    for filter in [None, Some("b")] {
        let mut node = Node::new(HubConfig { coalesce: COALESCE, ..config() });
        let mut log = Log::default();
        let (mut stream, ..) = node.member(None);
        if let Some(only) = filter {
            stream.set_filter(Filter::new([only], node.hub.config()).expect("valid"));
        }
        for (keepalive, text) in [(Keepalive::Comment, "comment"), (Keepalive::Event, "ping")] {
            stream.set_keepalive(keepalive);
            let without = Received { text: text.into(), id: None };
            assert!(ping(&stream).id.is_some() || log.records.is_empty());
            log.append(&keys("acme", &["b"]));
            node.follow(&log);
            assert_eq!(ping(&stream), without, "behind the head");
            take(&mut stream);
            assert!(ping(&stream).id.is_some());
            log.append(&keys("acme", &["b"]));
            node.follow(&log);
            assert_eq!(ping(&stream), without, "a window holds a key");
            node.wait(50);
            take(&mut stream);
            assert!(ping(&stream).id.is_some());
            log.append(&reread("acme"));
            node.follow(&log);
            assert_eq!(ping(&stream), without, "it has still to re-read");
            node.wait(WINDOW);
            assert_eq!(texts(&take(&mut stream)), ["connected"]);
            assert!(ping(&stream).id.is_some());
            node.wait(50);
        }
    }
}

/// Before the first record there is no id that resumes.
#[test]
fn there_is_no_id_before_the_first_record() {
    let node = Node::new(config());
    let (stream, _, id) = node.member(None);
    assert_eq!(ping(&stream).text, "comment");
    assert_eq!(node.member(Some(id)).1, Greeting::Connected);
}

/// All streams of a feed share one frame for a record.
#[test]
fn the_keepalive_is_encoded_once_for_a_record() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    let streams = [node.member(None).0, node.member(None).0];
    log.append("");
    node.follow(&log);
    let pointer = |stream: &Subscription| stream.keepalive_frame().chunked().as_ptr();
    let [one, other] = &streams;
    assert_eq!(pointer(one), pointer(other));
    let id = ping(one).id;
    log.append("");
    node.follow(&log);
    assert_ne!(ping(other).id, id);
    assert_eq!(pointer(one), pointer(other));
}

/// Without a log the keepalive is the comment that it always was.
#[test]
fn without_a_log_it_has_no_id() {
    let hub = Hub::new(config());
    let (stream, _) = hub.subscribe(&org("acme"), View::Member, None, Time(0)).expect("open");
    assert_eq!(stream.keepalive_frame().payload(), Keepalive::Comment.frame().payload());
}
