//! What records do to orgs.

use super::*;
use crate::hub::shard::ShardId;

#[test]
fn all_keys_of_an_org_in_a_record_are_one_event() {
    for coalesce in [0, 50] {
        let coalesce = Duration::from_millis(coalesce);
        let (mut log, mut node) = (Log::default(), Node::new(HubConfig { coalesce, ..config() }));
        let (mut stream, ..) = node.member(None);
        let (mut public, ..) = node.open("acme", View::Public, None);
        let mark = log.append(
            &(keys("acme", &["b", "open"]) + &keys("else", &["x"]) + &keys("acme", &["a", "b"])),
        );
        let next = log.append(&(keys("acme", &["c"]) + &keys("acme", &["d"])));
        node.follow(&log);
        node.wait(50);
        let events = take(&mut stream);
        assert_eq!(texts(&events), ["b open a", "c d"]);
        let ids = [mark, next].map(|mark| Some(Hub::member_id(&org("acme"), mark)));
        assert_eq!([events[0].id, events[1].id], ids);
        assert_eq!(texts(&take(&mut public)), ["open"]);
    }
}

/// The limit of a burst is also that of a record.
#[test]
fn more_keys_than_an_event_may_have_are_a_connected() {
    for coalesce in [0, 50] {
        let coalesce = Duration::from_millis(coalesce);
        let limits = HubConfig { keys_max: 2, key_bytes_max: 6, coalesce, ..config() };
        let (mut log, mut node) = (Log::default(), Node::new(limits));
        let mut streams = [View::Member, View::Public].map(|view| node.open("acme", view, None).0);
        let mut expect = |node: &mut Node, log: &Log, expected: [&str; 2]| {
            node.follow(log);
            node.wait(50);
            let texts = streams.each_mut().map(|stream| {
                take(stream).iter().map(|event| event.text.clone()).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(texts, expected);
            node.wait(50);
        };
        log.append(&(keys("acme", &["a", "b"]) + &keys("acme", &["open"])));
        expect(&mut node, &log, ["connected", "open"]);
        log.append(&(keys("acme", &["a", "open1"]) + &keys("acme", &["open2", "open3"])));
        expect(&mut node, &log, ["connected", "connected"]);
        // A line of a server with other limits.
        log.append(&keys("acme", &["longer than that"]));
        expect(&mut node, &log, ["connected", "connected"]);
        log.append(&keys("acme", &["a", "b", "c"]));
        log.append(&keys("acme", &["d"]));
        expect(&mut node, &log, ["connected", "connected"]);
        log.append(&keys("acme", &["d"]));
        expect(&mut node, &log, ["d", ""]);
    }
}

#[test]
fn an_unusable_line_is_skipped_and_the_rest_counts() {
    let node = Node::new(config());
    let (mut stream, ..) = node.member(None);
    let lines =
        format!("nonsense\n{}\n\n{{\"org\":\"a/b\",\"keys\":[\"x\"]}}\n", keys("acme", &["a"]));
    let applied = node.hub.apply(Mark { tag: 1, position: 1 }, &Bytes::from(lines), node.now);
    assert_eq!((applied.lines, applied.skipped), (3, 2));
    assert_eq!(texts(&take(&mut stream)), ["a"]);
    // A record of nothing else moves the log on as well.
    let applied =
        node.hub.apply(Mark { tag: 2, position: 2 }, &Bytes::from_static(b"\xff\x00"), node.now);
    assert_eq!((applied.lines, applied.skipped), (1, 1));
    assert!(node.hub.applied().is_some_and(|mark| mark.position == 2));
}

/// A window's event has the id of the last record in it, and a client at that record has all of it.
#[test]
fn the_event_of_a_window_has_the_id_of_its_last_record() {
    let coalesce = Duration::from_millis(50);
    let (mut log, mut node) = (Log::default(), Node::new(HubConfig { coalesce, ..config() }));
    let (mut stream, ..) = node.member(None);
    for key in ["a", "b", "c"] {
        log.append(&keys("acme", &[key]));
    }
    node.follow(&log);
    assert_eq!(texts(&take(&mut stream)), ["a"]);
    node.wait(50);
    let events = take(&mut stream);
    assert_eq!(texts(&events), ["b c"]);
    assert_eq!(events[0].id, Some(Hub::member_id(&org("acme"), log.records[2].0)));
}

/// An org that has no channel here costs none.
#[test]
fn a_record_creates_no_channel() {
    let (mut log, node) = (Log::default(), Node::new(config()));
    log.append(&(keys("acme", &["a"]) + &reread("acme")));
    node.follow(&log);
    assert_eq!(node.hub.channels(), 0);
    assert!(node.hub.tail().bytes > 0);
    assert_eq!(node.hub.tail().records, 1);
}

/// Each with a window: the streams continue as before until their turn, but no id from before resumes.
#[test]
fn a_record_has_the_streams_of_an_org_re_read() {
    let (mut log, mut node, other) = (Log::default(), Node::new(config()), Node::new(config()));
    let mut streams: Vec<_> = (0..20).map(|_| node.member(None).0).collect();
    log.append(&keys("acme", &["a"]));
    let mark = log.append(&(keys("acme", &["b"]) + &reread("acme")));
    let last = log.append(&keys("acme", &["c"]));
    node.follow(&log);
    other.follow(&log);
    let mut ids = Vec::new();
    for stream in &mut streams {
        let events = take(stream);
        assert_eq!(texts(&events), ["a", "b", "c"]);
        ids.extend(events.into_iter().map(|event| event.id));
    }
    for id in ids {
        for node in [&node, &other] {
            assert_eq!(node.member(id).1, Greeting::Connected, "it has not re-read");
        }
    }
    for _ in 0..2 {
        node.wait(WINDOW / 2);
        let some = streams.iter_mut().map(take).filter(|events| !events.is_empty());
        let some: Vec<_> = some.collect();
        assert!((8..=12).contains(&some.len()), "{} of 20 in half of the window", some.len());
        for events in some {
            assert_eq!(texts(&events), ["connected"]);
            assert_eq!(events[0].id, Some(Hub::member_id(&org("acme"), last)));
            assert_eq!(other.member(events[0].id).1, Greeting::Resumed);
        }
    }
    assert!(node.hub.has_mark(mark));
}

#[test]
fn a_record_has_the_members_of_an_org_end() {
    let (mut log, mut node) = (Log::default(), Node::new(config()));
    let (mut member, mut public) = (node.member(None).0, node.open("acme", View::Public, None).0);
    log.append("{\"org\":\"acme\",\"end\":true}\n");
    node.follow(&log);
    node.wait(WINDOW);
    assert!(matches!(member.poll_next(Waker::noop()), Poll::Ready(None)));
    assert!(public.poll_next(Waker::noop()).is_pending());
}

/// One thread applies all records, and each shard's driver closes some of the windows.
#[test]
fn windows_are_shared_out_to_shards() {
    let coalesce = Duration::from_millis(50);
    let hub = Hub::with_log(HubConfig { coalesce, ..config() }, 2, 1 << 20, Duration::ZERO);
    let names: Vec<_> = (0..40).map(|n| format!("org-{n}")).collect();
    let lines: String = names.iter().map(|name| keys(name, &["a"])).collect();
    let streams: Vec<_> =
        names.iter().map(|name| hub.subscribe(&org(name), View::Member, None, Time(0))).collect();
    for position in 1..=2 {
        hub.apply(Mark { tag: 1, position }, &Bytes::from(lines.clone()), Time(0));
    }
    let closed = [0, 1].map(|shard| {
        let shard = hub.shared.common.shard(ShardId(shard));
        std::iter::from_fn(|| shard.pop_window(Time(50))).count()
    });
    assert_eq!(closed.iter().sum::<usize>(), 40);
    assert!(closed.iter().all(|windows| *windows > 5), "{closed:?}");
    drop(streams);
}
