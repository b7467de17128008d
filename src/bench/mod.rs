//! The load generator, `nudged bench`: opens many streams, publishes, and counts the deliveries. It works
//! with any SSE server that passes the text of a publish on to its subscribers.
//!
//! Every publish has a *marker* with a sequence number, and every stream is searched for markers. That shows which
//! subscriber received each event once, twice, out of order or not at all. A stream over plain HTTP/1.1 costs 45
//! bytes of user memory here, without a buffer or a task. Streams over TLS and HTTP/2 have a task each: over
//! HTTP/2, which shares connections, some 2 KiB, over TLS without HTTP/2 some 15 KiB with the session.
//!
//! One thread reads, one publishes. Run it where it has its own core.

mod connection;
mod error;
mod http1;
mod http2;
mod latency;
mod marker;
mod options;
mod proc;
mod publisher;
mod ramp;
mod subscriber;
mod subscribers;
mod summary;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use error::Error;
pub use latency::{Latencies, Quantiles};
use latency::{LatencyRecorder, Schedule};
use marker::Marker;
pub use options::{Options, Publish};
pub use proc::Cost;
use publisher::{Published, Publisher, Series};
pub use ramp::Ramp;
use ramp::Transport;
use subscribers::Subscribers;
pub use subscribers::Tally;
use summary::Measured;
pub use summary::{ServerCost, Summary};

/// Subscribers and a publisher, controlled step by step. [`run`] does the usual steps; the project's
/// benchmarks have their own.
#[derive(Debug)]
pub struct Load {
    subscribers: Subscribers,
    transport: Box<dyn Transport>,
    transport_name: String,
    publisher: Option<Publisher>,
    stop: Arc<AtomicBool>,
    drain_timeout: Duration,
    /// Sequence number of the next publish.
    next: u32,
    published: Published,
}

/// The default of [`Options::drain_timeout`].
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The drain timeout after `stop`.
const STOPPED_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Descriptors for everything but the streams.
const RESERVED_DESCRIPTORS: u64 = 64;

/// The longest wait for the transport.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The same while the publisher may finish.
const PUBLISHING_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Opens the streams, publishes or waits, and sums up. `stop` ends it with the summary so far;
/// `progress` is called with a line of text from time to time.
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
    let mut reported = 0;
    let opening = load.open(options.subscribers, options.ramp, |open| {
        if open / 1000 > reported {
            reported = open / 1000;
            progress(&format!("{open} streams open"));
        }
    })?;
    let open = load.subscribers();
    let opened = cost()?;
    progress(&format!("{open} streams open after {:.1} s", opening.as_secs_f64()));

    let start = now();
    match &options.publish {
        Some(publish) => load.publish_for(publish.every, options.duration)?,
        None => load.wait(options.duration)?,
    }
    let took = start.elapsed();
    let after = cost()?;
    let costs = before.zip(opened).zip(after).map(|((a, b), c)| [a, b, c]);
    Ok(Summary::new(&load, Measured { open, opening, took, costs }))
}

