//! The load generator, `nudged bench`: many subscribers, publishes, and an honest account of what
//! arrived. It works against any SSE server that carries the text of a publish to its subscribers.
//!
//! Every publish holds a *marker* with a sequence number, and every stream is searched for markers;
//! so each subscriber is known to have got each event once, twice, late or not at all. A stream
//! costs some 45 bytes of user memory here: no buffers, no tasks. Over TLS it holds its session, some
//! 4 KiB; over HTTP/2, where streams share connections, its task and what h2 knows of it, some 2 KiB.
//!
//! One thread reads, one publishes. Run it where it may have a core of its own.

mod connection;
mod crowd;
mod head;
mod ledger;
mod link;
mod marker;
mod multiplexed;
mod opening;
mod options;
mod process;
mod publisher;
mod report;
mod subscriber;
mod swarm;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crowd::Crowd;
pub use crowd::Tally;
pub use ledger::Latencies;
use ledger::{Ledger, Schedule};
pub use marker::{Marked, Marker};
use opening::Carrier;
pub use opening::Pace;
pub use options::{Options, Publish};
pub use process::Cost;
use publisher::{Published, Publisher};
pub use report::{Quantiles, Server, Summary};
pub use target::{Error, Target};

/// Subscribers and a publisher, driven step by step. [`run`] is the usual course; the project's own
/// benchmarks go their own.
#[derive(Debug)]
pub struct Load {
    crowd: Crowd,
    carrier: Box<dyn Carrier>,
    transport: String,
    publisher: Option<Publisher>,
    stop: Arc<AtomicBool>,
    patience: Duration,
    /// Sequence number of the next publish.
    next: u32,
    published: Published,
}

/// A series of publishes, ended by their number or by a moment.
#[derive(Clone, Copy, Debug)]
struct Series {
    count: u32,
    every: Duration,
    until: Option<Instant>,
}

/// How long events may stay away before they count as missed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors for everything but the streams.
const RESERVE: u64 = 64;

/// How long a wait lasts before other things are looked after.
const TURN: Duration = Duration::from_millis(50);

/// The same while the publisher's result is due.
const SHORT: Duration = Duration::from_millis(1);

/// Opens the streams, publishes or waits, and sums up. `stop` ends it with the summary so far;
/// `progress` gets a line now and then.
pub fn run(
    options: &Options,
    stop: Arc<AtomicBool>,
    mut progress: impl FnMut(&str),
) -> Result<Summary, Error> {
    let cost = || match options.processes.as_slice() {
        [] => Ok(None),
        processes => Cost::of(processes).map(Some).map_err(Error::system("measuring the server")),
    };
    let mut load = Load::new(options, stop)?;
    let before = cost()?;
    progress(&format!("opening {} streams", options.subscribers));
    let mut told = 0;
    let opening = load.open(options.subscribers, options.pace, |open| {
        if open / 1000 > told {
            told = open / 1000;
            progress(&format!("{open} streams open"));
        }
    })?;
    let open = load.subscribers();
    let opened = cost()?;
    progress(&format!("{open} streams open after {:.1} s", opening.as_secs_f64()));

    let began = now();
    match &options.publish {
        Some(publish) => load.publish_for(publish.every, options.duration)?,
        None => load.wait(options.duration)?,
    }
    let took = began.elapsed();
    let after = cost()?;
    let costs = before.zip(opened).zip(after).map(|((a, b), c)| [a, b, c]);
    Ok(Summary::new(&load, report::Course { open, opening, took, costs }))
}

