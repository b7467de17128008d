//! What is created with a log begins with what the log has for it.

use super::*;
use crate::hub::batch::Batch;

/// No stream was open here when these were published, and yet a client of another server resumes.
#[test]
fn a_channel_begins_with_what_the_tail_has() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    let first = log.append(&keys("acme", &["a"]));
    log.append(&keys("else", &["x"]));
    log.append(
        &(keys("acme", &["b", "c"]) + &keys("else", &["y"]) + &keys("acme", &["c", "open"])),
    );
    node.follow(&log);
    assert_eq!(node.hub.channels(), 0);
    let (mut stream, greeting, _) = node.member(Some(Hub::member_id(&org("acme"), first)));
    assert_eq!(greeting, Greeting::Resumed);
    let events = take(&mut stream);
    assert_eq!(texts(&events), ["b c open"]);
    assert_eq!(events[0].id, Some(Hub::member_id(&org("acme"), log.records[2].0)));
    // The public feed is created later, from the same lines.
    let public = StreamHash::of_public("acme");
    let (mut stream, greeting, _) = node.open("acme", View::Public, Some(first.id(public, 0)));
    assert_eq!((greeting, texts(&take(&mut stream))), (Greeting::Resumed, vec!["open"]));
}

/// Within the limits of a history: what it cannot hold is not covered.
#[test]
fn a_channel_is_filled_within_its_limits() {
    let (mut log, mut node) =
        (Log::default(), Node::new(HubConfig { history_events: 2, ..config() }));
    for key in ["a", "b", "c", "d"] {
        log.append(&keys("acme", &[key]));
    }
    let resumes = |node: &Node, log: &Log, index: usize| {
        let id = Hub::member_id(&org("acme"), log.records[index].0);
        node.member(Some(id)).1 == Greeting::Resumed
    };
    node.follow(&log);
    assert!(!resumes(&node, &log, 0));
    assert!(resumes(&node, &log, 1));
    // Old events are not kept either.
    node.now = node.now.after(config().history_age * 2);
    (0..64).for_each(|tick| node.hub.driver().tidy(crate::time::Tick(tick), node.now));
    assert_eq!(node.hub.channels(), 0, "it has been idle for too long");
    log.append(&keys("acme", &["e"]));
    node.follow(&log);
    assert!(!resumes(&node, &log, 2));
    assert!(resumes(&node, &log, 3));
}

/// What a command to re-read was for is of no use to a client that comes later.
#[test]
fn a_command_to_re_read_ends_what_is_filled() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    log.append(&keys("acme", &["a"]));
    let mark = log.append(&(keys("acme", &["b"]) + &reread("acme")));
    log.append(&keys("acme", &["c"]));
    node.follow(&log);
    let resumes =
        |mark| node.member(Some(Hub::member_id(&org("acme"), mark))).1 == Greeting::Resumed;
    assert!(!resumes(log.records[0].0));
    assert!(resumes(mark));
}

/// Keys that are too many for an event are lost to it, but not in silence.
#[test]
fn a_union_beyond_the_limits_is_filled_as_it_is_applied() {
    let (mut log, late) = (Log::default(), Node::new(HubConfig { keys_max: 2, ..config() }));
    let early = Node::new(late.hub.config().clone());
    let _stream = early.member(None);
    let first = log.append("");
    log.append(&(keys("acme", &["a", "b"]) + &keys("acme", &["open"])));
    log.append(&keys("acme", &["c"]));
    for node in [&early, &late] {
        node.follow(&log);
        let id = Some(Hub::member_id(&org("acme"), first));
        assert_eq!(node.member(id).1, Greeting::Connected);
        let id = Some(Hub::member_id(&org("acme"), log.records[1].0));
        let (mut stream, greeting, _) = node.member(id);
        assert_eq!((greeting, texts(&take(&mut stream))), (Greeting::Resumed, vec!["c"]));
        let public = first.id(StreamHash::of_public("acme"), 0);
        let (mut stream, greeting, _) = node.open("acme", View::Public, Some(public));
        assert_eq!((greeting, texts(&take(&mut stream))), (Greeting::Resumed, vec!["open"]));
    }
}

/// The public feed is created while a window holds what the tail has already.
#[test]
fn a_feed_gets_nothing_twice_that_it_was_filled_with() {
    let coalesce = Duration::from_millis(50);
    let (mut log, mut node) = (Log::default(), Node::new(HubConfig { coalesce, ..config() }));
    let (mut member, ..) = node.member(None);
    let first = log.append(&keys("acme", &["open1"]));
    log.append(&keys("acme", &["open2"]));
    node.follow(&log);
    let public = first.id(StreamHash::of_public("acme"), 0);
    let (mut stream, ..) = node.open("acme", View::Public, Some(public));
    assert_eq!(texts(&take(&mut stream)), ["open2"]);
    node.wait(50);
    assert_eq!(texts(&take(&mut member)), ["open1", "open2"]);
    assert_eq!(texts(&take(&mut stream)), [""; 0]);
}

/// It was published before the stream came: what is swept for it is what comes then.
#[test]
fn what_a_channel_is_filled_with_is_swept_for_no_stream() {
    let (mut log, mut node) = (Log::default(), Node::new(config()));
    log.append(&keys("acme", &["a"]));
    node.follow(&log);
    node.wait(60_000);
    let _stream = node.member(None);
    node.wait(5_000);
    log.append(&keys("acme", &["b"]));
    node.follow(&log);
    let mut sweep = node.hub.driver().next_sweep().expect("it is behind");
    assert!(!sweep.collect(&mut Batch::default()));
    assert_eq!(sweep.take_passed(), Some(node.now));
}