/// Set by the first ^C. A second one exits the program at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&stop);
    let system = Error::system("waiting for ^C");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(&system)?;
    // Installed here and not in the thread, which may start after the first ^C.
    let interrupts = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
    };
    let mut interrupts = interrupts.map_err(&system)?;
    let wait = move || {
        runtime.block_on(async {
            while interrupts.recv().await.is_some() {
                if interrupted.swap(true, Ordering::Relaxed) {
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
    /// Connects nothing yet. Raises this process's limit of open files to the maximum.
    pub fn new(options: &Options, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        let limit = rlimit::increase_nofile_limit(u64::MAX);
        let limit = limit.map_err(Error::system("raising the limit of open files"))?;
        let most = options.streams_within(limit.saturating_sub(RESERVED_DESCRIPTORS));
        if options.subscribers > most {
            return Err(Error::Settings(format!(
                "{} streams need more open files than the {limit} that this process may have; \
                 at most {most} streams are possible here (ulimit -n)",
                options.subscribers
            )));
        }
        let marker = Marker::new(fastrand::u32(..));
        let Options { headers, verify, .. } = options;
        let start = |publish| Publisher::start(publish, headers, verify, marker, Arc::clone(&stop));
        let publisher = options.publish.as_ref().map(start).transpose()?;
        let latency =
            LatencyRecorder::new(Schedule { first: 0, start: now(), every: Duration::ZERO });
        Ok(Self {
            subscribers: Subscribers::new(marker, latency),
            transport: options.transport()?,
            transport_name: options.transport_name(),
            publisher,
            stop,
            drain_timeout: options.drain_timeout,
            next: 0,
            published: Published::default(),
        })
    }

    /// Streams that are open now.
    pub fn subscribers(&self) -> usize {
        self.subscribers.open
    }

    /// What the subscribers have received so far.
    pub fn tally(&self) -> Tally {
        self.subscribers.tally
    }

    /// Opens further streams and returns how long that took. `progress` is called with the number of
    /// open streams.
    pub fn open(
        &mut self,
        count: usize,
        ramp: Ramp,
        mut progress: impl FnMut(usize),
    ) -> Result<Duration, Error> {
        let stop = Arc::clone(&self.stop);
        let Self { transport, subscribers, next, .. } = self;
        ramp::open(&mut **transport, subscribers, count, ramp, *next, |subscribers| {
            progress(subscribers.open);
            stop.load(Ordering::Relaxed)
        })
    }

    /// Publishes this many events, one in each interval `every`, and waits until all subscribers have
    /// received them; after [`Options::drain_timeout`] without a delivery, the rest is missed. Zero is
    /// back to back; latencies then count from the first. Returns the time from the first publish to
    /// the last delivery.
    pub fn publish(&mut self, count: u32, every: Duration) -> Result<Duration, Error> {
        self.series(count, every, None)
    }

    fn publish_for(&mut self, every: Duration, duration: Option<Duration>) -> Result<(), Error> {
        if every.is_zero() {
            return Err(Error::Settings(
                "the time between publishes must not be zero: latency counts from when each \
                 publish was due"
                    .into(),
            ));
        }
        let until = duration.map(|duration| now() + duration);
        self.series(u32::MAX, every, until).map(drop)
    }

    fn series(
        &mut self,
        count: u32,
        every: Duration,
        until: Option<Instant>,
    ) -> Result<Duration, Error> {
        let none = || Error::Settings("nothing to publish was given".into());
        let start = now();
        let schedule = Schedule { first: self.next, start, every };
        self.subscribers.latency.start_series(schedule);
        let publisher = self.publisher.as_ref().ok_or_else(none)?;
        publisher.start_series(Series { schedule, count, until });

        let before = self.subscribers.tally.delivered;
        let (mut sent, mut last) = (None, (before, start));
        loop {
            let wait = if sent.is_some() { POLL_INTERVAL } else { PUBLISHING_POLL_INTERVAL };
            self.transport.poll(&mut self.subscribers, wait)?;
            let delivered = self.subscribers.tally.delivered;
            if delivered != last.0 {
                last = (delivered, now());
            }
            let Some(sent) = sent else {
                sent = self.finished();
                // The drain timeout of the last publish starts here.
                last.1 = if sent.is_some() && delivered == before { now() } else { last.1 };
                continue;
            };
            let all = u64::from(sent) * self.subscribers.open as u64;
            // Some deliveries may belong to streams that have ended since.
            let is_over = delivered - before >= all && !self.subscribers.is_behind(self.next);
            if is_over || last.1.elapsed() > self.current_drain_timeout() {
                break;
            }
        }
        self.subscribers.end_series(self.next);
        Ok(last.1.saturating_duration_since(start))
    }

    fn current_drain_timeout(&self) -> Duration {
        let stopped = self.stop.load(Ordering::Relaxed);
        self.drain_timeout.min(if stopped { STOPPED_DRAIN_TIMEOUT } else { Duration::MAX })
    }

    /// Adds up the result of a finished series, and returns how many publishes it had.
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

    /// Only receives, for this long or until stopped.
    pub fn wait(&mut self, duration: Option<Duration>) -> Result<(), Error> {
        let start = now();
        while !self.stop.load(Ordering::Relaxed) {
            let left =
                duration.map_or(POLL_INTERVAL, |duration| duration.saturating_sub(start.elapsed()));
            if left.is_zero() {
                break;
            }
            self.transport.poll(&mut self.subscribers, left.min(POLL_INTERVAL))?;
        }
        Ok(())
    }

    /// The latencies since the start or since this was last called.
    pub fn take_latencies(&mut self) -> Latencies {
        self.subscribers.latency.take()
    }

    /// How many publishes were refused, and why the first one was.
    pub fn refusals(&self) -> Option<(u32, &str)> {
        let why = self.published.why.as_deref()?;
        Some((self.published.refused, why))
    }

    /// Closes all streams; `reset` sends a RST instead of a FIN.
    pub fn close(&mut self, reset: bool) -> Result<(), Error> {
        self.transport.close(reset).map_err(Error::system("closing the streams"))?;
        self.subscribers.clear();
        Ok(())
    }
}

/// The clock of all measurements.
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
