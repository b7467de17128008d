//! Where reading begins.

use bytes::Bytes;

use super::*;

#[test]
fn an_empty_log_begins_with_a_beat() {
    let mut case = Case::new();
    case.run();
    assert_eq!(case.appended(), [Kind::Beat]);
    assert_eq!((case.cuts(), case.applied()), (vec![], vec![1]));
    assert_eq!(case.done[0], Action::Begin(1));
    assert_eq!(case.done.last(), Some(&Action::Loaded), "once there is an id to resume with");
}

#[test]
fn a_server_that_starts_reads_what_there_is_and_is_loaded_then() {
    let mut case = Case::new();
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    for _ in 0..300 {
        case.append(Kind::Lines, Bytes::from_static(b"lines"));
    }
    case.run();
    assert_eq!(case.done[0], Action::Begin(1));
    let loaded = case.done.iter().position(|action| *action == Action::Loaded);
    let is_last = |action: &Action| matches!(action, Action::Apply(m, _) if m.position == 301);
    let last = case.done.iter().position(is_last);
    assert_eq!(loaded, last.map(|last| last + 1), "after the last of them");
    assert_eq!((case.cuts(), case.appended()), (vec![], vec![Kind::Beat]));
}

#[test]
fn a_server_that_starts_reads_no_more_than_fits_its_memory() {
    let mut case = Case::new();
    for _ in 0..5_000 {
        case.append(Kind::Lines, Bytes::from(vec![b'x'; 904]));
    }
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    case.run();
    let applied = case.applied();
    assert_eq!(applied.last(), Some(&5_002), "with its own beat");
    let records = (1 << 20) / 1_000;
    assert!((records..records + 100).contains(&applied.len()), "{} records", applied.len());
    assert_eq!(case.done[0], Action::Begin(applied[0]));
}

#[test]
fn a_log_that_is_opened_again_goes_on_where_it_was() {
    let mut case = Case::reading(3);
    case.append(Kind::Lines, Bytes::new());
    let own = case.newest() - 1;
    case.reopen();
    assert_eq!((case.applied(), case.cuts()), (vec![own + 1], vec![]));
}

#[test]
fn a_log_that_stays_shorter_than_it_was_has_forgotten() {
    let mut case = Case::reading(3);
    let newest = case.newest();
    case.drop_from(newest);
    case.reopen();
    assert_eq!(
        (case.follower.next(), case.cuts()),
        (Next::Bounds, vec![]),
        "a leader may be moving"
    );
    case.pass(1_999).run();
    assert_eq!(case.cuts(), []);
    case.pass(1).run();
    assert_eq!(case.cuts(), [(0, CutReason::Forgot), (newest, CutReason::Barrier)]);
}

/// SCENARIO: a log is created anew, and the broker takes records and delivers none.
/// BUG: each time it was opened, all streams read everything again, although there was nothing to miss.
/// FIX: a server that has read nothing since the log began is not cut off from it.
#[test]
fn a_new_log_that_delivers_nothing_is_one_cut() {
    let mut case = Case::reading(3);
    case.drop_from(1);
    for _ in 0..4 {
        case.follower.closed();
        case.follower.opened(case.bounds(), case.now);
        case.pass(2_000);
    }
    case.done.extend(std::iter::from_fn(|| case.follower.action()));
    assert_eq!(case.cuts(), [(0, CutReason::Forgot)]);
    // Unless it begins to deliver when its first records are gone.
    case.oldest = 5;
    case.reopen();
    assert_eq!(case.cuts()[1..], [(4, CutReason::Trimmed), (5, CutReason::Barrier)]);
}

#[test]
fn a_log_that_is_as_long_again_in_time_has_forgotten_nothing() {
    let mut case = Case::reading(3);
    let last = case.log.pop().expect("it has some");
    case.reopen();
    assert_eq!(case.follower.next(), Next::Bounds);
    case.log.push(last);
    case.pass(1_500).run();
    assert!(case.follower.is_current());
    assert_eq!(case.cuts(), []);
}

#[test]
fn a_log_that_was_trimmed_past_a_slow_server_is_cut_there_only() {
    let mut case = Case::reading(3);
    for _ in 0..10 {
        case.append(Kind::Lines, Bytes::new());
    }
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    case.oldest = case.newest() - 2;
    case.log.retain(|entry| entry.position >= case.oldest);
    case.reopen();
    assert_eq!(case.cuts(), [(case.oldest - 1, CutReason::Trimmed)]);
    assert!(!case.appended().contains(&Kind::Barrier));
}

/// SCENARIO: a server starts, and the oldest record of the log has been deleted.
/// BUG: the gap opened the log again, and reading began before it again, for ever.
/// FIX: where nothing was read before, reading begins with what there is.
#[test]
fn a_server_that_starts_begins_behind_a_hole() {
    let mut case = Case::new();
    case.append(Kind::Lines, Bytes::new());
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    case.log.remove(0);
    case.run();
    assert!(case.follower.is_current());
    assert_eq!((case.reopens(), case.cuts()), (vec![Reopen::Gap], vec![]));
    assert!(case.done.contains(&Action::Begin(2)));
}

