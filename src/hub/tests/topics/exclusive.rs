//! Exclusive streams: the newest is the only one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use super::super::Bell;
use super::{Client, World};
use crate::config::HubConfig;
use crate::hub::{Frames, SocketId, Start, SubscribeError, Taken, WriteKind};
use crate::metrics::CloseReason;

const SOCKET: SocketId = SocketId(9);

fn exclusive(world: &World) -> Client {
    world.try_open("run", Start::All, true).expect("open")
}

fn is_sole(client: &Client) -> bool {
    client.stream.poll_sole(Waker::noop()).is_ready()
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell(AtomicBool::new(false)));
    (bell.clone(), bell.into())
}

fn rung(bell: &Bell) -> bool {
    bell.0.swap(false, Ordering::Relaxed)
}

#[test]
fn an_exclusive_stream_replaces_all_others() {
    let world = World::new();
    let mut others = [world.open("run", Start::All), exclusive(&world)];
    assert!(others.iter_mut().skip(1).all(|other| other.names().is_empty()));
    let elsewhere = world.open("walk", Start::All);
    let mut newest = exclusive(&world);
    assert!(!is_sole(&newest));
    world.publish("run", "one");
    for other in &mut others {
        assert_eq!(other.take(), (vec![], true), "nothing that was published since");
    }
    drop(others);
    assert!(is_sole(&newest));
    assert_eq!(newest.names(), "one");
    assert_eq!((world.ended(CloseReason::Replaced), world.hub.seats()), (2, 2));
    drop(elsewhere);
}

#[test]
fn the_newcomer_is_woken_once_the_last_has_gone() {
    let world = World::new();
    let others = [world.open("run", Start::All), world.open("run", Start::All)];
    let newcomer = exclusive(&world);
    let (bell, waker) = bell();
    assert!(newcomer.stream.poll_sole(&waker).is_pending());
    let [first, second] = others;
    drop(first);
    assert!(!rung(&bell));
    drop(second);
    assert!(rung(&bell) && is_sole(&newcomer));
}

/// A task waits for events, and a socket does.
#[test]
fn those_that_wait_are_notified_of_their_end() {
    let world = World::new();
    let (task, socket) = (world.open("run", Start::All), world.open("run", Start::All));
    let (bell, waker) = bell();
    let mut task = task;
    assert!(task.stream.poll_next(&waker).is_pending());
    let mut frames = Frames::new();
    assert_eq!(socket.stream.take_frames(SOCKET, &mut frames), Taken::Idle);
    let _newest = exclusive(&world);
    let writes = world.drive().writes;
    assert!(rung(&bell));
    assert!(matches!(task.stream.poll_next(&waker), Poll::Ready(None)));
    assert!(
        matches!(writes[..], [op] if op.socket == SOCKET && matches!(op.kind, WriteKind::CatchUp))
    );
    let taken = socket.stream.take_frames(SOCKET, &mut frames);
    assert_eq!(taken, Taken::End(CloseReason::Replaced));
}

#[test]
fn of_two_newcomers_the_later_one_wins() {
    let world = World::new();
    let old = world.open("run", Start::All);
    let mut first = exclusive(&world);
    let (bell, waker) = bell();
    assert!(first.stream.poll_sole(&waker).is_pending());
    let mut second = exclusive(&world);
    assert!(rung(&bell), "it need not wait any more");
    assert!(is_sole(&first), "it is replaced, whatever is left");
    assert_eq!(first.take(), (vec![], true));
    assert!(!is_sole(&second));
    drop(first);
    assert!(!is_sole(&second), "the old one is left");
    drop(old);
    assert!(is_sole(&second));
    world.publish("run", "one");
    assert_eq!(second.names(), "one");
}

