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
            let before = log.records[log.records.len() - 2].0;
            let id = Hub::member_id(&org("acme"), before);
            assert_eq!(
                ping(&stream),
                Received { text: "ping".into(), id: Some(id) },
                "a window holds a key"
            );
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

/// SCENARIO: an organisation's burst window holds keys nearly all of the time, and a public stream, or one with a
/// filter, is shown none of them.
/// BUG: while it held any, no keepalive had an id, so nearly none had: such a page read everything after each deploy.
/// FIX: a keepalive has the record before the first one of which something is held.
#[test]
fn the_ids_of_quiet_streams_of_a_busy_org_move_on() {
    let mut node = Node::new(HubConfig { coalesce: COALESCE, ..config() });
    let (mut log, step) = (Log::default(), 5);
    let (member, public) = (node.member(None).0, node.open("acme", View::Public, None).0);
    let (mut filtered, _, _) = node.member(None);
    filtered.set_filter(Filter::new(["b"], node.hub.config()).expect("valid"));
    let mut streams = [filtered, public, member];
    let mut last = [0; 3];
    for number in 1..200_u64 {
        log.append(&keys("acme", &["shut"]));
        node.follow(&log);
        node.wait(step);
        for (stream, last) in streams.iter_mut().zip(&mut last) {
            take(stream);
            let id = ping(stream).id.expect("it has all that is not held");
            assert!(id.seq.0 >= *last, "no step back");
            *last = id.seq.0;
            // What has waited for a whole window is not held any more.
            assert!(number - *last <= 50 / step + 1, "{last} at {number}");
        }
    }
    // What is held from here on comes after the ids, also if it is of one record.
    for _ in ["what is held is released, which opens a window", "that closes"] {
        node.wait(200);
    }
    for held in [&["shut"][..], &["open", "b"]] {
        log.append(&keys("acme", held));
        node.follow(&log);
        streams.iter_mut().for_each(|stream| _ = take(stream));
    }
    let ids = streams.each_ref().map(|stream| ping(stream).id);
    node.wait(50);
    for ((mut stream, id), key) in streams.into_iter().zip(ids).zip(["b", "open", "b"]) {
        let (mut again, greeting, _) = node.open("acme", stream.view(), id);
        assert_eq!(greeting, Greeting::Resumed);
        for stream in [&mut stream, &mut again] {
            let received = take(stream);
            assert!(texts(&received).iter().any(|text| text.ends_with(key)), "{received:?}");
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
