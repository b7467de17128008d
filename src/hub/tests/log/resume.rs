//! Which ids resume where, and with what.

use super::*;

/// Ids are of records: what one server gave is understood by another one.
#[test]
fn a_client_resumes_on_another_server_with_what_it_missed() {
    let (mut log, one, other) = (Log::default(), Node::new(config()), Node::new(config()));
    log.append(&keys("acme", &["a"]));
    one.follow(&log);
    let (mut stream, greeting, _) = one.member(None);
    assert_eq!(greeting, Greeting::Connected);
    log.append(&keys("acme", &["b"]));
    log.append(&keys("else", &["x"]));
    one.follow(&log);
    let events = take(&mut stream);
    assert_eq!(texts(&events), ["b"]);
    assert_eq!(events[0].id, Some(Hub::member_id(&org("acme"), log.records[1].0)));
    log.append(&keys("acme", &["c"]));
    log.append(&keys("acme", &["d", "e"]));
    other.follow(&log);
    let (mut stream, greeting, id) = other.member(events[0].id);
    assert_eq!((greeting, Some(id)), (Greeting::Resumed, events[0].id));
    assert_eq!(texts(&take(&mut stream)), ["c", "d e"]);
}

/// SCENARIO: A client resumes on a server that has just begun to follow the log, and is cut off before the events that it
/// missed. BUG: Its greeting had the id of the last event that the server knows before these, which may be none: so it
/// had to re-read when it came back. FIX: It has the id that it came with, which is proven.
#[test]
fn a_client_that_is_cut_off_after_its_greeting_resumes_once_more() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    let idle = log.append("");
    log.append(&keys("acme", &["open1"]));
    log.append(&keys("acme", &["open2"]));
    node.follow(&log);
    for view in [View::Member, View::Public] {
        let came = match view {
            View::Public => idle.id(StreamHash::of_public("acme"), 0),
            _ => Hub::member_id(&org("acme"), idle),
        };
        for _ in 0..3 {
            let (_, greeting, id) = node.open("acme", view, Some(came));
            assert_eq!((greeting, id), (Greeting::Resumed, came));
        }
        let (mut stream, ..) = node.open("acme", view, Some(came));
        assert_eq!(texts(&take(&mut stream)), ["open1", "open2"]);
    }
}

/// The log lost its end, and others got the positions: the tag says so.
#[test]
fn a_position_with_another_tag_is_not_covered() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    log.append(&keys("acme", &["a"]));
    log.append(&keys("acme", &["b"]));
    node.follow(&log);
    let at = |position: usize, tag: u64| {
        let position = position as u64;
        Some(Hub::member_id(&org("acme"), Mark { tag, position }))
    };
    let tag = log.records[0].0.tag;
    assert_eq!(node.member(at(1, tag)).1, Greeting::Resumed);
    assert_eq!(node.member(at(1, tag + 7)).1, Greeting::Connected);
    assert_eq!(node.member(at(2, tag)).1, Greeting::Connected, "that of another position");
    assert_eq!(node.member(at(3, tag)).1, Greeting::Connected, "none has been applied there");
}

/// An event that is kept, and a record of the tail, prove an id; a history that has evicted what followed covers neither.
#[test]
fn an_id_before_what_was_evicted_is_not_covered() {
    let (mut log, mut node) =
        (Log::default(), Node::new(HubConfig { history_events: 2, ..config() }));
    let _stream = node.member(None);
    for key in ["a", "b", "c", "d"] {
        log.append(&keys("acme", &[key]));
    }
    node.follow(&log);
    let resumes = |node: &Node, index: usize| {
        let (mark, _) = log.records[index];
        assert!(node.hub.has_mark(mark), "the tail has all");
        let (mut stream, greeting, _) = node.member(Some(Hub::member_id(&org("acme"), mark)));
        let events: Vec<_> = take(&mut stream).into_iter().map(|event| event.text).collect();
        (greeting == Greeting::Resumed).then(|| events.join(" "))
    };
    assert_eq!(resumes(&node, 0), None);
    assert_eq!(resumes(&node, 1).as_deref(), Some("c d"));
    assert_eq!(resumes(&node, 3).as_deref(), Some(""));
    // Whatever is too old is evicted as well, and a client at the head has missed nothing.
    node.wait(u64::try_from(config().history_age.as_millis()).expect("short") + 1);
    node.hub.driver().tidy(crate::time::Tick(0), node.now);
    (0..64).for_each(|tick| node.hub.driver().tidy(crate::time::Tick(tick), node.now));
    assert_eq!(resumes(&node, 2), None);
    assert_eq!(resumes(&node, 3).as_deref(), Some(""));
}

