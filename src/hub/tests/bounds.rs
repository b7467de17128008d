//! The bounds of the hub: silence, histories, number of orgs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::Bell;
use crate::config::{EVENT_BYTES_MAX, HubConfig, PublicPolicy};
use crate::hub::{Batch, Hub, Keys, Positions, Subscription, View};
use crate::ids::{EventId, OrgName, Seq};
use crate::time::{Tick, Time};
use crate::wire::Greeting;

fn keepalive_hub(seconds: u64) -> (Hub, Subscription, Arc<Bell>) {
    let keepalive = Duration::from_secs(seconds);
    let hub = Hub::new(HubConfig { keepalive, coalesce: Duration::ZERO, ..HubConfig::default() });
    let org = "acme".parse().expect("a name");
    let (subscription, _) = hub.subscribe(&org, View::Member, None, Time(0)).expect("open");
    (hub, subscription, Arc::new(Bell(AtomicBool::new(false))))
}

fn tick(hub: &Hub, tick: u32) {
    let (mut due, mut batch) = (Vec::new(), Batch::default());
    hub.driver().tick(Tick(tick), &mut due);
    hub.driver().keep_alive(&due, &mut batch);
    batch.wake();
}

fn drive(hub: &Hub) {
    while let Some(mut sweep) = hub.driver().next_sweep() {
        let mut batch = Batch::default();
        while sweep.collect(&mut batch) {}
        batch.wake();
    }
}

proptest! {
    /// A keepalive comment is sent after 75 to 100 % of the period without a delivery, less a tick.
    ///
    /// SCENARIO: the wheel finds a seat silent; before its task runs, an event is published.
    /// BUG: the task delivered the event and, right after it, the comment that was still due.
    /// FIX: every delivery restarts the period.
    #[test]
    fn a_silent_stream_gets_a_comment_before_the_period_ends(period in 2..60u64, events in prop::collection::vec(1..200u32, 0..6)) {
        let (hub, mut subscription, bell) = keepalive_hub(period);
        let waker = Waker::from(bell.clone());
        prop_assert!(subscription.poll_next(&waker).is_pending());
        let events: Vec<u32> = events.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        let (mut last, mut seen) = (0, 0);
        let end = events.last().unwrap_or(&0) + 300;
        let period = u32::try_from(period).expect("small");
        for now in 1..end {
            tick(&hub, now);
            if events.contains(&now) {
                let keys = Keys::new(["k"], hub.config()).expect("a key");
                hub.publish(&"acme".parse().expect("a name"), &keys, Time(u64::from(now) * 1_000));
            }
            drive(&hub);
            // A task polls only if it was woken.
            let woken = bell.0.swap(false, Ordering::Relaxed);
            while woken && let Poll::Ready(Some(frame)) = subscription.poll_next(&waker) {
                let silence = now - last;
                prop_assert!(silence < period, "silent for {}", silence);
                if frame.payload().starts_with(b":") {
                    prop_assert!(silence >= (period - period / 4).min(period - 1), "{} after {}", silence, period);
                    seen += 1;
                }
                last = now;
            }
            prop_assert!(now - last < period, "silent for {}", now - last);
        }
        prop_assert!(seen >= 2);
    }
}

#[test]
fn an_org_is_removed_once_no_client_can_resume() {
    let (hub, subscription, _) = keepalive_hub(30);
    assert_eq!(hub.channels(), 1);
    let tidy = |seconds: u64| {
        (0..64).for_each(|part| hub.driver().tidy(Tick(part), Time(seconds * 1_000)))
    };
    tidy(3_600);
    assert_eq!(hub.channels(), 1, "it has a subscriber");
    hub.driver().tick(Tick(3_600), &mut Vec::new());
    drop(subscription);
    tidy(3_600 + 299);
    assert_eq!(hub.channels(), 1, "its last client may resume");
    tidy(3_600 + 300);
    assert_eq!(hub.channels(), 0);
}

