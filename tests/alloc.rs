//! Allocations, counted by the allocator: none for a delivery, the same number for a publish with any number of
//! subscribers, and a bounded number of bytes for a seat.

mod counting;
#[path = "counting/heartbeats.rs"]
mod heartbeats;
#[cfg(feature = "server")]
#[path = "counting/log.rs"]
mod log;
#[path = "counting/topics.rs"]
mod topics;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use counting::{LIVE_BLOCKS, LIVE_BYTES, allocations};
use http_body::Body;
use nudged::config::{HubConfig, PublicPolicy};
use nudged::hub::{Filter, Hub, Keys, View};
use nudged::ids::OrgName;
use nudged::stream::{Clock, EventStream, drive};
use nudged::time::Time;

fn uncoalesced() -> HubConfig {
    HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() }
}

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

/// Polls once; returns whether there was a frame.
fn poll(stream: &mut EventStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(Pin::new(stream).poll_frame(&mut cx), Poll::Ready(Some(Ok(_))))
}

/// Polls once, and keeps half of the frame, as a client that reads slowly.
fn cut(stream: &mut EventStream) -> Option<Bytes> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(frame))) = Pin::new(stream).poll_frame(&mut cx) else { return None };
    frame.into_data().ok().map(|data| data.slice(data.len() / 2..))
}

/// Polls the driver until it has no work left. It wakes itself between turns, so it is polled a fixed number of
/// times.
fn settle(driver: &mut Pin<&mut impl Future<Output = ()>>) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2_000 {
        assert!(
            driver.as_mut().poll(&mut cx).is_pending(),
            "a driver of a living hub does not end"
        );
    }
}

/// The tests run one after the other, because the counters cover the whole process.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn allocations_are_bounded() {
    #[cfg(feature = "server")]
    log::is_bounded();
    a_delivery_allocates_nothing_and_a_publish_a_fixed_number();
    a_skipped_event_and_a_filtered_keepalive_allocate_nothing().await;
    filters_cost_8_bytes_a_seat_and_nothing_once_they_are_gone();
    a_stream_leaves_nothing_behind().await;
    invented_orgs_stay_within_the_budget().await;
    a_hub_leaves_nothing_behind();
    histories_cost_no_more_than_their_bound();
    cut_events_count_until_they_are_freed();
    a_seat_costs_at_most_80_bytes();
    topics::are_bounded().await;
    heartbeats::are_bounded().await;
}

fn a_delivery_allocates_nothing_and_a_publish_a_fixed_number() {
    let mut by_publish = Vec::new();
    // Some of both views.
    for subscribers in [2, 100, 10_000] {
        let (hub, clock) = (Hub::new(uncoalesced()), Clock::start());
        let mut driver = pin!(drive(hub.clone(), clock));
        let views = [View::Member, View::Public].into_iter().cycle();
        let open = |view| EventStream::open(&hub, &org(), view, None, clock.now());
        let mut streams: Vec<_> =
            views.take(subscribers).map(|view| open(view).expect("not closing")).collect();
        // One of them is public, so that the event has two encodings.
        let keys = Keys::new(["posts", "entity-types"], hub.config()).expect("two keys");
        let mut counts = Vec::new();
        for round in 0..12 {
            // The first round reads the greetings; in each, every poll but the last returns a frame.
            streams.iter_mut().for_each(|stream| while poll(stream) {});
            let publish = allocations(|| hub.publish(&org(), &keys, clock.now()));
            let delivery = allocations(|| {
                settle(&mut driver);
                streams.iter_mut().for_each(|stream| assert!(poll(stream)));
            });
            // The first rounds grow the buffers that are reused.
            if round >= 8 {
                assert_eq!(delivery, 0, "{subscribers} deliveries");
                counts.push(publish);
            }
        }
        by_publish.push(counts);
    }
    println!("allocations of one publish: {by_publish:?}");
    // The rings of both histories grow at the same publishes for any number of subscribers.
    assert!(by_publish.iter().all(|counts| *counts == by_publish[0]), "{by_publish:?}");
    assert!(by_publish[0].iter().all(|count| *count <= 10), "{by_publish:?}");
}

