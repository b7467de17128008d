//! The driver's turns, counted, in virtual time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http_body::Body;

use super::Driver;
use crate::config::HubConfig;
use crate::hub::{Hub, Keys, View};
use crate::ids::OrgName;
use crate::stream::{Clock, EventStream};

/// Counts what it wakes.
#[derive(Debug, Default)]
struct Woken(AtomicUsize);

/// Streams of some orgs, each waiting for its next event.
struct Streams {
    hub: Hub,
    clock: Clock,
    orgs: Vec<OrgName>,
    streams: Vec<EventStream>,
    woken: Arc<Woken>,
}

// ===== impl Woken =====

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

// ===== impl Streams =====

impl Streams {
    fn open(orgs: usize, of_each: usize, coalesce: Duration) -> Self {
        let (hub, clock) =
            (Hub::new(HubConfig { coalesce, ..HubConfig::default() }), Clock::start());
        let orgs: Vec<OrgName> =
            (0..orgs).map(|n| format!("org-{n}").parse().expect("a name")).collect();
        let subscribers = orgs.iter().flat_map(|org| std::iter::repeat_n(org, of_each));
        let open = |org| EventStream::open(&hub, org, View::Member, None, clock.now());
        let streams = subscribers.map(|org| open(org).expect("not closing")).collect();
        let mut all = Self { hub, clock, orgs, streams, woken: Arc::default() };
        all.poll();
        all
    }

    /// Takes what there is. Returns how many events that were.
    fn poll(&mut self) -> usize {
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut taken = 0;
        for stream in &mut self.streams {
            while let Poll::Ready(Some(_)) = Pin::new(&mut *stream).poll_frame(&mut cx) {
                taken += 1;
            }
        }
        taken
    }

    fn publish(&self) {
        let keys = Keys::new(["posts"], self.hub.config()).expect("a key");
        for org in &self.orgs {
            self.hub.publish(org, &keys, self.clock.now());
        }
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Relaxed)
    }
}

/// The turns that a driver needs until it has notified 400 subscribers of so many orgs.
fn turns_to_notify_400(orgs: usize) -> usize {
    let streams = Streams::open(orgs, 400 / orgs, Duration::ZERO);
    let mut driver = Driver::new(streams.hub.clone(), streams.clock, ());
    streams.publish();
    let mut turns = 0;
    while streams.woken() < 400 {
        driver.turn();
        turns += 1;
    }
    assert_eq!(streams.woken(), 400);
    turns
}

/// SCENARIO: a worker is busy, so that its driver has a turn now and then, and 400 orgs of one subscriber each are
/// published to.
/// BUG: a turn swept one channel, whether it had one seat or 32, so these orgs waited for 400 turns and an org of
/// 400 subscribers for 13.
/// FIX: a turn goes on with the next channel until it has notified as many subscribers as a turn may.
#[tokio::test(start_paused = true)]
async fn orgs_of_one_subscriber_are_notified_in_as_many_turns_as_one_org() {
    let one = turns_to_notify_400(1);
    for orgs in [400, 100, 16] {
        let turns = turns_to_notify_400(orgs);
        assert!(turns <= one + 1, "{orgs} orgs take {turns} turns, one takes {one}");
    }
}
