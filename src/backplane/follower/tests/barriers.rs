//! Which barriers are appended, and which count.

use bytes::Bytes;

use super::*;

#[test]
fn a_record_that_has_changed_makes_a_barrier_for_all() {
    let mut case = Case::reading(3);
    let newest = case.newest();
    case.replace_from(newest);
    case.reopen();
    assert_eq!(case.cuts(), [(0, CutReason::Forgot), (newest + 1, CutReason::Barrier)]);
    assert_eq!(case.appended()[0], Kind::Barrier);
}

#[test]
fn the_barrier_of_another_server_that_noticed_too_is_enough() {
    let mut case = Case::reading(3);
    let newest = case.newest();
    case.drop_from(newest - 1);
    case.append(Kind::Lines, Bytes::new());
    case.replace_from(newest - 1);
    let other = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), 0));
    case.replace_from(other);
    case.append(Kind::Lines, Bytes::new());
    case.reopen();
    assert_eq!(case.cuts(), [(0, CutReason::Forgot), (other, CutReason::Barrier)]);
    assert!(!case.appended().contains(&Kind::Barrier));
}

#[test]
fn of_barriers_that_servers_append_at_once_the_first_counts() {
    let mut case = Case::reading(3);
    let known = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let first = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), known));
    case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), known));
    case.run();
    assert_eq!(case.cuts(), [(known, CutReason::Barrier), (first, CutReason::Barrier)]);
    let later = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), first));
    case.run();
    assert_eq!(case.cuts().last(), Some(&(later, CutReason::Barrier)), "it knew the first");
}

/// SCENARIO: two servers append a barrier at once, of which the second one is ignored. Later the log loses its last
/// records, and a server that notices reads everything again.
/// BUG: the ignored barrier, which is newer than the last that counted, was taken as that of another server that had
/// noticed: no barrier was appended, and clients resumed without what was lost.
/// FIX: all barriers that were read before are known.
#[test]
fn a_barrier_that_was_ignored_before_makes_up_for_none() {
    let mut case = Case::reading(3);
    let first = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), 0));
    case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), 0));
    let lost = case.append(Kind::Lines, Bytes::new());
    case.run();
    assert_eq!(case.cuts(), [(first, CutReason::Barrier)]);
    case.done.clear();
    case.drop_from(lost);
    case.reopen();
    case.pass(2_000).run();
    assert!(case.appended().contains(&Kind::Barrier), "{:?}", case.done);
    assert_eq!(case.cuts().last(), Some(&(lost, CutReason::Barrier)));
}

/// SCENARIO: the log loses records, of which one is the last barrier. The barrier for it is stored at an earlier position.
/// BUG: it counted as one that had been there before the loss, and stayed due for ever. While one is due there is no beat,
/// so the server did not notice when its consumer fell silent.
/// FIX: the server's own barrier is known by its tag.
#[test]
fn a_barrier_before_the_last_one_that_was_lost_is_enough() {
    let mut case = Case::reading(3);
    let first = case.append(Kind::Lines, Bytes::new());
    case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    case.run();
    case.done.clear();
    case.drop_from(first);
    case.reopen();
    case.pass(2_000).run();
    assert_eq!(case.cuts().last(), Some(&(first, CutReason::Barrier)));
    case.done.clear();
    case.pass(5_000).run();
    assert_eq!(case.appended(), [Kind::Beat]);
}

#[test]
fn another_run_of_the_engine_makes_one_barrier() {
    let mut case = Case::reading(3);
    case.identity = "second".into();
    let newest = case.newest();
    case.reopen();
    assert_eq!(case.cuts(), [(newest + 1, CutReason::Barrier)]);
    // That of a server that was as quick.
    case.append(Kind::Barrier, barrier("second", Some(Cause::Identity), 0));
    case.reopen();
    assert_eq!(case.cuts().len(), 1);
}

/// SCENARIO: the servers of a log are restarted one by one, from now on with --backplane-trust-disk. Those that trust the
/// disk go by the log's identity, the others by the broker's.
/// BUG: each took the other's for another run of the broker, and appended a barrier at each of the other's, for ever.
/// FIX: one identity of each kind is adopted.
#[test]
fn servers_that_go_by_another_kind_of_identity_make_one_barrier() {
    let mut case = Case::reading(3);
    case.identity = "server 1".into();
    case.append(Kind::Barrier, barrier("stream 1", Some(Cause::Identity), 0));
    case.reopen();
    assert_eq!((case.cuts().len(), case.appended()), (2, vec![Kind::Barrier]));
    case.append(Kind::Beat, beat_of("stream 1", 7, 2));
    case.append(Kind::Barrier, barrier("stream 1", Some(Cause::Identity), 0));
    case.append(Kind::Barrier, barrier("server 1", Some(Cause::Identity), 0));
    case.reopen();
    assert_eq!((case.cuts().len(), case.appended().len()), (2, 1));
    // Of each kind another one counts.
    case.append(Kind::Barrier, barrier("stream 2", Some(Cause::Identity), 0));
    case.run();
    assert_eq!((case.cuts().len(), case.appended().len()), (3, 1));
}

#[test]
fn a_log_without_a_beat_counts_as_another_run() {
    let mut case = Case::new();
    case.append(Kind::Lines, Bytes::new());
    case.run();
    assert_eq!(case.cuts(), [(2, CutReason::Barrier)]);
}

#[test]
fn a_late_beat_of_an_earlier_run_changes_nothing() {
    let mut case = Case::reading(1);
    case.identity = "second".into();
    case.reopen();
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    case.reopen();
    assert_eq!(case.cuts().len(), 1, "the barrier");
}

#[test]
fn a_command_cuts_always() {
    let mut case = Case::reading(1);
    let at = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let unknown = case.append(Kind::Barrier, barrier(IDENTITY, None, 0));
    let garbage = case.append(Kind::Barrier, Bytes::from_static(b"{"));
    case.run();
    let all = [at, unknown, garbage].map(|position| (position, CutReason::Barrier));
    assert_eq!(case.cuts(), all);
}