#[test]
fn invented_orgs_stay_within_their_bound() {
    let hub = Hub::new(HubConfig { idle_channels_max: 640, ..HubConfig::default() });
    for n in 0..20_000 {
        let org = format!("org-{n}").parse().expect("a name");
        drop(hub.subscribe(&org, View::Member, None, Time(n)).expect("open"));
        assert!(hub.channels() <= 640 + 64 * 2 || n % 97 != 0, "{} after {n}", hub.channels());
    }
    assert!(hub.channels() <= 640 + 64 * 2);
}

#[test]
fn orgs_that_are_invented_for_their_positions_stay_within_their_bound() {
    let hub = Hub::new(HubConfig { idle_channels_max: 640, ..HubConfig::default() });
    for n in 0..20_000 {
        hub.position(&format!("org-{n}").parse().expect("a name"), Time(n));
        assert!(hub.channels() <= 640 + 64 * 2 || n % 97 != 0, "{} after {n}", hub.channels());
    }
    assert!(hub.channels() <= 640 + 64 * 2);
}

/// From the last time that it is read, the streams of both views are resumed; afterwards there is a new run.
#[test]
fn a_position_is_remembered_for_the_age_of_the_history() {
    let hub = Hub::new(HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() });
    let org: OrgName = "acme".parse().expect("a name");
    let first = hub.position(&org, Time(0));
    let tidy = |seconds: u64| {
        (0..64).for_each(|part| hub.driver().tidy(Tick(part), Time(seconds * 1_000)))
    };
    tidy(299);
    assert_eq!(hub.position(&org, Time(200_000)), first, "the same run");
    tidy(499);
    let keys = Keys::new(["entity-types"], hub.config()).expect("a key");
    assert!(hub.publish(&org, &keys, Time(499_000)).id.is_some());
    let ids = |of: Positions| [(View::Member, of.member.id), (View::Public, of.public.unwrap().id)];
    for (view, id) in ids(first) {
        let opened = hub.subscribe(&org, view, Some(id), Time(499_000));
        let (mut stream, greeting) = opened.expect("open");
        assert_eq!(greeting, Greeting::Resumed);
        assert!(stream.poll_next(Waker::noop()).is_ready(), "the event that was published since");
    }
    tidy(500);
    assert_eq!(hub.channels(), 0);
    assert!(ids(first).into_iter().all(|(view, id)| !resumes(&hub, &org, view, id)));
}

#[test]
fn the_longest_idle_orgs_are_evicted_first() {
    let hub = Hub::new(HubConfig { idle_channels_max: 64 * 64, ..HubConfig::default() });
    let subscribe = |n: u32| {
        hub.driver().tick(Tick(n), &mut Vec::new());
        let (org, now) = (format!("org-{n}").parse().expect("a name"), Time(u64::from(n) * 1_000));
        hub.subscribe(&org, View::Member, None, now).expect("open").0.position()
    };
    let runs: Vec<_> = (0..10_000).map(subscribe).collect();
    // 500 orgs do not fill one partition of the registry, but are more than an eviction makes room for.
    assert!((9_500..10_000).map(subscribe).eq(runs[9_500..].iter().copied()), "evicted too early");
}

#[test]
fn histories_stay_within_their_bytes() {
    let limits = HubConfig {
        coalesce: Duration::ZERO,
        history_bytes: 10_000,
        history_bytes_total: 30_000,
        ..HubConfig::default()
    };
    let hub = Hub::new(limits);
    let total = || usize::try_from(hub.shared.common.memory.bytes()).expect("small");
    let mut held = Vec::new();
    for n in 0..10 {
        let org: OrgName = format!("org-{n}").parse().expect("a name");
        held.push(hub.subscribe(&org, View::Member, None, Time(0)).expect("open"));
        for _ in 0..100 {
            let keys = Keys::new(["k".repeat(400)], hub.config()).expect("a key");
            hub.publish(&org, &keys, Time(0));
        }
        assert!((9_000 * (n + 1)).min(20_000) <= total(), "{}", total());
        assert!(total() <= (10_000 * (n + 1)).min(30_000 + 700 * n), "{} after {n}", total());
    }
    let newest_only = 10 * 700;
    assert!((20_000..=30_000 + newest_only).contains(&total()), "{}", total());
    drop(held);
    (0..64).for_each(|part| hub.driver().tidy(Tick(part), Time(600_000)));
    assert_eq!(total(), 0);
}

