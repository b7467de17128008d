//! The library's own work, through its public interface: no socket, no thread, and paused time.

use std::future::Future;
use std::iter;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http_body::Body;
use nudged::config::HubConfig;
use nudged::hub::{Filter, Hub, Keys, View};
use nudged::ids::{EventId, OrgName};
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
}

/// Whether the driver has been woken.
#[derive(Default)]
struct Woken(AtomicBool);

/// The first argument that makes this program run a single case.
pub(crate) const ROLE: &str = "count";

const KEYS: [&str; 3] = ["posts", "feed:123", "entity-types"];
const SEATS: usize = 10_000;
const FILTERED: usize = 15_000;
const SECOND: Duration = Duration::from_secs(1);
/// Seconds after which the first stream is due for a keepalive, and after which each has received one.
const KEEPALIVE: (usize, usize) = (15, 19);

pub(crate) const CASES: [Case; 11] = [
    Case { name: "encode", what: "an event of three keys is encoded", run: |_| encode() },
    Case { name: "publish-1", what: "a publish with 1 seat", run: |_| publish(1) },
    Case { name: "publish-100", what: "a publish with 100 seats", run: |_| publish(100) },
    Case { name: "publish-10000", what: "a publish with 10,000 seats", run: |_| publish(10_000) },
    Case { name: "subscribe", what: "a stream is opened and dropped", run: |_| subscribe() },
    Case { name: "tick", what: "a second of 10,000 seats, none due", run: tick },
    Case { name: "silent", what: "a seat is due for a keepalive, its task is woken", run: silent },
    Case { name: "sweep", what: "a seat is swept, of 10,000, its task woken", run: |_| sweep() },
    Case {
        name: "skip",
        what: "a filtered seat is swept, of 15,000 of which 1 % are interested and woken",
        run: |_| skip(),
    },
    Case { name: "take", what: "a frame is taken by a stream's task", run: |_| take() },
    Case { name: "parse", what: "an event is parsed as a browser does", run: |_| parse() },
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

fn subscribe() -> usize {
    let subscribers = Subscribers::new(1_000);
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

fn silent(runtime: &Runtime) -> usize {
    let subscribers = Subscribers::new(SEATS);
    let mut driver = pin!(drive(subscribers.hub.clone(), subscribers.clock));
    for _ in 0..=KEEPALIVE.1 {
        runtime.block_on(tokio::time::advance(SECOND));
        measured(|| settle(driver.as_mut()));
    }
    SEATS
}

fn sweep() -> usize {
    let mut subscribers = Subscribers::new(SEATS);
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

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

fn id() -> EventId {
    "0123456789abcdef-1".parse().expect("an id")
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
        let config = HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() };
        let mut subscribers =
            Self { hub: Hub::new(config), clock: Clock::start(), streams: Vec::new() };
        subscribers.streams = (0..seats).map(|_| subscribers.open()).collect();
        subscribers.take();
        subscribers
    }

    fn open(&self) -> EventStream {
        EventStream::open(&self.hub, &org(), View::Member, None, self.clock.now())
            .expect("not closing")
    }

    fn publish(&self) {
        let keys = Keys::new(["posts"], self.hub.config()).expect("within the limits");
        self.hub.publish(&org(), &keys, self.clock.now());
    }

    /// Takes the frames of every stream, which then waits.
    fn take(&mut self) {
        self.streams.iter_mut().for_each(|stream| while frame(stream).is_some() {});
    }
}
