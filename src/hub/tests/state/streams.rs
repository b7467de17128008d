//! What stays, what is counted, and what exporter costs.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::{exported, hub, moved, publish, received};
use crate::hub::batch::{Batch, VISITS_PER_TURN};
use crate::hub::state::ImportError;
use crate::hub::{Deadline, Hub, SocketId, Start, Subscription, View};
use crate::ids::{OrgName, Topic};
use crate::metrics::{CloseReason, SweepTimes, read};
use crate::stream::{AccessLog, AccessRecord, Clock, Ended, EventStream};
use crate::time::{Tick, Time};
use crate::wire::Greeting;

fn acme() -> OrgName {
    "acme".parse().expect("a name")
}

fn run() -> Topic {
    Topic { org: acme(), name: "run-7".parse().expect("a name") }
}

fn member(hub: &Hub) -> Subscription {
    hub.subscribe(&acme(), View::Member, None, Time(0)).expect("open").0
}

fn closed(hub: &Hub, reason: CloseReason) -> u64 {
    hub.counters().map(|c| c.closed.iter().map(|of| read(&of[reason as usize])).sum::<u64>()).sum()
}

fn opened(hub: &Hub) -> u64 {
    hub.counters().map(|c| c.opened.iter().map(read).sum::<u64>()).sum()
}

#[test]
fn a_stream_whose_end_is_due_stays() {
    let hub = hub();
    let stays = |stream: &Subscription| hub.exporter().export(stream, Time(0)).is_none();
    let [mut for_a_reason, timed, replaced] = [
        member(&hub),
        member(&hub),
        hub.subscribe_topic(&run(), Start::All, false, Time(0)).expect("open").0,
    ];
    assert!([&for_a_reason, &timed, &replaced].into_iter().all(|stream| !stays(stream)));
    for_a_reason.close_because(CloseReason::Reset);
    timed.end_at(Deadline { at: Time(1_000), reason: CloseReason::MaxAge });
    assert!(stays(&for_a_reason) && !stays(&timed));
    let (mut due, mut batch) = (Vec::new(), Batch::default());
    hub.driver().timers(Tick(1), &mut due);
    hub.driver().fire(&due, &mut batch);
    assert!(stays(&timed));
    let sole = hub.subscribe_topic(&run(), Start::All, true, Time(0)).expect("open").0;
    assert!(stays(&replaced) && !stays(&sole));
    hub.close_topic(&run(), "done", Time(0));
    assert!(stays(&sole));
}

#[test]
fn a_stream_ends_when_and_why_it_would_have_ended() {
    for (reason, second) in [(CloseReason::MaxAge, 9), (CloseReason::Expired, 7)] {
        let (hub, wall) = (hub(), std::time::SystemTime::UNIX_EPOCH);
        let stream = member(&hub);
        stream.end_at(Deadline { at: Time(9_000), reason: CloseReason::MaxAge });
        if reason == CloseReason::Expired {
            stream.expire_at(wall + Duration::from_secs(1_007), wall + Duration::from_secs(1_000));
        }
        let other = moved(&hub, Time(5_000), 1, Time(65_000));
        let state = exported(&hub, &stream, Time(5_000));
        let mut again = other.import(&state, Time(65_000)).expect("valid");
        for passed in 5..=second {
            assert_eq!(received(&mut again), "");
            assert_eq!(again.ends_for(), CloseReason::Client, "after {passed} s");
            let (mut due, mut batch) = (Vec::new(), Batch::default());
            other.driver().tick(Tick(60 + passed), &mut Vec::new());
            other.driver().timers(Tick(60 + passed), &mut due);
            other.driver().expire(Tick(1_000 + passed), &mut due);
            other.driver().fire(&due, &mut batch);
        }
        assert_eq!(again.ends_for(), reason);
    }
}

#[test]
fn the_counters_go_on_and_streams_that_stay_count_as_drained() {
    let hub = hub();
    let (stays, moves) = (member(&hub), member(&hub));
    drop(member(&hub));
    let other = moved(&hub, Time(0), 1, Time(0));
    let _again = other.import(&exported(&hub, &moves, Time(0)), Time(0)).expect("valid");
    assert_eq!((opened(&other), other.seats()), (3, 1));
    assert_eq!(other.end_restore(Time(0)), 1);
    assert_eq!((closed(&other, CloseReason::Drained), closed(&other, CloseReason::Client)), (1, 1));
    assert_eq!(other.end_restore(Time(0)), 0);
    drop(stays);
    let mut moves = moves;
    moves.give_away();
    drop(moves);
    assert_eq!((closed(&hub, CloseReason::Client), hub.seats()), (2, 0));
}