async fn a_stream_leaves_nothing_behind() {
    let (hub, clock) = (Hub::new(uncoalesced()), Clock::start());
    tokio::spawn(drive(hub.clone(), clock));
    let wave = |n: usize| {
        let open = || EventStream::open(&hub, &org(), View::Member, None, clock.now());
        drop((0..n).map(|_| open().expect("not closing")).collect::<Vec<_>>());
    };
    let quiet = || async {
        // Time is paused: it advances as soon as the runtime is idle.
        #[expect(clippy::disallowed_methods, reason = "the test waits, not the server")]
        tokio::time::sleep(Duration::from_secs(60)).await;
        LIVE_BYTES.load(Relaxed)
    };
    wave(100);
    let before = quiet().await;
    for _ in 0..20 {
        wave(10_000);
    }
    let after = quiet().await;
    println!("live bytes before and after 200,000 streams: {before}, {after}");
    assert!(after <= before + 4 * 1024, "{before} bytes became {after}");
}

/// The keepalive is encoded once for all streams.
async fn a_skipped_event_and_a_filtered_keepalive_allocate_nothing() {
    const STREAMS: usize = 10_000;
    let config = HubConfig { history_events: 8, ..uncoalesced() };
    let (hub, clock) = (Hub::new(config), Clock::start());
    let mut driver = pin!(drive(hub.clone(), clock));
    let filter = Filter::new(["posts", "feed:*"], hub.config()).expect("two patterns");
    let open = || EventStream::open(&hub, &org(), View::Member, None, clock.now());
    let mut streams: Vec<_> =
        (0..STREAMS).map(|_| open().expect("not closing").with_filter(filter)).collect();
    streams.iter_mut().for_each(|stream| while poll(stream) {});
    let keys = Keys::new(["users"], hub.config()).expect("a key");
    let mut publishes = Vec::new();
    for round in 0..30 {
        publishes.push(allocations(|| hub.publish(&org(), &keys, clock.now())));
        let skipped = allocations(|| settle(&mut driver));
        // The first rounds grow the buffers that are reused.
        assert!(round < 4 || skipped == 0, "{skipped} allocations for skipped events");
    }
    assert!(!streams.iter_mut().any(poll), "nothing was sent");
    let (first, last) = (publishes[28], publishes[29]);
    println!("allocations of a publish that {STREAMS} streams skip: {last}");
    assert!(first == last && last <= 8, "{publishes:?}");
    let mut counts = Vec::new();
    for _ in 0..3 {
        tokio::time::advance(hub.config().keepalive).await;
        counts.push(allocations(|| {
            settle(&mut driver);
            streams.iter_mut().for_each(|stream| assert!(poll(stream), "a keepalive"));
            streams.iter_mut().for_each(|stream| assert!(!poll(stream)));
        }));
        hub.publish(&org(), &keys, clock.now());
        settle(&mut driver);
    }
    // The wheel grows and shrinks a slot now and then.
    println!("allocations for {STREAMS} keepalives: {counts:?}");
    assert!(counts.iter().all(|count| *count < STREAMS / 10), "{counts:?}");
}

fn filters_cost_8_bytes_a_seat_and_nothing_once_they_are_gone() {
    const SEATS: usize = 10_000;
    let hub = Hub::new(uncoalesced());
    let subscribe = |_| hub.subscribe(&org(), View::Member, None, Time(0)).expect("not closing").0;
    let mut seats: Vec<_> = (0..SEATS).map(subscribe).collect();
    let keys = Keys::new(["users"], hub.config()).expect("a key");
    let filter = Filter::new(["posts"], hub.config()).expect("a pattern");
    // So many that the numbers in the history have as many digits as those of the events after them.
    (0..400).for_each(|_| _ = hub.publish(&org(), &keys, Time(0)));
    let before = LIVE_BYTES.load(Relaxed);
    seats.iter_mut().for_each(|seat| seat.set_filter(filter));
    (0..300).for_each(|_| _ = hub.publish(&org(), &keys, Time(0)));
    let more = LIVE_BYTES.load(Relaxed) - before;
    println!("{SEATS} filters: {more} bytes");
    // Their array may be half empty; beside it is what is known of 256 events.
    assert!(more <= 2 * 8 * SEATS + 8 * 1_024, "{more} bytes");
    seats.iter_mut().for_each(|seat| seat.set_filter(Filter::ALL));
    assert_eq!(LIVE_BYTES.load(Relaxed), before);
}

/// Bytes of an idle org beside its history: its channel, its name, its entry in the registry, and the one event of each
/// view that is always kept.
const IDLE_ORG_BYTES: usize = 1_536;

/// So many that a leak of 64 bytes for each would exceed the budget.
const NAMES: usize = 200_000;

