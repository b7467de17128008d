//! What drivers and the tasks of streams do, for tests without either.

use std::task::{Poll, Waker};

use crate::hub::{Batch, CommandPasses, Hub, Subscription};
use crate::time::Time;
use crate::wire::{Event, Frame, Parser};

/// One turn of the driver of this handle's shard: windows that close, commands, and all that is dirty.
pub(crate) fn turn(hub: &Hub, passes: &mut CommandPasses, now: Time) {
    let driver = hub.driver();
    while driver.close_windows(now) {}
    carry_out(hub, passes, now);
    sweep_all(hub);
}

/// Carries out the commands of this handle's shard that are due.
pub(crate) fn carry_out(hub: &Hub, passes: &mut CommandPasses, now: Time) {
    let mut batch = Batch::default();
    while passes.turn(&hub.driver(), now, &mut batch, |batch| {
        batch.wake();
        batch.clear();
    }) {}
}

/// Notifies the streams of this handle's shard of all that there is.
pub(crate) fn sweep_all(hub: &Hub) {
    let mut batch = Batch::default();
    while let Some(mut sweep) = hub.driver().next_sweep() {
        let mut more = true;
        while more {
            more = sweep.collect(&mut batch);
            batch.wake();
            batch.clear();
        }
    }
}

/// The events that there are for a stream, and whether it has ended. `each` gets their frames.
pub(crate) fn take_events(
    stream: &mut Subscription,
    mut each: impl FnMut(&Frame),
) -> (Vec<Event>, bool) {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    loop {
        assert!(events.len() < 10_000, "an endless stream: {:?}", events.last());
        match stream.poll_next(Waker::noop()) {
            Poll::Ready(Some(frame)) => {
                let parsed = parser.push(&frame.payload(), |event| events.push(event));
                parsed.expect("small");
                each(&frame);
            }
            Poll::Ready(None) => return (events, true),
            Poll::Pending => return (events, false),
        }
    }
}
