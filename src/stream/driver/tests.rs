//! The driver's turns, counted, in virtual time.

mod sweeps;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::Body;

use super::{Driver, Sockets, drive, drive_with, yield_now};
use crate::config::HubConfig;
use crate::hub::{Batch, Hub, Keys, View};
use crate::ids::OrgName;
use crate::stream::{Clock, EventStream};
use crate::sync::{Mutex, Wakes};
use crate::time::Time;

/// Streams of some orgs, each waiting for its next event.
struct Streams {
    hub: Hub,
    clock: Clock,
    orgs: Vec<OrgName>,
    streams: Vec<EventStream>,
    wakes: Arc<Wakes>,
}

/// Sockets to which the writes of a turn take a tenth of a millisecond.
struct SlowSockets;

// ===== impl Streams =====

impl Streams {
    fn open(orgs: usize, of_each: usize, coalesce: Duration) -> Self {
        let hub = Hub::new(HubConfig { coalesce, ..HubConfig::default() });
        Self::open_on(hub, Clock::start(), orgs, of_each)
    }

    fn open_on(hub: Hub, clock: Clock, orgs: usize, of_each: usize) -> Self {
        let orgs: Vec<OrgName> =
            (0..orgs).map(|n| format!("org-{n}").parse().expect("a name")).collect();
        let subscribers = orgs.iter().flat_map(|org| std::iter::repeat_n(org, of_each));
        let open = |org| EventStream::open(&hub, org, View::Member, None, clock.now());
        let streams = subscribers.map(|org| open(org).expect("not closing")).collect();
        let mut all = Self { hub, clock, orgs, streams, wakes: Arc::default() };
        all.poll();
        all
    }

