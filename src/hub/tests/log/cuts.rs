//! What was before a cut is unknown.

use super::*;

/// The next record after a cut, whose positions may be lower than those from before.
fn barrier(position: u64) -> Mark {
    Mark { tag: 0xba_0000 + position, position }
}

#[test]
fn after_a_cut_every_client_re_reads_and_no_id_from_before_resumes() {
    let (mut log, mut node) = (Log::default(), Node::new(config()));
    let mut streams: Vec<_> =
        (0..20).map(|n| node.open(["acme", "else"][n % 2], View::Member, None).0).collect();
    for _ in 0..9 {
        log.append(&(keys("acme", &["a"]) + &keys("else", &["a"])));
    }
    node.follow(&log);
    streams.iter_mut().for_each(|stream| _ = take(stream));
    let before: Vec<_> = log.records.iter().map(|(mark, _)| *mark).collect();
    assert_eq!(node.hub.cut(barrier(4), node.now), 20);
    assert!(node.hub.applied().is_some_and(|mark| mark.is(barrier(4))));
    assert!(node.hub.has_mark(barrier(4)));
    let resumes = |node: &Node, mark| {
        node.member(Some(Hub::member_id(&org("acme"), mark))).1 == Greeting::Resumed
    };
    for mark in &before {
        assert!(!node.hub.has_mark(*mark) && !resumes(&node, *mark));
    }
    assert!(resumes(&node, barrier(4)));
    // Until its turn a stream goes on, with ids that resume nowhere and without keepalives that have one.
    node.apply(Mark { tag: 5, position: 5 }, &keys("acme", &["b"]));
    let events = take(&mut streams[0]);
    assert_eq!(texts(&events), ["b"]);
    assert_eq!(node.member(events[0].id).1, Greeting::Connected);
    assert_eq!(ping(&streams[0]).id, None);
    streams.iter_mut().for_each(|stream| _ = take(stream));
    let mut connected = Vec::new();
    for _ in 0..4 {
        node.wait(WINDOW / 4);
        let turns = streams.iter_mut().map(take).filter(|events| !events.is_empty());
        let turns: Vec<_> = turns.collect();
        assert!(turns.iter().all(|events| texts(events) == ["connected"]), "{turns:?}");
        connected.push(turns.len());
    }
    assert_eq!(connected.iter().sum::<usize>(), 20);
    assert!(connected.iter().all(|turns| (3..=7).contains(turns)), "evenly: {connected:?}");
    assert!(resumes(&node, Mark { tag: 5, position: 5 }));
    assert_eq!(
        ping(&streams[0]).id,
        Some(Hub::member_id(&org("acme"), Mark { tag: 5, position: 5 }))
    );
}

/// A window holds keys of the log from before, whose positions were higher.
#[test]
fn a_cut_releases_what_a_window_holds() {
    let coalesce = Duration::from_millis(50);
    let (mut log, mut node) = (Log::default(), Node::new(HubConfig { coalesce, ..config() }));
    let (mut stream, ..) = node.member(None);
    log.append("");
    log.append(&keys("acme", &["a"]));
    log.append(&keys("acme", &["held"]));
    node.follow(&log);
    node.hub.cut(barrier(1), node.now);
    node.apply(Mark { tag: 7, position: 2 }, &keys("acme", &["new"]));
    let events = take(&mut stream);
    assert_eq!(texts(&events), ["a", "held"]);
    node.wait(50);
    let mut new = take(&mut stream);
    assert_eq!(new[0].text, "new");
    new.extend({
        node.wait(WINDOW);
        take(&mut stream)
    });
    assert_eq!(texts(&new), ["new", "connected"]);
    for event in events.iter().chain(&new[..1]) {
        assert_eq!(node.member(event.id).1, Greeting::Connected, "{event:?}");
    }
    let resumed = node.member(Some(Hub::member_id(&org("acme"), Mark { tag: 7, position: 2 })));
    assert_eq!(resumed.1, Greeting::Resumed);
}

/// What is created between a cut and the next record begins after the cut, and need not re-read.
#[test]
fn a_channel_that_is_created_after_a_cut_begins_there() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    let mark = log.append(&keys("acme", &["open"]));
    node.follow(&log);
    node.hub.cut(barrier(2), node.now);
    let (mut stream, greeting, id) = node.member(Some(Hub::member_id(&org("acme"), mark)));
    assert_eq!((greeting, id), (Greeting::Connected, Hub::member_id(&org("acme"), barrier(2))));
    assert_eq!(take(&mut stream), []);
    assert_eq!(node.hub.tail().records, 0);
    // The same cut once more reaches nothing that does not know it.
    assert_eq!(node.hub.cut(barrier(2), node.now), 0);
}

/// A node that begins in the midst of the log knows nothing from before.
#[test]
fn a_log_begins_where_it_is_said_to() {
    let node = Node::new(config());
    node.hub.begin_log(500);
    assert!(node.hub.applied().is_none());
    let first = Mark { tag: 3, position: 500 };
    node.apply(first, &keys("acme", &["a"]));
    let resumes =
        |mark| node.member(Some(Hub::member_id(&org("acme"), mark))).1 == Greeting::Resumed;
    assert!(resumes(first));
    for position in [1, 498, 499, 501] {
        assert!(!resumes(Mark { tag: 3, position }), "{position}");
    }
}

/// A command to re-read and a cut at once: each stream re-reads, once or twice, and none is left out.
#[test]
fn a_cut_while_streams_re_read_reaches_all() {
    let (mut log, mut node) = (Log::default(), Node::new(config()));
    let mut streams: Vec<_> = (0..10).map(|_| node.member(None).0).collect();
    log.append(&reread("acme"));
    node.follow(&log);
    node.wait(WINDOW / 2);
    node.hub.cut(barrier(2), node.now);
    node.wait(WINDOW);
    node.wait(WINDOW);
    for stream in &mut streams {
        let events = take(stream);
        assert_eq!(texts(&events).last(), Some(&"connected"));
        assert_eq!(node.member(events.last().and_then(|event| event.id)).1, Greeting::Resumed);
    }
}

/// The position is the same as before, and the record is another one.
#[test]
fn a_keepalive_after_a_cut_has_an_id_of_the_new_log() {
    let (mut log, mut node) = (Log::default(), Node::new(config()));
    let (mut stream, ..) = node.member(None);
    log.append("");
    node.follow(&log);
    assert_eq!(ping(&stream).id, Some(Hub::member_id(&org("acme"), log.records[0].0)));
    node.hub.cut(barrier(1), node.now);
    node.wait(WINDOW);
    assert_eq!(texts(&take(&mut stream)), ["connected"]);
    assert_eq!(ping(&stream).id, Some(Hub::member_id(&org("acme"), barrier(1))));
}