#[test]
fn an_event_that_is_kept_proves_its_id_when_the_tail_has_gone_on() {
    let (mut log, node) = (Log::default(), Node::with_tail(config(), 600));
    let _stream = node.member(None);
    log.append(&keys("acme", &["a"]));
    log.append(&keys("acme", &["b"]));
    for _ in 0..20 {
        log.append(&keys("else", &["x"]));
    }
    node.follow(&log);
    let mark = log.records[0].0;
    assert!(!node.hub.has_mark(mark));
    let (mut stream, greeting, _) = node.member(Some(Hub::member_id(&org("acme"), mark)));
    assert_eq!(greeting, Greeting::Resumed);
    assert_eq!(texts(&take(&mut stream)), ["b"]);
    let other = Mark { tag: mark.tag + 1, ..mark };
    assert_eq!(node.member(Some(Hub::member_id(&org("acme"), other))).1, Greeting::Connected);
}

/// A record that a foreign publisher appended without a tag, to a broker that gives none.
#[test]
fn an_id_without_a_tag_is_never_covered() {
    let node = Node::new(config());
    let (mut stream, ..) = node.member(None);
    node.apply(Mark { tag: 0, position: 1 }, &keys("acme", &["a"]));
    let events = take(&mut stream);
    assert_eq!(texts(&events), ["a"], "it is delivered");
    assert_eq!(node.member(events[0].id).1, Greeting::Connected);
    let start = Mark { tag: 0, position: 0 };
    assert_eq!(node.member(Some(Hub::member_id(&org("acme"), start))).1, Greeting::Connected);
    assert!(!node.hub.has_mark(start));
    // It takes no client's good id away.
    node.apply(Mark { tag: 5, position: 2 }, "");
    let good = ping(&stream).id;
    assert_eq!(node.member(good).1, Greeting::Resumed);
    node.apply(Mark { tag: 0, position: 3 }, "");
    assert_eq!(ping(&stream).id, None);
}

#[test]
fn an_id_of_another_stream_is_not_covered() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    log.append(&(keys("acme", &["open"]) + &keys("else", &["open"])));
    node.follow(&log);
    let views = [("acme", View::Member), ("acme", View::Public), ("else", View::Member)];
    let ids = views.map(|(name, view)| node.open(name, view, None).2);
    for (index, (name, view)) in views.into_iter().enumerate() {
        for (other, id) in ids.into_iter().enumerate() {
            let resumed = node.open(name, view, Some(id)).1 == Greeting::Resumed;
            assert_eq!(resumed, index == other, "{name} {view:?} with the id of {other}");
        }
    }
}

/// One server made one event of two records, another one has an event for each: more than it missed, and never less.
#[test]
fn a_client_resumes_within_a_union_with_all_of_it() {
    let coalesce = Duration::from_millis(50);
    let (mut log, one) = (Log::default(), Node::new(config()));
    let mut other = Node::new(HubConfig { coalesce, ..config() });
    let (mut stream, ..) = one.member(None);
    let _stream = other.member(None);
    for key in ["a", "b", "c"] {
        log.append(&keys("acme", &[key]));
    }
    one.follow(&log);
    other.follow(&log);
    let ids: Vec<_> = take(&mut stream).into_iter().map(|event| event.id).collect();
    // While the window holds `b c`, a client that lacks them is not given an id from after them.
    let (mut early, greeting, id) = other.member(ids[1]);
    assert_eq!((greeting, Some(id)), (Greeting::Resumed, ids[1]));
    other.wait(50);
    assert_eq!(texts(&take(&mut early)), ["b c"]);
    let (mut late, ..) = other.member(ids[1]);
    assert_eq!(texts(&take(&mut late)), ["b c"]);
    let (mut after, greeting, _) = other.member(ids[2]);
    assert_eq!((greeting, take(&mut after).len()), (Greeting::Resumed, 0));
}

/// Of a public client it matters what the public sees.
#[test]
fn a_public_client_resumes_on_another_server() {
    let (mut log, one, other) = (Log::default(), Node::new(config()), Node::new(config()));
    let (mut stream, ..) = one.open("acme", View::Public, None);
    for key in ["open1", "shut", "open2"] {
        log.append(&keys("acme", &[key]));
    }
    one.follow(&log);
    let events = take(&mut stream);
    assert_eq!(texts(&events), ["open1", "open2"]);
    other.follow(&log);
    let (mut stream, greeting, _) = other.open("acme", View::Public, events[0].id);
    assert_eq!(greeting, Greeting::Resumed);
    assert_eq!(texts(&take(&mut stream)), ["open2"]);
}

/// The position of a page is that of the log, so that its stream resumes on any server however quiet the org is.
#[test]
fn a_position_is_that_of_the_log() {
    let (mut log, one, other) = (Log::default(), Node::new(config()), Node::new(config()));
    log.append(&keys("acme", &["open"]));
    let mark = log.append(&keys("else", &["x"]));
    one.follow(&log);
    let positions = one.hub.position(&org("acme"), one.now);
    assert_eq!(positions.member.id, Hub::member_id(&org("acme"), mark));
    log.append(&keys("acme", &["open"]));
    other.follow(&log);
    let public = positions.public.expect("it has a public view").id;
    for (view, id) in [(View::Member, positions.member.id), (View::Public, public)] {
        let (mut stream, greeting, _) = other.open("acme", view, Some(id));
        assert_eq!(greeting, Greeting::Resumed);
        assert_eq!(texts(&take(&mut stream)), ["open"]);
    }
}
