//! When a server appends a beat, and what it finds by it.

use bytes::Bytes;

use super::*;

#[test]
fn a_silent_server_appends_a_beat_every_5_seconds_and_a_busy_one_every_30() {
    let mut case = Case::reading(3);
    case.pass(4_999).run();
    assert_eq!(case.appended(), []);
    case.pass(1).run();
    assert_eq!(case.appended(), [Kind::Beat]);
    for _ in 0..30 {
        let position = case.newest() + 1;
        case.follower.appending(position, case.now);
        case.log.push(lines(position, position));
        case.pass(1_000).run();
    }
    assert_eq!(case.appended(), [Kind::Beat; 2]);
}

#[test]
fn many_records_without_a_beat_make_one() {
    let mut case = Case::reading(1);
    let count = (1 << 20) / 8 / 1_000 + 5;
    for _ in 0..count {
        case.append(Kind::Lines, Bytes::from(vec![b'x'; 904]));
    }
    case.run();
    assert_eq!(case.appended(), [Kind::Beat]);
}

#[test]
fn a_beat_that_does_not_come_back_opens_the_log_again() {
    let mut case = Case::reading(3);
    case.pass(5_000);
    let Some(Action::Append(beat)) = case.follower.action() else { panic!("no beat") };
    assert_eq!(beat.kind, Kind::Beat);
    case.pass(1_999);
    assert_eq!(case.follower.action(), None);
    assert_eq!(case.follower.lag(case.now).as_millis(), 1_999);
    case.pass(1);
    assert_eq!(case.follower.action(), Some(Action::Reopen(Reopen::Lost)));
    assert_eq!(case.follower.next(), Next::Open);
}

#[test]
fn what_is_stored_where_another_record_was_read_opens_the_log_again() {
    let mut case = Case::reading(3);
    case.follower.appending(99, case.now);
    let position = case.append(Kind::Lines, Bytes::new());
    case.run();
    case.follower.appended(99, position);
    case.follower.tick(case.now);
    assert_eq!(case.follower.action(), Some(Action::Reopen(Reopen::Lost)));
}

#[test]
fn a_server_with_other_limits_is_named_once() {
    let mut case = Case::reading(1);
    for _ in 0..3 {
        case.append(Kind::Beat, beat_of(IDENTITY, 8, 3));
    }
    case.run();
    let notes = case.done.iter().filter(|action| matches!(action, Action::Note(_)));
    let note = Note::OtherLimits { node: hex(8), version: "1".into() };
    assert_eq!(notes.collect::<Vec<_>>(), [&Action::Note(note)]);
}

/// What others say of themselves is written to the server's log.
#[test]
fn what_a_foreign_record_says_is_bounded() {
    let mut case = Case::reading(1);
    let long = "n".repeat(100_000);
    for _ in 0..3 {
        let (identity, node, nudged) = (IDENTITY.into(), long.clone(), long.clone());
        let beat = Beat { identity, node, nudged, limits: hex(3) };
        case.append(Kind::Beat, beat.to_bytes());
    }
    let (identity, reason) = (IDENTITY.into(), long);
    let barrier = Barrier { identity, reason, cause: None, after: 0 };
    case.append(Kind::Barrier, barrier.to_bytes());
    case.run();
    let notes = case.done.iter().filter_map(|action| match action {
        Action::Note(Note::OtherLimits { node, version }) => Some(node.len() + version.len()),
        Action::Note(Note::Barrier(reason)) => Some(reason.len()),
        _ => None,
    });
    assert_eq!(notes.collect::<Vec<_>>(), [64, 64]);
    let nodes = case.follower.take_nodes().expect("beats were read");
    assert_eq!(nodes.last().map(|node| node.name.len()), Some(32));
}

/// SCENARIO: a server is started with other limits, a deploy of all.
/// BUG: it named every server that had sent a beat since the tail began, those that are gone too.
/// FIX: it names those that send beats after it has loaded the log.
#[test]
fn a_server_that_is_gone_is_not_named() {
    let mut case = Case::new();
    for node in [8, 9] {
        case.append(Kind::Beat, beat_of(IDENTITY, node, 3));
    }
    case.run();
    assert!(case.done.contains(&Action::Loaded));
    case.append(Kind::Beat, beat_of(IDENTITY, 9, 3));
    case.run();
    let notes = case.done.iter().filter(|action| matches!(action, Action::Note(_)));
    let note = Note::OtherLimits { node: hex(9), version: "1".into() };
    assert_eq!(notes.collect::<Vec<_>>(), [&Action::Note(note)]);
    case.append(Kind::Beat, beat_of(IDENTITY, 1, 2));
    case.run();
    let nodes = case.follower.take_nodes().expect("beats were read").into_iter();
    let nodes: Vec<_> = nodes.map(|node| (node.name.to_string(), node.is_self)).collect();
    assert_eq!(nodes, [(hex(9), false), (hex(1), true)]);
    assert_eq!(case.follower.take_nodes(), None, "nothing is new");
}