#[test]
fn a_newcomer_that_goes_leaves_its_rivals_replaced() {
    let world = World::new();
    let mut old = world.open("run", Start::All);
    let newcomer = exclusive(&world);
    assert!(!is_sole(&newcomer));
    drop(newcomer);
    assert_eq!(old.take(), (vec![], true));
    let next = exclusive(&world);
    assert!(!is_sole(&next));
    drop(old);
    assert!(is_sole(&next));
    assert_eq!(world.ended(CloseReason::Replaced), 1);
}

/// SCENARIO: the connection of a worker that was replaced ends later than its successor's begins.
/// BUG (in the system that nudged replaces): the late disconnect removed the successor.
#[test]
fn the_late_end_of_a_replaced_stream_changes_nothing() {
    let world = World::new();
    let old = exclusive(&world);
    let mut new = exclusive(&world);
    new.stream.end_rivals();
    drop(old);
    world.publish("run", "one");
    assert_eq!((new.names().as_str(), world.hub.seats()), ("one", 1));
}

#[test]
fn a_stream_that_is_not_exclusive_joins_without_a_wait() {
    let world = World::new();
    let mut sole = exclusive(&world);
    let mut other = world.open("run", Start::All);
    assert!(is_sole(&sole) && is_sole(&other));
    other.stream.end_rivals();
    world.publish("run", "one");
    assert_eq!((sole.names(), other.names()), ("one".to_owned(), "one".to_owned()));
}

#[test]
fn an_exclusive_newcomer_is_let_into_a_full_topic() {
    let config = HubConfig { topic_streams_max: Some(2), ..HubConfig::default() };
    let world = World::with(config);
    let full = SubscribeError::TopicFull { max: 2 };
    let open = || world.try_open("run", Start::All, false);
    let (first, second) = (open().expect("open"), open().expect("open"));
    assert_eq!(open().err(), Some(full));
    let third = exclusive(&world);
    // Those that have been replaced take no place.
    let fourth = open().expect("open");
    assert_eq!(open().err(), Some(full));
    drop((first, second, third));
    assert!(open().is_ok());
    drop(fourth);
}

/// Its socket is full when it is replaced.
#[test]
fn one_that_does_not_read_is_reset_soon() {
    let mut world = World::new();
    let stuck = world.open("run", Start::All);
    stuck.stream.stay_blocked(SOCKET, false);
    let newcomer = exclusive(&world);
    assert!(world.drive().writes.is_empty(), "it takes nothing");
    newcomer.stream.end_rivals();
    let writes = world.drive().writes;
    let is_reset = |kind: &WriteKind| matches!(kind, WriteKind::End(CloseReason::Stalled));
    assert!(matches!(&writes[..], [op] if op.socket == SOCKET && is_reset(&op.kind)));
    // The same by the clock, without a newcomer that waits.
    let other = world.open("walk", Start::All);
    other.stream.stay_blocked(SOCKET, false);
    let _sole = world.try_open("walk", Start::All, true).expect("open");
    world.pass(2);
    let taken = other.stream.take_frames(SOCKET, &mut Frames::new());
    assert_eq!(taken, Taken::End(CloseReason::Stalled));
}

/// As the body of an application whose runtime is late.
#[test]
fn one_that_was_not_polled_meanwhile_ends_when_it_is() {
    let world = World::new();
    let mut old = world.open("run", Start::All);
    let new = exclusive(&world);
    new.stream.end_rivals();
    world.drive();
    assert_eq!(old.take(), (vec![], true));
    drop(old);
    assert_eq!(world.ended(CloseReason::Replaced), 1);
}

#[test]
fn one_that_is_replaced_while_its_topic_is_closed_gets_one_end() {
    let world = World::new();
    let mut old = world.open("run", Start::All);
    let mut sole = exclusive(&world);
    world.close("run", "done");
    assert_eq!(old.take(), (vec![], true));
    drop(old);
    assert!(is_sole(&sole));
    assert_eq!(sole.take(), (vec!["closed".to_owned()], true));
    drop(sole);
    let ends = [CloseReason::Replaced, CloseReason::Closed].map(|reason| world.ended(reason));
    assert_eq!(ends, [1, 1]);
}
