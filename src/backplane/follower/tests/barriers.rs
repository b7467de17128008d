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

/// SCENARIO: a barrier cuts all servers. Later the log loses its last records, which one server had read. It reads the end
/// of the log again, where that barrier is no more, and appends one for the loss.
/// BUG: the new barrier said that its server knew of none before. The others, which knew the first one, ignored it: their
/// clients never learned of the loss.
/// FIX: it says up to where there may have been barriers before the loss.
#[test]
fn a_barrier_for_a_loss_names_the_last_one_before_the_loss() {
    let mut case = Case::reading(3);
    let known = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let kept = case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    case.append(Kind::Lines, Bytes::new());
    case.run();
    case.drop_from(kept + 1);
    case.trim(kept);
    case.reopen();
    case.pass(2_000).run();
    assert_eq!(case.barriers(), [(Some(Cause::Forgot), known)]);
    // A server that has read nothing of what was lost.
    let mut other = Case::reading(3);
    other.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let last = other.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), known));
    other.run();
    assert_eq!(other.cuts().last(), Some(&(last, CutReason::Barrier)));
}

/// SCENARIO: the same, and the server that notices the loss has started after the first barrier.
/// BUG: it had never read that one, and said that it knew of none.
/// FIX: before the first record that it has read, there may have been barriers.
#[test]
fn a_barrier_of_a_server_that_started_late_counts_on_the_others() {
    let mut case = Case::new();
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    let known = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let first = case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    let lost = case.append(Kind::Lines, Bytes::new());
    case.oldest = first;
    case.run();
    case.drop_from(lost);
    // This time it reads more, and finds the barrier that was there before: that is not for the loss.
    case.oldest = 1;
    case.reopen();
    case.pass(2_000).run();
    assert_eq!(case.barriers(), [(Some(Cause::Forgot), known)]);
}

/// SCENARIO: the log loses records, and a server that had read them finds others, one of which is missing.
/// BUG: only barriers that it has read counted as known.
/// FIX: a barrier may have been what is missing.
#[test]
fn a_barrier_may_have_been_in_a_gap() {
    let mut case = Case::reading(3);
    let gone = case.append(Kind::Lines, Bytes::new());
    case.append(Kind::Beat, beat_of(IDENTITY, 7, 2));
    let lost = case.append(Kind::Lines, Bytes::new());
    case.log.retain(|entry| entry.position != gone);
    case.run();
    case.drop_from(lost);
    case.trim(gone + 1);
    case.reopen();
    case.pass(2_000).run();
    assert_eq!(case.barriers(), [(Some(Cause::Forgot), gone)]);
}

/// SCENARIO: the broker restarts, and the barriers of two servers for that are under way. One counts. Then the log loses
/// its last records, and the other barrier is stored where those were.
/// BUG: the server that had read them took the late barrier, which all ignore, for one that makes up for the loss, and
/// appended none. Servers that had not read them were not cut.
/// FIX: a barrier that not every server has to follow makes up for no loss.
#[test]
fn a_late_barrier_that_is_ignored_makes_up_for_no_loss() {
    for trims in [false, true] {
        let mut case = Case::reading(3);
        case.identity = "second".into();
        case.reopen();
        let known = case.newest();
        assert_eq!(case.cuts(), [(known, CutReason::Barrier)]);
        let lost = case.append(Kind::Lines, Bytes::new());
        case.append(Kind::Lines, Bytes::new());
        case.run();
        case.done.clear();
        case.drop_from(lost);
        let late = case.append(Kind::Barrier, barrier("second", Some(Cause::Identity), 0));
        assert_eq!(late, lost);
        if trims {
            // It counts here, where the one before is gone, and is ignored elsewhere.
            case.trim(late);
        }
        case.reopen();
        case.pass(2_000).run();
        assert_eq!(case.barriers().last(), Some(&(Some(Cause::Forgot), known)), "{:?}", case.done);
        assert!(case.appended().contains(&Kind::Barrier));
    }
}