/// Whether a client that comes back with this id is resumed.
fn resumes(hub: &Hub, org: &OrgName, view: View, id: EventId) -> bool {
    let subscribed = hub.subscribe(org, view, Some(id), Time(0)).expect("open");
    subscribed.1 == Greeting::Resumed
}

/// Within the bytes of an org the larger history gives way: what the public does not see cannot push out what it does,
/// which would reveal it, and what it sees cannot push out all that members see.
#[test]
fn a_flood_in_one_view_leaves_the_other_its_history() {
    let limits = HubConfig {
        coalesce: Duration::ZERO,
        history_bytes: 20_000,
        public: PublicPolicy { keys: ["p*"].iter().collect(), ..PublicPolicy::default() },
        ..HubConfig::default()
    };
    let hub = Hub::new(limits);
    let org: OrgName = "acme".parse().expect("a name");
    let streams = [View::Member, View::Public]
        .map(|view| hub.subscribe(&org, view, None, Time(0)).expect("open").0);
    let [member, public] = streams.each_ref().map(Subscription::position);
    let publish = |key: &str, times: usize| {
        let keys = Keys::new([key], hub.config()).expect("a key");
        (0..times).for_each(|_| _ = hub.publish(&org, &keys, Time(0)));
        let total = hub.shared.common.memory.bytes();
        assert!(total <= 20_000, "{total}");
    };
    publish("public", 10);
    assert!(resumes(&hub, &org, View::Member, member));
    publish(&format!("secret-{}", "k".repeat(400)), 200);
    assert!(!resumes(&hub, &org, View::Member, member));
    assert!(resumes(&hub, &org, View::Public, public));
    publish(&format!("p-{}", "k".repeat(400)), 200);
    assert!(!resumes(&hub, &org, View::Public, public));
    // Each of them has its share of the bytes.
    let ten_back = |id: EventId, head: u64| EventId { seq: Seq(head - 10), ..id };
    assert!(resumes(&hub, &org, View::Member, ten_back(member, 410)));
    assert!(resumes(&hub, &org, View::Public, ten_back(public, 210)));
    drop(streams);
}

/// An event that a stream has received a part of counts until it has received, or dropped, the rest.
#[test]
fn an_evicted_event_counts_while_a_stream_refers_to_it() {
    let limits = HubConfig { coalesce: Duration::ZERO, history_events: 1, ..HubConfig::default() };
    let hub = Hub::new(limits);
    let org: OrgName = "acme".parse().expect("a name");
    let (mut stream, _) = hub.subscribe(&org, View::Member, None, Time(0)).expect("open");
    let publish = |key: &str| {
        hub.publish(&org, &Keys::new([key], hub.config()).expect("a key"), Time(0));
    };
    publish(&"k".repeat(500));
    let Poll::Ready(Some(frame)) = stream.poll_next(Waker::noop()) else { panic!("an event") };
    let rest = frame.payload().slice(300..);
    drop(frame);
    let bytes = || hub.shared.common.memory.bytes();
    let before = bytes();
    publish("k");
    publish("k");
    assert!(bytes() > before, "{} after {before}", bytes());
    drop(rest);
    assert!(bytes() < before, "{} after {before}", bytes());
    drop((stream, hub));
}

/// A hub with public keys, events of so many bytes, and a subscriber of each view.
fn viewed(coalesce: Duration, event_bytes_max: usize) -> (Hub, OrgName, [Subscription; 2]) {
    let limits = HubConfig {
        coalesce,
        keys_max: 1_000,
        key_bytes_max: EVENT_BYTES_MAX,
        event_bytes_max,
        public: PublicPolicy { keys: ["p*"].into_iter().collect(), ..PublicPolicy::default() },
        ..HubConfig::default()
    };
    let (hub, org) = (Hub::new(limits), "acme".parse().expect("a name"));
    let open = |view| hub.subscribe(&org, view, None, Time(0)).expect("open").0;
    let views = [View::Member, View::Public].map(open);
    (hub, org, views)
}