/// SCENARIO: a server starts, and records are lost on the way to it, twice.
/// BUG: the second time they counted as gone, and it began behind records that the log has: clients could not resume.
/// FIX: they are gone if the same record comes instead of them.
#[test]
fn a_server_that_starts_reads_what_was_lost_on_the_way_to_it_twice() {
    let mut case = Case::new();
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    for _ in 0..5 {
        case.append(Kind::Lines, Bytes::new());
    }
    for lost in [2, 3] {
        case.follower.opened(case.bounds(), case.now);
        assert_eq!(case.follower.next(), Next::Read(1));
        case.follower.read(case.log[lost..].to_vec(), case.now);
        assert_eq!(case.follower.next(), Next::Open);
    }
    case.run();
    assert_eq!(case.applied()[0], 1);
    assert!(case.done.contains(&Action::Begin(1)));
}

/// SCENARIO: a server starts, and each time it opens the log, the oldest record has been trimmed when it reads.
/// BUG: it opened the log again for as long as others append.
/// FIX: some times is enough.
#[test]
fn a_server_that_starts_comes_to_an_end_with_a_log_that_is_trimmed_all_the_time() {
    let mut case = Case::new();
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    for _ in 0..20 {
        case.append(Kind::Lines, Bytes::new());
    }
    for _ in 0..10 {
        if case.follower.next() == Next::Open {
            case.follower.opened(case.bounds(), case.now);
            case.log.remove(0);
            case.oldest += 1;
        }
        case.follower.read(case.log.clone(), case.now);
    }
    assert!(case.follower.is_current());
    case.run();
    assert_eq!(case.cuts().iter().filter(|(_, reason)| *reason != CutReason::Barrier).count(), 0);
}

/// SCENARIO: the newest record of the log is deleted, and a server opens the log.
/// BUG: it waited for the record, and opened the log again, for ever.
/// FIX: the second time it goes on, and the next record shows what is missing.
#[test]
fn a_hole_at_the_end_is_passed() {
    let mut case = Case::reading(3);
    let gone = case.newest() + 1;
    case.follower.closed();
    case.follower.opened(Bounds { newest: gone, ..case.bounds() }, case.now);
    case.follower.read(case.log.clone(), case.now);
    case.pass(5_000);
    assert_eq!(case.follower.action(), Some(Action::Reopen(Reopen::Stalled)));
    case.follower.opened(Bounds { newest: gone, ..case.bounds() }, case.now);
    case.follower.read(case.log.clone(), case.now);
    case.pass(5_000);
    assert!(case.follower.is_current());
    case.follower.read(vec![lines(gone + 1, 5)], case.now);
    case.log.push(lines(gone + 1, 5));
    case.run();
    while let Some(action) = case.follower.action() {
        case.done.push(action);
    }
    assert_eq!(case.cuts(), [(gone, CutReason::Gap)]);
}

#[test]
fn a_log_whose_records_are_not_delivered_is_opened_again() {
    let mut case = Case::reading(3);
    case.append(Kind::Lines, Bytes::new());
    case.follower.closed();
    case.follower.opened(case.bounds(), case.now);
    case.pass(4_999);
    assert_eq!(case.follower.action(), None);
    case.pass(1);
    assert_eq!(case.follower.action(), Some(Action::Reopen(Reopen::Stalled)));
}

/// SCENARIO: the log was trimmed past a slow server, and each time that it opens the log, its connection is lost before
/// the first record.
/// BUG: each time all its streams read everything again, unless the log began at position 1.
/// FIX: a server that has read nothing since it was cut is not cut at the same position again.
#[test]
fn a_trimmed_log_that_delivers_nothing_is_one_cut() {
    let mut case = Case::reading(3);
    (0..10).for_each(|_| _ = case.append(Kind::Lines, Bytes::new()));
    case.trim(case.newest() - 2);
    let opened = |case: &mut Case| {
        case.follower.closed();
        case.follower.opened(case.bounds(), case.now);
        case.done.extend(std::iter::from_fn(|| case.follower.action()));
    };
    (0..4).for_each(|_| opened(&mut case));
    let before = case.oldest - 1;
    assert_eq!(case.cuts(), [(before, CutReason::Trimmed)]);
    // What another log had at these positions was not there before.
    case.identity = "second".into();
    opened(&mut case);
    assert_eq!(case.cuts(), [(before, CutReason::Trimmed), (before, CutReason::Forgot)]);
    case.trim(before + 2);
    opened(&mut case);
    assert_eq!(case.cuts().last(), Some(&(before + 1, CutReason::Forgot)));
}