/// SCENARIO: two servers notice that the log has lost records. One of them knows of fewer barriers before the loss.
/// BUG: its barrier, which servers that know more ignore, made up for that of the other one.
/// FIX: as above.
#[test]
fn a_barrier_that_some_ignore_makes_up_for_no_loss() {
    let mut case = Case::reading(3);
    let known = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let lost = case.append(Kind::Lines, Bytes::new());
    case.run();
    case.drop_from(lost);
    case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Forgot), known - 1));
    case.replace_from(lost);
    case.reopen();
    let causes = [known - 1, known].map(|after| (Some(Cause::Forgot), after));
    assert_eq!(case.barriers(), causes);
}

/// A replica that lags does not have the last barrier either, and one that lags more looks like another loss.
#[test]
fn a_loss_that_is_noticed_twice_is_still_after_the_last_barrier() {
    let mut case = Case::reading(3);
    let known = case.append(Kind::Barrier, barrier(IDENTITY, Some(Cause::Command), 0));
    let lost = case.append(Kind::Lines, Bytes::new());
    case.run();
    case.drop_from(lost);
    for newest in [3, 2] {
        case.follower.closed();
        case.follower.opened(Bounds { newest, ..case.bounds() }, case.now);
        case.pass(2_000);
        case.follower.read(case.log[..newest as usize].to_vec(), case.now);
        while case.follower.action().is_some() {}
    }
    case.reopen();
    assert_eq!(case.barriers(), [(Some(Cause::Forgot), known)]);
}

/// SCENARIO: a first replica is attached to Redis, which gives it another identity and closes no connection. One server
/// opens the log again, and appends a barrier for that. The others are still connected as before.
/// BUG: to them the barrier's identity was that of another run: they appended one for theirs, the first server one for
/// its own, and so on, as fast as the broker could. All clients re-read with each.
/// FIX: a server opens the log again before, so that it knows the identity of now.
#[test]
fn a_barrier_of_a_server_that_knows_a_newer_identity_is_enough() {
    let mut case = Case::reading(1);
    case.identity = "redis 2".into();
    case.reopen();
    case.done.clear();
    let barrier_for = |identity| barrier(identity, Some(Cause::Identity), 0);
    let at = case.append(Kind::Barrier, barrier_for("redis 3"));
    case.identity = "redis 3".into();
    case.run();
    assert_eq!(case.cuts(), [(at, CutReason::Barrier)]);
    assert!(!case.appended().contains(&Kind::Barrier), "{:?}", case.done);
    // If its own is the newer one, it counts.
    case.done.clear();
    let at = case.append(Kind::Barrier, barrier_for("redis 2"));
    case.run();
    assert_eq!(case.cuts(), [(at, CutReason::Barrier), (at + 1, CutReason::Barrier)]);
}

/// SCENARIO: a server finds that another primary of Redis lacks what it had read. It reads on there, and its barrier is not
/// stored. A third primary takes over, whose log has what it read there, and then a barrier that was appended to the third
/// one before.
/// BUG: as this barrier is at a later position than all that the second primary had, it was taken for one that was
/// appended after the loss.
/// FIX: in each run, only barriers that are appended after it was opened make up for a loss.
#[test]
fn a_barrier_that_a_third_run_had_makes_up_for_no_loss_in_the_second() {
    let mut case = Case::reading(3);
    let newest = case.newest();
    case.replace_from(newest);
    case.identity = "redis 2".into();
    case.follower.closed();
    case.follower.opened(case.bounds(), case.now);
    for _ in 0..2 {
        case.follower.read(case.log.clone(), case.now);
    }
    let actions: Vec<_> = std::iter::from_fn(|| case.follower.action()).collect();
    assert!(
        matches!(actions.last(), Some(Action::Append(barrier)) if barrier.kind == Kind::Barrier)
    );
    assert!(case.follower.is_current() && case.follower.owes_barrier());
    case.identity = "redis 3".into();
    let before = case.append(Kind::Barrier, barrier("redis 3", Some(Cause::Command), 0));
    case.reopen();
    assert_eq!(case.barriers(), [(Some(Cause::Forgot), before)]);
}
