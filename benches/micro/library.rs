//! The library's own work, through its public interface: no socket, no thread, and paused time.

use std::cell::Cell;
use std::future::Future;
use std::iter;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use nudged::config::HubConfig;
use nudged::hub::{Filter, Hub, Keys, View};
use nudged::ids::{EventId, Mark, OrgName};
use nudged::stream::{Clock, EventStream, drive};
use nudged::wire::{Frame, Parser};
use tokio::runtime::{Builder, Runtime};

use super::callgrind::{measured, took};
use crate::Outcome;

/// An operation, counted in its own process.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Runs it in [`measured`], and returns the number of repetitions.
    run: fn(&Runtime) -> usize,
}

/// A hub with subscribers that wait like hyper's tasks.
struct Subscribers {
    hub: Hub,
    clock: Clock,
    streams: Vec<EventStream>,
    has_log: bool,
    /// That of the last record, with a log.
    position: Cell<u64>,
}

/// Whether the driver has been woken.
#[derive(Default)]
struct Woken(AtomicBool);

/// The first argument that makes this program run a single case.
pub(crate) const ROLE: &str = "count";

const KEYS: [&str; 3] = ["posts", "feed:123", "entity-types"];
/// The publish of one key, as a line of a record.
const LINE: &[u8] = b"{\"org\":\"acme\",\"keys\":[\"posts\"]}\n";
/// Channels that are held while records are applied, and bytes of the tail.
const CHANNELS: usize = 100_000;
const TAIL: usize = 16 << 20;
const SEATS: usize = 10_000;
const FILTERED: usize = 15_000;
const SECOND: Duration = Duration::from_secs(1);
/// Seconds after which the first stream is due for a keepalive, and after which each has received one.
const KEEPALIVE: (usize, usize) = (15, 19);

pub(crate) const CASES: [Case; 18] = [
    Case { name: "encode", what: "an event of three keys is encoded", run: |_| encode() },
    Case { name: "publish-1", what: "a publish with 1 seat", run: |_| publish(1) },
    Case { name: "publish-100", what: "a publish with 100 seats", run: |_| publish(100) },
    Case { name: "publish-10000", what: "a publish with 10,000 seats", run: |_| publish(10_000) },
    Case {
        name: "subscribe",
        what: "a stream is opened and dropped",
        run: |_| subscribe_with(Subscribers::new(1_000)),
    },
    Case { name: "tick", what: "a second of 10,000 seats, none due", run: tick },
    Case {
        name: "silent",
        what: "a seat is due for a keepalive, its task is woken",
        run: |runtime| silent_with(runtime, Subscribers::new(SEATS)),
    },
    Case {
        name: "sweep",
        what: "a seat is swept, of 10,000, its task woken",
        run: |_| sweep_with(Subscribers::new(SEATS)),
    },
    Case {
        name: "skip",
        what: "a filtered seat is swept, of 15,000 of which 1 % are interested and woken",
        run: |_| skip(),
    },
    Case { name: "take", what: "a frame is taken by a stream's task", run: |_| take() },
    Case { name: "parse", what: "an event is parsed as a browser does", run: |_| parse() },
    Case {
        name: "apply",
        what: "a record of one line is applied, no channel, with a log and 100,000 channels",
        run: |_| apply(1, "nobody"),
    },
    Case {
        name: "apply-20",
        what: "a line of a record of 20, the same",
        run: |_| apply(20, "nobody"),
    },
    Case {
        name: "apply-held",
        what: "a record of one line is applied, a channel with 1 seat, of 100,000",
        run: |_| apply(1, "held"),
    },
    Case {
        name: "apply-1",
        what: "a record of one line is applied, the one channel, with 1 seat",
        run: |_| apply_to(1),
    },
    Case {
        name: "subscribe-log",
        what: "a stream is opened and dropped, with a log",
        run: |_| subscribe_with(Subscribers::with_log(1_000)),
    },
    Case {
        name: "sweep-log",
        what: "a seat is swept, of 10,000, its task woken, with a log",
        run: |_| sweep_with(Subscribers::with_log(SEATS)),
    },
    Case {
        name: "silent-log",
        what: "a seat is due for a keepalive, its task is woken, with a log",
        run: |runtime| silent_with(runtime, Subscribers::with_log(SEATS)),
    },
];