    /// Has each stream take what there is. Returns how many of them took something.
    fn poll(&mut self) -> usize {
        let waker = Waker::from(self.wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let mut taken = 0;
        for stream in &mut self.streams {
            let mut next = || Pin::new(&mut *stream).poll_frame(&mut cx);
            if matches!(next(), Poll::Ready(Some(_))) {
                while let Poll::Ready(Some(_)) = next() {}
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
        self.wakes.count()
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

impl Sockets for SlowSockets {
    fn turn(&mut self, _: Time) -> bool {
        false
    }

    fn apply(&mut self, _: &mut Batch) {
        pass(Duration::from_micros(100));
    }

    fn tick(&mut self, _: Time) {}

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn drain(&mut self) {}
}

fn pass(time: Duration) {
    let mut pass = pin!(tokio::time::advance(time));
    // Time has passed after the first poll.
    _ = pass.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

/// How often the other tasks of the worker run, for so long each time, until 3,200 subscribers are notified.
async fn rounds_of_others(round: Duration) -> usize {
    let streams = Streams::open(1, 3_200, Duration::ZERO);
    let driver = tokio::spawn(drive_with(streams.hub.clone(), streams.clock, SlowSockets));
    let others = tokio::spawn(async move {
        streams.publish();
        let mut rounds = 0;
        while streams.woken() < 3_200 {
            pass(round);
            rounds += 1;
            yield_now().await;
        }
        rounds
    });
    let rounds = others.await.expect("it ends");
    driver.abort();
    rounds
}

/// SCENARIO: clients send requests as fast as they can, so that the other tasks of a worker run for milliseconds
/// between two turns of its driver, and an org of 3,200 is published to, which takes 100 turns or 10 ms.
/// BUG: after each turn, of 0.1 ms, the others ran: deliveries had a fiftieth of the time.
/// FIX: the driver goes on for as long as the others have just run, within 0.3 and 10 ms.
#[tokio::test(start_paused = true)]
async fn requests_do_not_starve_deliveries() {
    for (round_us, rounds) in [(10, 25..=36), (1_000, 9..=13), (5_000, 2..=4), (50_000, 1..=3)] {
        let needed = rounds_of_others(Duration::from_micros(round_us)).await;
        assert!(rounds.contains(&needed), "{needed} rounds of {round_us} us");
    }
}

/// Ticks come once a second, and a little late on a busy machine.
#[tokio::test(start_paused = true)]
async fn a_driver_notices_a_pause_by_a_late_tick() {
    let (hub, clock) = (Hub::new(HubConfig::default()), Clock::start());
    let mut driver = Driver::new(hub.clone(), clock, ());
    for _ in 0..20 {
        pass(Duration::from_millis(1_400));
        driver.turn();
        // This tick is 0.4 s late, the other one in time.
        assert_eq!(hub.resumed(Duration::from_secs(1)), Time(0), "at {:?}", clock.now());
        pass(Duration::from_millis(600));
        driver.turn();
    }
    for paused in [2_500, 600_000] {
        pass(Duration::from_millis(paused));
        driver.turn();
        assert_eq!(hub.resumed(Duration::from_secs(1)), clock.now());
    }
}

/// Sockets that are ready again after each turn, as if other threads published all the time.
struct ReadySockets(Arc<AtomicUsize>);

const READY_TURNS: usize = 10_000;

impl Sockets for ReadySockets {
    fn turn(&mut self, _: Time) -> bool {
        self.0.fetch_add(1, Relaxed);
        pass(Duration::from_micros(100));
        false
    }

    fn apply(&mut self, _: &mut Batch) {}

    fn tick(&mut self, _: Time) {}

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        if self.0.load(Relaxed) < READY_TURNS { Poll::Ready(()) } else { Poll::Pending }
    }

    fn drain(&mut self) {}
}

/// SCENARIO: each turn of a driver does all there is, and there is new work whenever it is about to wait.
/// BUG: it neither waited nor yielded, and the other tasks of its worker did not run.
/// FIX: its share of time ends only once it has waited.
#[tokio::test(start_paused = true)]
async fn a_driver_with_new_work_after_each_turn_lets_the_others_run() {
    let turns = Arc::new(AtomicUsize::new(0));
    let sockets = ReadySockets(turns.clone());
    let driver = tokio::spawn(drive_with(Hub::new(HubConfig::default()), Clock::start(), sockets));
    let others = tokio::spawn(async move { turns.load(Relaxed) });
    let before = others.await.expect("it ends");
    driver.abort();
    assert!(before <= 4, "the others waited for {before} turns");
}

/// SCENARIO: a server of two workers drains over a minute. One worker has no stream, so its driver has ended, and a
/// publisher's connection is served there: the last publishes of a burst are held in that worker's windows.
/// BUG: these windows were closed when the next stream of that org was due to end, seconds later.
/// FIX: a driver that ends leaves its windows to drivers that have not, and so do later publishes.
#[tokio::test(start_paused = true)]
async fn a_burst_is_delivered_in_time_though_its_workers_driver_has_ended() {
    for held_before_the_drain in [true, false] {
        let config = HubConfig { coalesce: Duration::from_millis(50), ..HubConfig::default() };
        let (hub, clock) = (Hub::with_shards(config, 2), Clock::start());
        let (empty, busy) = (hub.on_shard(0), hub.on_shard(1));
        let streams = Streams::open_on(busy.clone(), clock, 2, 3);
        let mut streams = Streams { hub: empty.clone(), ..streams };
        let other = tokio::spawn(drive(busy, clock));
        streams.publish();
        tokio::task::yield_now().await;
        assert_eq!(streams.poll(), 6);
        if held_before_the_drain {
            streams.publish();
        }
        hub.drain(clock.now(), Duration::from_secs(60));
        // It has no stream.
        drive(empty, clock).await;
        if !held_before_the_drain {
            wait(Duration::from_millis(1)).await;
            streams.publish();
        }
        wait(Duration::from_millis(100)).await;
        assert_eq!(streams.poll(), 6, "held before the drain: {held_before_the_drain}");
        other.abort();
    }
}

/// When a stream last received something, and the longest and the shortest silence before a comment or an event.
#[derive(Debug)]
struct Silence {
    last: Time,
    longest: u64,
    shortest_before_a_comment: u64,
}

/// Reads a stream for as long as it lives.
async fn read(mut stream: EventStream, clock: Clock, silence: Arc<Mutex<Silence>>) {
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut stream).poll_frame(cx)).await {
        let bytes = frame.map(|frame| frame.into_data()).expect("infallible").expect("data");
        let (mut silence, now) = (silence.lock(), clock.now());
        let gap = now.0 - silence.last.0;
        silence.last = now;
        silence.longest = silence.longest.max(gap);
        if bytes.starts_with(b":") {
            silence.shortest_before_a_comment = silence.shortest_before_a_comment.min(gap);
        }
    }
}

/// SCENARIO: a proxy ends what is silent for 30 s, and the keepalive period is 30 s.
/// BUG: keepalives came up to a quarter of the period, and a tick, later than that.
/// FIX: they come at 75 to 100 % of the period, and not in its last second, so that a late tick is in time, too.
#[tokio::test(start_paused = true)]
async fn no_stream_is_silent_for_longer_than_the_keepalive_period() {
    for seconds in [1, 2, 3, 4, 7, 20, 30] {
        let config = HubConfig {
            keepalive: Duration::from_secs(seconds),
            coalesce: Duration::ZERO,
            ..HubConfig::default()
        };
        let (hub, clock) = (Hub::new(config), Clock::start());
        let driver = tokio::spawn(drive(hub.clone(), clock));
        let mut silences = Vec::new();
        for n in 0..200 {
            wait(Duration::from_millis(37)).await;
            let org: OrgName = format!("org-{}", n % 20).parse().expect("a name");
            let stream = EventStream::open(&hub, &org, View::Member, None, clock.now());
            let last = clock.now();
            let silence = Silence { last, longest: 0, shortest_before_a_comment: u64::MAX };
            let silence = Arc::new(Mutex::new(silence));
            silences.push(silence.clone());
            tokio::spawn(read(stream.expect("not closing"), clock, silence));
        }
        // Some orgs have events now and then, some never.
        for n in 0..100 {
            wait(Duration::from_millis(seconds * 97)).await;
            let org: OrgName = format!("org-{}", n % 7).parse().expect("a name");
            let keys = Keys::new(["k"], hub.config()).expect("a key");
            hub.publish(&org, &keys, clock.now());
        }
        driver.abort();
        let silences: Vec<_> = silences.iter().map(|silence| silence.lock()).collect();
        let longest = silences.iter().map(|silence| silence.longest).max().expect("some");
        let shortest = silences.iter().map(|silence| silence.shortest_before_a_comment).min();
        let (reserve, rounding) = (1_000 * u64::from(seconds > 1), 2);
        assert!(longest <= seconds * 1_000 - reserve + rounding, "{longest} ms of {seconds} s");
        let least = (seconds - seconds / 4).min((seconds - 1).max(1)) - 1;
        assert!(shortest.expect("some") >= least * 1_000, "{shortest:?} ms of {seconds} s");
    }
}

#[expect(clippy::disallowed_methods, reason = "virtual time")]
async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
}
