//! What becomes of records.

use bytes::Bytes;

use super::*;

#[test]
fn what_a_replica_repeats_is_skipped() {
    let mut case = Case::reading(3);
    case.follower.closed();
    case.follower.opened(case.bounds(), case.now);
    let newest = case.newest();
    case.follower.read(case.log[1..].to_vec(), case.now);
    assert!(case.follower.is_proven());
    case.follower.read(case.log[2..].to_vec(), case.now);
    assert_eq!(case.follower.action(), None);
    assert_eq!(case.follower.head().map(|head| head.position), Some(newest));
}

#[test]
fn a_repeated_record_with_another_tag_opens_the_log_again() {
    let mut case = Case::reading(3);
    let newest = case.newest();
    case.replace_from(newest - 1);
    case.follower.read(vec![case.log[newest as usize - 2].clone()], case.now);
    case.run();
    assert_eq!(case.reopens(), [Reopen::Changed]);
    assert_eq!(case.cuts(), [(0, CutReason::Forgot), (newest + 1, CutReason::Barrier)]);
}

#[test]
fn a_missing_record_is_looked_for_once_and_then_cut() {
    let mut case = Case::reading(3);
    let gone = case.append(Kind::Lines, Bytes::new());
    case.log.pop();
    case.log.push(lines(gone + 1, 5));
    case.run();
    assert_eq!(case.reopens(), [Reopen::Gap]);
    assert_eq!(case.cuts(), [(gone, CutReason::Gap)]);
    assert_eq!(case.follower.head().map(|head| head.is(mark(gone + 1, 5))), Some(true));
}

#[test]
fn a_record_that_was_lost_on_the_way_is_read_again() {
    let mut case = Case::reading(3);
    let (lost, next) =
        (case.append(Kind::Lines, Bytes::new()), case.append(Kind::Lines, Bytes::new()));
    case.follower.read(vec![case.log.last().expect("it has some").clone()], case.now);
    case.run();
    assert_eq!((case.reopens(), case.cuts()), (vec![Reopen::Gap], vec![]));
    assert_eq!(case.applied(), [lost, next]);
}

#[test]
fn a_record_of_an_unknown_version_cuts_and_a_bad_one_is_skipped() {
    let mut case = Case::reading(1);
    let bad = case.append(Kind::Beat, Bytes::from_static(b"[]"));
    let position = case.newest() + 1;
    case.log.push(Entry { kind: None, ..lines(position, 8) });
    case.log.push(Entry { version: 9, ..lines(position + 1, 9) });
    case.run();
    assert_eq!(case.cuts(), [(position + 1, CutReason::Version)]);
    assert_eq!(case.applied(), [bad, position]);
    let notes = [
        Note::Bad(bad),
        Note::Bad(position),
        Note::Versions { records: 1, version: 9, position: position + 1 },
    ];
    for note in notes {
        assert!(case.done.contains(&Action::Note(note.clone())), "{note:?}");
    }
}

#[test]
fn records_without_a_tag_prove_nothing_and_harm_nothing() {
    let mut case = Case::reading(1);
    let position = case.newest() + 1;
    case.log.push(lines(position, 0));
    case.run();
    case.reopen();
    case.append(Kind::Lines, Bytes::new());
    case.run();
    assert_eq!((case.cuts(), case.applied()), (vec![], vec![position, position + 1]));
}
