//! A command to open streams reaches each of them, whatever runs concurrently.

use std::task::Poll;
use std::time::Duration;

use super::{bell, hub, org, publish, rung, subscribe, sweep};
use crate::hub::{Batch, CommandPasses, Hub, View};
use crate::time::Time;

/// The work of the driver that is due.
fn pass(hub: &Hub, passes: &mut CommandPasses) {
    let mut batch = Batch::default();
    while passes.turn(&hub.driver(), Time(0), &mut batch, |batch| {
        batch.wake();
        batch.clear();
    }) {}
}

fn reread(hub: &Hub) {
    hub.reread(&org(), Time(0), Duration::ZERO);
}

/// The driver makes its pass during the command, or after it.
#[test]
fn a_reread_reaches_a_stream_once_and_its_id_resumes() {
    loom::model(|| {
        let hub = hub();
        let mut subscription = subscribe(&hub);
        let old = subscription.position();
        let backend = hub.clone();
        let backend = loom::thread::spawn(move || reread(&backend));
        let ((bell, waker), mut passes) = (bell(), CommandPasses::default());
        let early = subscription.poll_next(&waker);
        assert!(early.is_pending(), "its turn has not come");
        pass(&hub, &mut passes);
        backend.join().expect("no panic");
        pass(&hub, &mut passes);
        assert!(rung(&bell), "not woken to re-read");
        let Poll::Ready(Some(frame)) = subscription.poll_next(&waker) else { panic!("nothing") };
        assert!(frame.payload().windows(10).any(|part| part == b"connected\n"));
        assert!(subscription.poll_next(&waker).is_pending());
        let greeting = |id| hub.subscribe(&org(), View::Member, Some(id), Time(0)).expect("open").1;
        assert_eq!(greeting(old), crate::wire::Greeting::Connected);
        assert_eq!(greeting(subscription.position()), crate::wire::Greeting::Resumed);
    });
}

/// A second command comes while the pass of the first ends.
#[test]
fn a_command_at_the_end_of_a_pass_is_not_lost() {
    loom::model(|| {
        let hub = hub();
        let mut subscription = subscribe(&hub);
        let ((_, waker), mut passes) = (bell(), CommandPasses::default());
        reread(&hub);
        let backend = hub.clone();
        let backend = loom::thread::spawn(move || reread(&backend));
        pass(&hub, &mut passes);
        let early = subscription.poll_next(&waker);
        let position = subscription.position();
        backend.join().expect("no panic");
        pass(&hub, &mut passes);
        let late = subscription.poll_next(&waker);
        assert!(early.is_ready());
        let is_current = position == subscription.position();
        assert!(is_current || late.is_ready(), "it has not re-read since the second command");
    });
}

/// A stream opens while a backend ends all, and another publishes.
#[test]
fn an_end_reaches_what_was_open_and_nothing_else() {
    loom::model(|| {
        let hub = hub();
        let mut old = subscribe(&hub);
        let backend = hub.clone();
        let backend = loom::thread::spawn(move || {
            hub_end(&backend);
            publish(&backend, "a");
        });
        let (bell, waker) = bell();
        let polled = old.poll_next(&waker);
        backend.join().expect("no panic");
        let mut new = subscribe(&hub);
        pass(&hub, &mut CommandPasses::default());
        sweep(&hub);
        if polled.is_pending() {
            assert!(rung(&bell), "not woken for its end");
        }
        while let Poll::Ready(Some(_)) = old.poll_next(&waker) {
            panic!("an event after its end was due");
        }
        assert!(matches!(old.poll_next(&waker), Poll::Ready(None)));
        assert!(new.poll_next(&waker).is_pending());
    });
}

fn hub_end(hub: &Hub) {
    hub.end_members(&org(), Time(0), Duration::ZERO);
}

#[test]
fn a_driver_that_registers_during_a_command_is_woken() {
    for all in [false, true] {
        loom::model(move || {
            let hub = hub();
            let _subscription = subscribe(&hub);
            let backend = hub.clone();
            let backend = loom::thread::spawn(move || {
                if all {
                    backend.reread_all(Time(0), Duration::ZERO);
                } else {
                    reread(&backend);
                }
            });
            let ((bell, waker), passes) = (bell(), CommandPasses::default());
            let (work, _) = hub.driver().register(&waker);
            let next = passes.next(&hub.driver());
            backend.join().expect("no panic");
            assert!(work || next.is_some() || rung(&bell), "not woken for a command");
        });
    }
}