/// In another process they are those of one shard.
#[test]
fn how_streams_began_and_how_long_sweeps_took_goes_on() {
    let (hub, took) = (hub(), [3, 70, 20_000]);
    for (shard, millis) in [0, 1, 1].into_iter().zip(took) {
        let shard = hub.on_shard(shard);
        shard.shard_counters().sweeps.add(Duration::from_millis(millis));
        let stream = member(&shard);
        stream.count_greeting(Greeting::Connected, true);
        stream.count_greeting(Greeting::Resumed, true);
    }
    member(&hub).count_greeting(Greeting::Connected, false);
    let other = moved(&hub, Time(0), 1, Time(0));
    let counters = other.shard_counters();
    assert_eq!(counters.greeted.each_ref().map(read), [1, 3, 3], "new, resumed, re-read");
    assert_eq!(read(counters.sweeps.sum_ms()), 20_073);
    let expected = SweepTimes::default();
    took.into_iter().for_each(|millis| expected.add(Duration::from_millis(millis)));
    let counts = |times: &SweepTimes| times.counts().iter().map(read).collect::<Vec<_>>();
    assert_eq!(counts(&counters.sweeps), counts(&expected));
}

#[test]
fn a_seat_is_refused_where_there_is_none() {
    let (hub, other) = (hub(), hub());
    let stream = member(&hub);
    let state = exported(&hub, &stream, Time(0));
    let import = |change: &dyn Fn(&mut crate::hub::state::SeatState)| {
        let mut state = state.clone();
        change(&mut state);
        other.import(&state, Time(0)).err()
    };
    assert_eq!(import(&|_| ()), None);
    assert!(matches!(import(&|state| state.org.clear()), Some(ImportError::Org(_))));
    let topic = |name: &str| Some(name.to_owned());
    assert!(matches!(import(&|state| state.topic = topic("/")), Some(ImportError::Topic(_))));
    let filtered = |state: &mut crate::hub::state::SeatState| {
        (state.topic, state.filter) = (topic("t"), 1);
    };
    assert_eq!(import(&filtered), Some(ImportError::View));
    other.close(Time(0));
    assert_eq!(import(&|_| ()), Some(ImportError::Closing));
    assert_eq!(other.seats(), 0);
}

static LOGGED: AtomicU64 = AtomicU64::new(0);

fn note(ended: &Ended<'_>) {
    assert!(ended.lasted >= Duration::from_secs(3_600));
    LOGGED.fetch_add(ended.events, Ordering::Relaxed);
}

#[test]
fn a_stream_is_logged_once_where_it_ends() {
    let (old, new, clock) = (hub(), hub(), Clock::start());
    let client = Some(IpAddr::from([127, 0, 0, 1]));
    let open = EventStream::open(&old, &acme(), View::Member, None, Time(0)).expect("open");
    let mut stream = open.with_record(AccessRecord::new(clock, client, note));
    assert!(stream.export(&old.exporter(), Time(0)).is_none(), "its greeting is not written");
    stream.write_greeting(&mut Vec::new(), true);
    stream.count(7);
    let mut state = stream.export(&old.exporter(), Time(0)).expect("it can move");
    let record = state.record.as_mut().expect("it is logged");
    assert_eq!((record.events, record.client), (7, client));
    record.open_ms = 3_600_000;
    stream.give_away();
    drop(stream);
    assert_eq!((LOGGED.load(Ordering::Relaxed), old.seats()), (0, 0));
    assert_eq!(closed(&old, CloseReason::Client), 0);

    let log = Some(AccessLog { clock, log: note });
    let mut stream = EventStream::import(&new, &state, log, Time(0)).expect("valid");
    stream.count(5);
    drop(stream);
    assert_eq!(LOGGED.load(Ordering::Relaxed), 12);
    // A server that keeps no log needs no record.
    drop(EventStream::import(&new, &state, None, Time(0)).expect("valid"));
    assert_eq!(LOGGED.load(Ordering::Relaxed), 12);
}

#[test]
fn commands_are_under_way_until_every_stream_has_had_its_turn() {
    let hub = hub();
    let mut streams = [member(&hub), member(&hub)];
    streams.iter_mut().for_each(|stream| _ = received(stream));
    assert!(!hub.has_commands());
    hub.reread(&acme(), Time(0), Duration::from_millis(100));
    assert!(hub.has_commands());
    let (mut passes, mut batch) = (crate::hub::CommandPasses::default(), Batch::default());
    for now in 0..=100 {
        while passes.turn(&hub.driver(), Time(now), &mut batch, |batch| batch.wake()) {}
    }
    assert!(!hub.has_commands(), "those that have not taken it yet take it with them");
    assert!(streams.iter_mut().all(|stream| received(stream).contains("connected")));
    hub.reread_all(Time(200), Duration::from_millis(100));
    assert!(hub.has_commands());
    for now in 200..=300 {
        while passes.turn(&hub.driver(), Time(now), &mut batch, |batch| batch.wake()) {}
    }
    assert!(!hub.has_commands());
}