/// Runs a case and prints how many operations it did, and what each took.
pub(crate) fn run(name: &str) -> Outcome<()> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build()?;
    let _guard = runtime.enter();
    let operations = (case.run)(&runtime);
    println!("{operations}");
    eprintln!("{:.1} ns", took().as_nanos() as f64 / operations as f64);
    Ok(())
}

fn encode() -> usize {
    let id = id();
    let encode = || Frame::invalidate(id, KEYS);
    measured(|| iter::repeat_with(encode).take(1_000).count())
}

fn publish(seats: usize) -> usize {
    let subscribers = Subscribers::new(seats);
    let keys = Keys::new(["posts"], subscribers.hub.config()).expect("within the limits");
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    let publishes = 200;
    // The first publishes fill the history, so that it no longer grows, and reuse memory that the opening has freed.
    for _ in 0..subscribers.hub.config().history_events {
        subscribers.publish();
        settle(driver.as_mut());
    }
    for _ in 0..publishes {
        measured(|| subscribers.hub.publish(&org(), &keys, subscribers.clock.now()));
        settle(driver.as_mut());
    }
    publishes
}

fn subscribe_with(subscribers: Subscribers) -> usize {
    measured(|| iter::repeat_with(|| subscribers.open()).take(1_000).count())
}

fn tick(runtime: &Runtime) -> usize {
    let subscribers = Subscribers::new(SEATS);
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    settle(driver.as_mut());
    let ticks = KEEPALIVE.0 - 2;
    for _ in 0..ticks {
        runtime.block_on(tokio::time::advance(SECOND));
        measured(|| settle(driver.as_mut()));
    }
    ticks
}

fn silent_with(runtime: &Runtime, subscribers: Subscribers) -> usize {
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    for _ in 0..=KEEPALIVE.1 {
        runtime.block_on(tokio::time::advance(SECOND));
        measured(|| settle(driver.as_mut()));
    }
    SEATS
}

fn sweep_with(mut subscribers: Subscribers) -> usize {
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    let rounds = 5;
    for _ in 0..rounds {
        subscribers.publish();
        measured(|| settle(driver.as_mut()));
        subscribers.take();
    }
    rounds * SEATS
}

fn skip() -> usize {
    let mut subscribers = Subscribers::new(0);
    let filter = |pattern| Filter::new([pattern], subscribers.hub.config()).expect("a pattern");
    let (interested, others) = (filter("posts"), filter("users"));
    subscribers.streams = (0..FILTERED)
        .map(|n| subscribers.open().with_filter(if n % 100 == 0 { interested } else { others }))
        .collect();
    subscribers.take();
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    let rounds = 5;
    for _ in 0..rounds {
        subscribers.publish();
        measured(|| settle(driver.as_mut()));
        let woken = subscribers.streams.iter_mut().filter_map(frame).count();
        assert_eq!(woken, FILTERED / 100);
        subscribers.take();
    }
    rounds * FILTERED
}

fn take() -> usize {
    let mut subscribers = Subscribers::new(SEATS);
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    subscribers.publish();
    settle(driver.as_mut());
    measured(|| subscribers.streams.iter_mut().filter_map(frame).count())
}

fn parse() -> usize {
    let event = Frame::invalidate(id(), KEYS).payload();
    let text = event.repeat(1_000);
    let (mut parser, mut count) = (Parser::default(), 0);
    measured(|| parser.push(&text, |_| count += 1)).expect("small events");
    count
}