/// Publishes to each of many orgs before, during and after a subscription to it.
///
/// SCENARIO: within one tick, a client publishes to, subscribes to and leaves far more orgs than the budget has room
/// for.
/// BUG: both wheels purged the entries of freed seats only at a tick, and each entry kept its channel's block
/// allocated.
/// FIX: both purge their stale entries as soon as these outnumber the live ones.
async fn invented_orgs_stay_within_the_budget() {
    let budget = HubConfig {
        public: everything_is_public(),
        history_bytes_total: 1 << 20,
        idle_channels_max: 4_096,
        stream_age_max: Some(Duration::from_secs(3_600)),
        ..uncoalesced()
    };
    let most = budget.history_bytes_total + budget.idle_channels_max * 9 / 8 * IDLE_ORG_BYTES;
    let (hub, clock) = (Hub::new(budget), Clock::start());
    tokio::spawn(drive(hub.clone(), clock));
    let keys = Keys::new(["posts"], hub.config()).expect("a key");
    let (before, mut peak) = (LIVE_BYTES.load(Relaxed), 0);
    for n in 0..NAMES {
        let org = format!("invented-{n}").parse().expect("a name");
        hub.publish(&org, &keys, clock.now());
        let open = |view| EventStream::open(&hub, &org, view, None, clock.now());
        let streams = [View::Public, View::Member].map(open);
        hub.publish(&org, &keys, clock.now());
        hub.publish(&org, &keys, clock.now());
        streams.into_iter().for_each(|stream| drop(stream.expect("not closing")));
        hub.publish(&org, &keys, clock.now());
        if n % 256 == 0 {
            // The driver runs, but no time passes: everything happens within one tick.
            for _ in 0..1_024 {
                tokio::task::yield_now().await;
            }
            peak = peak.max(LIVE_BYTES.load(Relaxed).saturating_sub(before));
        }
    }
    println!("{NAMES} invented orgs: at most {peak} bytes of {most}, {} orgs", hub.channels());
    assert!(peak <= most, "{peak} bytes of {most}");
}