proptest! {
    /// SCENARIO: a stream whose client reads nothing moves, several times, between processes whose seconds begin at other
    /// moments.
    /// BUG: each move made it blocked for up to a second longer, so that it counted as stalled too early.
    /// FIX: what is rounded down where it is exported is rounded up where it goes on.
    #[test]
    fn a_stall_is_not_enforced_too_early_after_moves(
        blocked in 0..1_000u64,
        moves in prop::collection::vec((0..1_500u64, 0..1_000u64), 1..5),
    ) {
        let hub = hub();
        let slack = 2_000 + 1_000 * moves.len() as u64;
        let (mut clock, mut now) = (100_000, 100_000 + blocked);
        hub.driver().tick(Time(now).tick(), &mut Vec::new());
        let mut sides = vec![(hub.clone(), member(&hub))];
        sides[0].1.stay_blocked(SocketId(0), false);
        let mut passed = 0;
        for (stays, phase) in moves {
            now += stays;
            passed += stays;
            let (hub, stream) = sides.last().expect("the first");
            let state = exported(hub, stream, Time(now));
            clock += 50_000;
            now = clock + phase;
            let other = moved(hub, Time(now), 1, Time(now));
            let stream = other.import(&state, Time(now)).expect("valid");
            stream.attach(SocketId(0));
            sides.push((other, stream));
        }
        let (hub, _) = sides.last().expect("the last");
        let timeout = u64::try_from(hub.config().stall_timeout.as_millis()).expect("seconds");
        let (mut due, mut batch) = (Vec::new(), Batch::default());
        let ends = (Time(now).tick().0..).find(|tick| {
            hub.driver().tick(Tick(*tick), &mut Vec::new());
            hub.driver().timers(Tick(*tick), &mut due);
            hub.driver().fire(&std::mem::take(&mut due), &mut batch);
            batch.writes.iter().any(|op| matches!(op.kind, crate::hub::WriteKind::End(_)))
        });
        let after = passed + u64::from(ends.expect("it ends")) * 1_000 - now;
        prop_assert!((timeout..=timeout + slack).contains(&after), "after {after} ms");
    }
}

/// What 15,000 streams of 100 orgs cost, each with a deadline: printed, not judged.
#[test]
fn many_streams_move() {
    let hub = hub();
    let streams: Vec<_> = (0..15_000)
        .map(|n| {
            let org = format!("org-{}", n % 100).parse().expect("a name");
            let stream = hub.subscribe(&org, View::Member, None, Time(0)).expect("open").0;
            let at = Time(10_000 + n);
            stream.end_at(Deadline { at, reason: CloseReason::MaxAge });
            stream
        })
        .collect();
    publish(&hub, "a", Time(0));
    let other = moved(&hub, Time(0), 1, Time(0));
    let begun = Clock::start();
    let exporter = hub.exporter();
    let read = begun.elapsed();
    let states: Vec<_> =
        streams.iter().map(|stream| exporter.export(stream, Time(0)).expect("it moves")).collect();
    let exported = begun.elapsed();
    let mut again = Vec::with_capacity(states.len());
    again.extend(states.iter().map(|state| other.import(state, Time(0)).expect("valid")));
    println!(
        "wheels {read:?}, exported {:?}, imported {:?}",
        exported - read,
        begun.elapsed() - exported
    );
    assert_eq!((other.seats(), again.len()), (15_000, 15_000));
    assert_eq!(other.end_restore(Time(0)), 0);
}

/// SCENARIO: a server is replaced while an event is on its way, and its successor goes on with its streams some at a time.
/// BUG: the sweep for the first of them passed over those that had not begun, and these then waited for the next publish.
/// FIX: a sweep goes over the seats once more if a stream that is behind has come meanwhile.
#[test]
fn a_stream_that_comes_behind_a_sweep_is_swept_too() {
    let now = Time(1 << 20);
    let hub = hub();
    let open = |_| hub.subscribe(&acme(), View::Member, None, now).expect("open").0;
    // So many that a sweep takes two turns.
    let mut streams: Vec<Subscription> = (0..VISITS_PER_TURN + 8).map(open).collect();
    streams.iter_mut().for_each(|stream| _ = received(stream));
    publish(&hub, "a", now);
    let states: Vec<_> = streams.iter().map(|stream| exported(&hub, stream, now)).collect();
    let other = moved(&hub, now, 1, now);
    let take = |state| other.import(state, now).expect("a seat");
    let taken: Vec<Subscription> = states.iter().map(take).collect();

    let (first, last) = (SocketId(0), SocketId(1));
    taken[VISITS_PER_TURN + 1].attach(first);
    let mut sweep = other.driver().next_sweep().expect("it is behind");
    let mut batch = Batch::default();
    assert!(sweep.collect(&mut batch), "a part of the seats");
    taken[0].attach(last);
    while sweep.collect(&mut batch) {}
    let written: Vec<_> = batch.writes.iter().map(|write| write.socket).collect();
    assert_eq!(written, [first, last]);
    drop(sweep);
    assert!(other.driver().next_sweep().is_none());
}
