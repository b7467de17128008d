//! Explores the interleavings of threads on a hub with loom:
//! `RUSTFLAGS="--cfg nudged_loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --lib loom`

mod commands;
mod delivery;
mod ends;
#[cfg(feature = "server")]
mod log;
mod registry;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use super::{Batch, Hub, Keys, Subscription, View, WriteOp};
use crate::config::HubConfig;
use crate::ids::OrgName;
use crate::time::{Tick, Time};
use crate::wire::Frame;

/// Counts its wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::new(Bell::default());
    (bell.clone(), bell.into())
}

fn rung(bell: &Bell) -> bool {
    bell.0.load(Ordering::Relaxed) > 0
}

fn hub() -> Hub {
    let coalesce = Duration::ZERO;
    Hub::new(HubConfig { coalesce, ..HubConfig::default() })
}

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

fn subscribe(hub: &Hub) -> Subscription {
    hub.subscribe(&org(), View::Member, None, Time(0)).expect("not closing").0
}

fn publish(hub: &Hub, key: &str) {
    publish_at(hub, key, Time(0));
}

fn publish_at(hub: &Hub, key: &str, now: Time) {
    hub.publish(&org(), &Keys::new([key], hub.config()).expect("a key"), now);
}

/// The immediate work of the driver.
fn sweep(hub: &Hub) {
    sweep_between(hub, || ());
}

/// The same, with the work of other tasks in between.
fn sweep_between(hub: &Hub, mut others: impl FnMut()) {
    let mut batch = Batch::default();
    while let Some(mut sweep) = hub.driver().next_sweep() {
        let mut more = true;
        while more {
            more = sweep.collect(&mut batch);
            batch.wake();
            batch.clear();
            others();
        }
    }
}

/// The timers of the driver at a tick. Returns the writes for the reactor.
fn tick_timers(hub: &Hub, tick: u32) -> Vec<WriteOp> {
    let (mut due, mut batch) = (Vec::new(), Batch::default());
    hub.driver().tick(Tick(tick), &mut Vec::new());
    hub.driver().timers(Tick(tick), &mut due);
    hub.driver().fire(&due, &mut batch);
    batch.wake();
    batch.writes
}

fn text(polled: Poll<Option<Frame>>) -> Option<String> {
    match polled {
        Poll::Ready(Some(frame)) => {
            Some(String::from_utf8(frame.payload().to_vec()).expect("UTF-8"))
        }
        _ => None,
    }
}