/// SCENARIO: an application drops a hub that still has work for its driver, or drops a driver in the middle of a
/// sweep, while it holds the last handle.
/// BUG: the remaining work referred to its channels, these to their shards, and these to the work: a cycle. The sweep
/// was put back after the last handle had dropped the work.
/// FIX: remaining work keeps no channel alive.
fn a_hub_leaves_nothing_behind() {
    let before = LIVE_BLOCKS.load(Relaxed);
    let hub = Hub::new(HubConfig::default());
    let keys = Keys::new(["posts"], hub.config()).expect("a key");
    let stream = EventStream::open(&hub, &org(), View::Member, None, Time(0)).expect("open");
    // The first event is left to be swept, the second waits for the end of its burst window.
    hub.publish(&org(), &keys, Time(0));
    hub.publish(&org(), &keys, Time(1));
    drop(keys);
    drop(stream);
    drop(hub);
    assert_eq!(LIVE_BLOCKS.load(Relaxed), before);

    let hub = Hub::new(uncoalesced());
    let open = |_| EventStream::open(&hub, &org(), View::Member, None, Time(0)).expect("open");
    let mut streams: Vec<_> = (0..1_000).map(open).collect();
    streams.iter_mut().for_each(|stream| while poll(stream) {});
    hub.publish(&org(), &Keys::new(["posts"], hub.config()).expect("a key"), Time(0));
    let mut driver = Box::pin(drive(hub, Clock::start()));
    assert!(driver.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(streams);
    drop(driver);
    assert_eq!(LIVE_BLOCKS.load(Relaxed), before);
}

/// Orgs with a subscriber each of these views, which reads nothing.
fn orgs_with_streams(hub: &Hub, count: usize, views: &[View]) -> Vec<(OrgName, Vec<EventStream>)> {
    let orgs = (0..count).map(|n| format!("org-{n}").parse::<OrgName>().expect("a name"));
    let open =
        |org: &_, view: &_| EventStream::open(hub, org, *view, None, Time(0)).expect("not closing");
    orgs.map(|org| (org.clone(), views.iter().map(|view| open(&org, view)).collect())).collect()
}

fn everything_is_public() -> PublicPolicy {
    PublicPolicy { keys: ["*"].iter().collect(), ..PublicPolicy::default() }
}

/// Publishes this many events, of sizes around `key_bytes`, to one org after the other. Returns the most bytes that
/// were allocated meanwhile.
fn publish_to(
    hub: &Hub,
    orgs: &[(OrgName, Vec<EventStream>)],
    events: usize,
    key_bytes: usize,
) -> usize {
    let sizes = [key_bytes, key_bytes / 2 + 1, key_bytes * 3 / 2, 1];
    let keys = sizes.map(|size| ["x".repeat(size)]);
    let keys = keys.each_ref().map(|key| Keys::new(key, hub.config()).expect("a key"));
    let mut most = 0;
    for n in 0..events {
        // Some orgs are published to more often than others.
        let org = &orgs[n * n % orgs.len()].0;
        hub.publish(org, &keys[n % 4 * (n % 3) % 4], Time(0));
        most = most.max(LIVE_BYTES.load(Relaxed));
    }
    most
}

/// What the orgs may cost beside their histories, in bytes: their entries in the inbox of the driver, for example.
const BESIDE: usize = 256 * 1024;

/// SCENARIO: small events fill the histories of many orgs.
/// BUG: only the text of the events was counted: `--history-bytes-total` of 32 MiB took 118 MiB.
/// FIX: what is counted is what an event costs, and a history gives back what it no longer needs.
fn histories_cost_no_more_than_their_bound() {
    const BOUND: usize = 4 << 20;
    let (members, both) = (&[View::Member][..], &[View::Member, View::Public][..]);
    let orgs = [(1, 8), (40, 8), (2_000, 8), (300, 100), (40, 5_000), (2_000, 300)];
    let orgs = orgs.map(|(orgs, key_bytes)| (orgs, key_bytes, members)).into_iter();
    for (orgs, key_bytes, views) in orgs.chain([(40, 8, both), (2_000, 300, both)]) {
        let limits = HubConfig {
            history_bytes: BOUND,
            history_bytes_total: BOUND,
            history_events: 1_000_000,
            key_bytes_max: 1 << 20,
            public: everything_is_public(),
            ..uncoalesced()
        };
        let hub = Hub::new(limits);
        let orgs = orgs_with_streams(&hub, orgs, views);
        let before = LIVE_BYTES.load(Relaxed);
        let most = publish_to(&hub, &orgs, 60_000, key_bytes) - before;
        let count = orgs.len();
        println!("{count} orgs, {views:?}, keys of {key_bytes}: {most} bytes of {BOUND}");
        assert!(most <= BOUND * 11 / 10 + BESIDE, "{most} bytes");
        assert!(most >= BOUND * 7 / 10, "{most} bytes");
    }
}

/// SCENARIO: clients that read slowly have received a part of an event each when the history evicts it.
/// BUG: the rests kept these events in memory, and no limit counted them.
/// FIX: an event counts until its last reference is dropped.
fn cut_events_count_until_they_are_freed() {
    const BOUND: usize = 4 << 20;
    let limits = HubConfig {
        history_bytes: BOUND,
        history_bytes_total: BOUND,
        key_bytes_max: 1 << 20,
        ..uncoalesced()
    };
    let hub = Hub::new(limits);
    let mut orgs = orgs_with_streams(&hub, 40, &[View::Member]);
    let before = LIVE_BYTES.load(Relaxed);
    let mut rests = Vec::new();
    for round in 0..40 {
        publish_to(&hub, &orgs[round..=round], 1, 60_000);
        // The greeting, and the event.
        rests.extend([0; 2].iter().filter_map(|_| cut(&mut orgs[round].1[0])));
    }
    // Evicts them.
    let most = publish_to(&hub, &orgs, 20_000, 500) - before;
    println!("with {} rests: {most} bytes of {BOUND}", rests.len() / 2);
    assert!(most <= BOUND * 11 / 10 + BESIDE, "{most} bytes");
    drop(rests);
    // There is room for other events now.
    publish_to(&hub, &orgs, 20_000, 500);
    let used = LIVE_BYTES.load(Relaxed) - before;
    assert!((BOUND * 7 / 10..=BOUND * 11 / 10 + BESIDE).contains(&used), "{used} bytes");
}

fn a_seat_costs_at_most_80_bytes() {
    const SEATS: usize = 1_000_000;
    let hub = Hub::new(uncoalesced());
    let mut subscriptions = Vec::with_capacity(SEATS);
    let (before, blocks_before) = (LIVE_BYTES.load(Relaxed), LIVE_BLOCKS.load(Relaxed));
    let now = Time(0);
    for _ in 0..SEATS {
        let subscribed = hub.subscribe(&org(), View::Member, None, now);
        subscriptions.push(subscribed.expect("not closing").0);
    }
    let bytes = (LIVE_BYTES.load(Relaxed) - before) as f64 / SEATS as f64;
    let blocks = LIVE_BLOCKS.load(Relaxed) - blocks_before;
    println!("hub and wheel: {bytes:.1} bytes a seat at {SEATS} seats, {blocks} blocks in all");
    assert!(bytes <= 80.0, "{bytes:.1} bytes a seat");
    // The slab, the slots of the wheel, the channel: no block of its own for any seat.
    assert!(blocks <= 128, "{blocks} blocks");
    assert_eq!(hub.seats(), SEATS);
}