/// The names of the events that a subscriber gets, and the length of the largest.
fn received(subscription: &mut Subscription) -> (Vec<String>, usize) {
    let (mut names, mut largest) = (Vec::new(), 0);
    while let Poll::Ready(Some(frame)) = subscription.poll_next(Waker::noop()) {
        let payload = frame.payload();
        let text = std::str::from_utf8(&payload).expect("UTF-8");
        let name = text.lines().find_map(|line| line.strip_prefix("event: ")).expect("a name");
        names.push(name.to_owned());
        largest = largest.max(payload.len());
    }
    (names, largest)
}

/// SCENARIO: a publish whose keys are escaped sixfold becomes an event of 700 KB in one line.
/// BUG: it was sent, and broke clients that read at most 64 KiB for a line.
/// FIX: past a bound in bytes, clients re-read everything.
#[test]
fn an_event_past_its_bound_in_bytes_becomes_connected() {
    // Around the key of an event with the number 1.
    const AROUND: usize =
        "id: 0123456789abcdef-1\nevent: invalidate\ndata: {\"keys\":[\"\"]}\n\n".len();
    for first in ["p", "s"] {
        for (more, expected) in [(0, "invalidate"), (1, "connected")] {
            let (hub, org, views) = viewed(Duration::ZERO, EVENT_BYTES_MAX);
            let key = format!("{first}{}", "x".repeat(EVENT_BYTES_MAX - AROUND - 1 + more));
            let keys = Keys::new([key.as_str()], hub.config()).expect("within the limits");
            assert!(hub.publish(&org, &keys, Time(0)).id.is_some());
            for (mut subscription, view) in views.into_iter().zip([View::Member, View::Public]) {
                let (names, largest) = received(&mut subscription);
                assert!(largest <= EVENT_BYTES_MAX);
                // A public stream that does not see the key is not concerned.
                let sees = first == "p" || view == View::Member;
                assert_eq!(names, [expected][..usize::from(sees)], "{key:.1} {view:?}");
            }
        }
    }
}

/// What counts is the text on the wire, in which a byte may be three or six.
#[test]
fn escapes_count_for_the_bound_of_an_event() {
    for key in ["\u{1}", "é", "\u{2028}", "😀"] {
        let (hub, org, views) = viewed(Duration::ZERO, EVENT_BYTES_MAX);
        let key = format!("p{}", key.repeat(11_000));
        let keys = Keys::new([key.as_str()], hub.config()).expect("within the limits");
        hub.publish(&org, &keys, Time(0));
        for mut subscription in views {
            assert_eq!(received(&mut subscription).0, ["connected"]);
        }
    }
}

#[test]
fn a_union_past_the_bound_in_bytes_becomes_connected() {
    let (hub, org, views) = viewed(Duration::from_millis(50), EVENT_BYTES_MAX);
    for n in 0..4 {
        let key = format!("p{n}{}", "x".repeat(25_000));
        let keys = Keys::new([key.as_str()], hub.config()).expect("within the limits");
        hub.publish(&org, &keys, Time(0));
    }
    assert!(!hub.driver().close_windows(Time(50)));
    for mut subscription in views {
        // The first was sent at once; it is lost with the union where it has not been delivered.
        assert_eq!(received(&mut subscription).0, ["connected"]);
    }
}

/// A smaller one than the default: debug builds encode a few megabytes a second.
const BOUND: usize = 2_000;

proptest! {
    /// A stream never gets an event that is larger, and the id of each publish covers it.
    #[test]
    fn no_event_is_larger_than_its_bound(publishes in prop::collection::vec((".{0,9}", 1..300usize), 1..20)) {
        let (hub, org, mut views) = viewed(Duration::ZERO, BOUND);
        for (key, times) in publishes {
            let key = format!("p{}", key.repeat(times));
            let key = &key[..key.floor_char_boundary(BOUND)];
            let keys = Keys::new([key], hub.config()).expect("within the limits");
            let id = hub.publish(&org, &keys, Time(0)).id.expect("subscribed");
            for subscription in &mut views {
                let (names, largest) = received(subscription);
                prop_assert_eq!(names.len(), 1);
                prop_assert!(largest <= BOUND);
                // Every event is seen by both views.
                prop_assert_eq!(subscription.position().seq, id.seq);
            }
        }
    }
}