/// Applies lines of orgs with this prefix, of which those that are `held` have a channel. The tail is full.
fn apply(size: usize, prefix: &str) -> usize {
    let subscribers = Subscribers::holding(CHANNELS);
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    let mut number = 0;
    let mut next = |size: usize| {
        let mut text = String::new();
        for _ in 0..size {
            number = (number + 7_919) % CHANNELS;
            text += &format!("{{\"org\":\"{prefix}-{number}\",\"keys\":[\"posts\",\"feed:1\"]}}\n");
        }
        Bytes::from(text)
    };
    while subscribers.hub.tail().records as u64 == subscribers.position.get() {
        subscribers.apply(&next(200));
        settle(driver.as_mut());
    }
    let records = 2_000 / size;
    for _ in 0..records {
        let record = next(size);
        measured(|| subscribers.apply(&record));
        settle(driver.as_mut());
    }
    records * size
}

/// What [`publish`] counts, by way of a log.
fn apply_to(seats: usize) -> usize {
    let subscribers = Subscribers::with_log(seats);
    let record = Bytes::from_static(LINE);
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    for _ in 0..subscribers.hub.config().history_events {
        subscribers.apply(&record);
        settle(driver.as_mut());
    }
    let records = 200;
    for _ in 0..records {
        measured(|| subscribers.apply(&record));
        settle(driver.as_mut());
    }
    records
}

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

fn id() -> EventId {
    "0123456789abcdef-1".parse().expect("an id")
}

fn config() -> HubConfig {
    HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() }
}

/// Polls a stream once.
fn frame(stream: &mut EventStream) -> Option<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(stream).poll_frame(&mut cx) {
        Poll::Ready(Some(Ok(frame))) => frame.data_ref().map(|data| data.len()),
        _ => None,
    }
}

/// Polls the driver until it waits.
fn settle(mut driver: Pin<&mut impl Future<Output = ()>>) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    loop {
        assert!(
            driver.as_mut().poll(&mut cx).is_pending(),
            "the driver never ends while its hub is open"
        );
        if !woken.0.swap(false, Ordering::Relaxed) {
            return;
        }
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// ===== impl Subscribers =====

impl Subscribers {
    fn new(seats: usize) -> Self {
        Self::of(Hub::new(config()), false, seats, |_| org())
    }

    fn with_log(seats: usize) -> Self {
        Self::of(Self::hub_with_log(), true, seats, |_| org())
    }

    /// With a log, and an org of its own for each stream.
    fn holding(seats: usize) -> Self {
        let org = |number| format!("held-{number}").parse().expect("a name");
        Self::of(Self::hub_with_log(), true, seats, org)
    }

    fn hub_with_log() -> Hub {
        let hub = Hub::with_log(config(), 1, TAIL, 5 * SECOND);
        hub.begin_log(1);
        hub
    }

    fn of(hub: Hub, has_log: bool, seats: usize, org: impl Fn(usize) -> OrgName) -> Self {
        let (clock, streams, position) = (Clock::start(), Vec::new(), Cell::new(0));
        let mut subscribers = Self { hub, clock, streams, has_log, position };
        subscribers.streams = (0..seats).map(|number| subscribers.open_of(&org(number))).collect();
        subscribers.take();
        subscribers
    }

    /// Applies the next record.
    fn apply(&self, record: &Bytes) {
        self.position.set(self.position.get() + 1);
        let mark = Mark { tag: 1, position: self.position.get() };
        self.hub.apply(mark, record, self.clock.now());
    }

    fn open_of(&self, org: &OrgName) -> EventStream {
        EventStream::open(&self.hub, org, View::Member, None, self.clock.now())
            .expect("not closing")
    }

    fn open(&self) -> EventStream {
        self.open_of(&org())
    }

    /// Publishes, with a log by a record.
    fn publish(&self) {
        if self.has_log {
            return self.apply(&Bytes::from_static(LINE));
        }
        let keys = Keys::new(["posts"], self.hub.config()).expect("within the limits");
        self.hub.publish(&org(), &keys, self.clock.now());
    }

    /// Takes the frames of every stream, which then waits.
    fn take(&mut self) {
        self.streams.iter_mut().for_each(|stream| while frame(stream).is_some() {});
    }
}
