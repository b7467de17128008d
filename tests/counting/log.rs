//! What a log that several servers share costs the hub: nothing for a delivery or a seat, a constant for an org, and no
//! more memory than the tail may have.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use nudged::config::HubConfig;
use nudged::hub::{Hub, Keys, View};
use nudged::ids::Mark;
use nudged::stream::{Clock, EventStream, drive};
use nudged::time::Time;

use super::counting::{LIVE_BYTES, allocations};
use super::{org, poll, settle, uncoalesced};

/// The log, or the hub itself.
struct Publisher {
    hub: Hub,
    position: u64,
    lines: Option<Bytes>,
}

const SEATS: usize = 10_000;

pub(crate) fn is_bounded() {
    a_delivery_allocates_nothing();
    a_seat_and_a_history_cost_what_they_cost_without();
    the_tail_keeps_to_its_bound();
}

impl Publisher {
    fn new(with_log: bool) -> Self {
        let hub = match with_log {
            true => Hub::with_log(uncoalesced(), 1, 1, Duration::ZERO),
            false => Hub::new(uncoalesced()),
        };
        let line = Bytes::from_static(b"{\"org\":\"acme\",\"keys\":[\"posts\"]}\n");
        Self { hub, position: 0, lines: with_log.then_some(line) }
    }

    fn publish(&mut self) {
        self.position += 1;
        match &self.lines {
            Some(lines) => {
                let mark = Mark { tag: self.position, position: self.position };
                self.hub.apply(mark, lines, Time(0));
            }
            None => {
                let keys = Keys::new(["posts"], self.hub.config()).expect("a key");
                self.hub.publish(&org(), &keys, Time(0));
            }
        }
    }
}

fn a_delivery_allocates_nothing() {
    let (mut publisher, clock) = (Publisher::new(true), Clock::start());
    let hub = publisher.hub.clone();
    let mut driver = pin!(drive(hub.clone(), clock));
    let open = |_| EventStream::open(&hub, &org(), View::Member, None, clock.now());
    let mut streams: Vec<_> = (0..SEATS).map(|n| open(n).expect("not closing")).collect();
    for round in 0..12 {
        streams.iter_mut().for_each(|stream| while poll(stream) {});
        let apply = allocations(|| publisher.publish());
        let delivery = allocations(|| {
            settle(&mut driver);
            streams.iter_mut().for_each(|stream| assert!(poll(stream)));
        });
        // The first rounds grow the buffers that are reused.
        assert!(round < 8 || (delivery == 0 && apply <= 16), "{delivery} and {apply} allocations");
    }
}

fn a_seat_and_a_history_cost_what_they_cost_without() {
    let [alone, with_log] = [false, true].map(|with_log| {
        let mut publisher = Publisher::new(with_log);
        let subscribe = |hub: &Hub| hub.subscribe(&org(), View::Member, None, Time(0));
        let _first = subscribe(&publisher.hub).expect("open");
        // The seats' places in the wheel are drawn, and with them what its slots allocate: the same for both.
        fastrand::seed(1);
        let before = LIVE_BYTES.load(Relaxed);
        let mut seats = Vec::with_capacity(SEATS);
        seats.extend((0..SEATS).map(|_| subscribe(&publisher.hub).expect("open")));
        let of_seats = LIVE_BYTES.load(Relaxed) - before;
        (0..1_000).for_each(|_| publisher.publish());
        let before = LIVE_BYTES.load(Relaxed);
        (0..100).for_each(|_| publisher.publish());
        let of_more = LIVE_BYTES.load(Relaxed) - before;
        (of_seats, of_more)
    });
    println!(
        "bytes of {SEATS} seats, and of 100 events more, alone and with a log: {alone:?}, {with_log:?}"
    );
    assert_eq!(alone, with_log);
}

fn the_tail_keeps_to_its_bound() {
    const BOUND: usize = 1 << 20;
    // Many orgs in small records, some in large ones, and records without lines.
    for (orgs, lines) in [(100_000, 1), (1_000_000, 100), (3, 100), (1, 0)] {
        let hub = Hub::with_log(HubConfig::default(), 1, BOUND, Duration::ZERO);
        let (before, mut most) = (LIVE_BYTES.load(Relaxed), 0);
        let records = 40_000 / (lines + 1);
        for position in 1..=records as u64 {
            let line = |line: u64| {
                let org = (position * lines as u64 + line) % orgs;
                format!("{{\"org\":\"org-{org}\",\"keys\":[\"posts\"]}}\n")
            };
            let text = (0..lines as u64).map(line).collect::<String>();
            hub.apply(Mark { tag: position, position }, &Bytes::from(text), Time(0));
            most = most.max(LIVE_BYTES.load(Relaxed) - before);
        }
        let tail = hub.tail();
        println!("a tail of {BOUND} bytes, {lines} lines a record: at most {most}, {tail:?}");
        // While it grows, its table is there twice for a moment: that is not looked at.
        assert!(most <= BOUND + BOUND / 50, "{most} bytes");
        assert!(
            tail.bytes <= BOUND && (tail.records == records || most >= BOUND / 2),
            "{most} bytes"
        );
    }
}