/// Raised by the first ^C. A second one ends the program at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&stop);
    let system = Error::system("waiting for ^C");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(&system)?;
    // Here and not in the thread, which may start after the first ^C.
    let interrupts = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
    };
    let mut interrupts = interrupts.map_err(&system)?;
    let wait = move || {
        runtime.block_on(async {
            while interrupts.recv().await.is_some() {
                if raised.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    };
    thread::Builder::new().name("interrupt".into()).spawn(wait).map_err(system)?;
    Ok(stop)
}

// ===== impl Load =====

impl Load {
    /// Nothing is connected yet. Raises this process's limit of open files as far as it may.
    pub fn new(options: &Options, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        let limit = rlimit::increase_nofile_limit(u64::MAX);
        let limit = limit.map_err(Error::system("raising the limit of open files"))?;
        let most = options.streams_within(limit.saturating_sub(RESERVE));
        if options.subscribers > most {
            return Err(Error::Settings(format!(
                "{} streams need more open files than the {limit} that this process may have; \
                 at most {most} streams are possible here (ulimit -n)",
                options.subscribers
            )));
        }
        let marker = Marker::new(fastrand::u32(..));
        let Options { headers, trust, .. } = options;
        let start = |publish| Publisher::start(publish, headers, trust, marker, Arc::clone(&stop));
        let publisher = options.publish.as_ref().map(start).transpose()?;
        let ledger = Ledger::new(Schedule { first: 0, start: now(), every: Duration::ZERO });
        Ok(Self {
            crowd: Crowd::new(marker, ledger),
            carrier: options.carrier()?,
            transport: options.transport(),
            publisher,
            stop,
            patience: options.patience,
            next: 0,
            published: Published::default(),
        })
    }

    /// Streams that are open now.
    pub fn subscribers(&self) -> usize {
        self.crowd.open
    }

    /// What has arrived so far.
    pub fn tally(&self) -> Tally {
        self.crowd.tally
    }

    /// Opens further streams and returns how long that took. `progress` gets the number of open
    /// streams.
    pub fn open(
        &mut self,
        count: usize,
        pace: Pace,
        mut progress: impl FnMut(usize),
    ) -> Result<Duration, Error> {
        let stop = Arc::clone(&self.stop);
        let Self { carrier, crowd, next, .. } = self;
        opening::open(&mut **carrier, crowd, count, pace, *next, |crowd| {
            progress(crowd.open);
            stop.load(Ordering::Relaxed)
        })
    }

    /// Publishes this many events, one every so often, and waits until everybody has them; what
    /// stays away for longer than [`Options::patience`] is missed. Zero is back to back; latencies
    /// then count from the first. Returns the time from the first publish to the last arrival.
    pub fn publish(&mut self, count: u32, every: Duration) -> Result<Duration, Error> {
        self.series(Series { count, every, until: None })
    }

    fn publish_for(&mut self, every: Duration, duration: Option<Duration>) -> Result<(), Error> {
        if every.is_zero() {
            return Err(Error::Settings(
                "the time between publishes must not be zero: latency counts from when each \
                 publish was meant to leave"
                    .into(),
            ));
        }
        let until = duration.map(|duration| now() + duration);
        self.series(Series { count: u32::MAX, every, until }).map(drop)
    }

    fn series(&mut self, series: Series) -> Result<Duration, Error> {
        let none = || Error::Settings("nothing to publish was given".into());
        let start = now();
        let schedule = Schedule { first: self.next, start, every: series.every };
        self.crowd.ledger.follow(schedule);
        self.publisher.as_ref().ok_or_else(none)?.begin(schedule, series.count, series.until);

        let before = self.crowd.tally.delivered;
        let (mut sent, mut last) = (None, (before, start));
        loop {
            let wait = if sent.is_some() { TURN } else { SHORT };
            self.carrier.turn(&mut self.crowd, wait)?;
            let delivered = self.crowd.tally.delivered;
            if delivered != last.0 {
                last = (delivered, now());
            }
            let Some(sent) = sent else {
                sent = self.finished();
                // What is still under way gets its time from here on.
                last.1 = if sent.is_some() && delivered == before { now() } else { last.1 };
                continue;
            };
            let all = u64::from(sent) * self.crowd.open as u64;
            // Streams that are gone have delivered some of it, too.
            let is_over = delivered - before >= all && !self.carrier.is_behind(self.next);
            if is_over || last.1.elapsed() > self.patience_left() {
                break;
            }
        }
        self.carrier.settle(&mut self.crowd, self.next);
        Ok(last.1.saturating_duration_since(start))
    }

    fn patience_left(&self) -> Duration {
        let told = self.stop.load(Ordering::Relaxed);
        if told { self.patience.min(Duration::from_secs(1)) } else { self.patience }
    }

    /// Takes note of a finished series.
    fn finished(&mut self) -> Option<u32> {
        let published = self.publisher.as_ref()?.finished()?;
        self.next = self.next.saturating_add(published.sent);
        self.published.sent = self.published.sent.saturating_add(published.sent);
        self.published.refused = self.published.refused.saturating_add(published.refused);
        if self.published.why.is_none() {
            self.published.why = published.why;
        }
        Some(published.sent)
    }

    /// Only listens, for this long or until told to stop.
    pub fn wait(&mut self, duration: Option<Duration>) -> Result<(), Error> {
        let start = now();
        while !self.stop.load(Ordering::Relaxed) {
            let left = duration.map_or(TURN, |duration| duration.saturating_sub(start.elapsed()));
            if left.is_zero() {
                break;
            }
            self.carrier.turn(&mut self.crowd, left.min(TURN))?;
        }
        Ok(())
    }

    /// The latencies since the start or since this was last called.
    pub fn take_latencies(&mut self) -> Latencies {
        self.crowd.ledger.take_latencies()
    }

    /// How many publishes were refused, and why the first of them was.
    pub fn refusals(&self) -> Option<(u32, &str)> {
        let why = self.published.why.as_deref()?;
        Some((self.published.refused, why))
    }

    /// Closes all streams; `reset` ends them with a RST instead of a FIN.
    pub fn close(&mut self, reset: bool) -> Result<(), Error> {
        self.carrier.close(reset).map_err(Error::system("closing the streams"))?;
        (self.crowd.open, self.crowd.settling) = (0, 0);
        Ok(())
    }
}

/// The one clock of the measurements.
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
