//! A soak from its start to its end: warm up, run with checkpoints, disconnect every client, stop the
//! server.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::churn::{BATCH, Churn, STALLED_MAX};
use super::client::Client;
use super::phase::{Faults, Phase, Role, Shared, read};
use super::publisher;
use super::server::{Sample, Server};
use super::subscribers::Subscribers;
use super::topics;
use crate::shared::process::now;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subscribers: usize,
    pub(crate) duration: Duration,
}

/// A soak, complete or stopped by its first fault.
pub(crate) struct Soak {
    pub(crate) plan: Plan,
    pub(crate) shared: Arc<Shared>,
    /// One per second.
    pub(crate) samples: Vec<Sample>,
    /// Checkpoints passed, at which seats, descriptors and positions agreed with those of the clients.
    pub(crate) checkpoints: u32,
    /// Descriptors of the server before the first client, and at the end.
    pub(crate) fds: (usize, usize),
    server: Server,
    faults: Receiver<String>,
    threads: Vec<JoinHandle<()>>,
    start: Instant,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);
/// Streams opened and closed before descriptors are first counted: a worker opens some for itself once.
const WARM: usize = 64;
/// Lets the server close the sockets of streams whose seats it has freed.
const CLOSED: Duration = Duration::from_millis(500);

/// The time limit of a phase, in which stalled clients are closed, the last number arrives, and seats are freed.
const SETTLED: Duration = Duration::from_secs(25);

/// The least and the most time between two checkpoints.
const CHECKPOINT: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));

/// Connections without a stream: scrapes, publishes, incomplete requests.
const OTHERS_MAX: usize = 4 * BATCH;

// ===== impl Soak =====

impl Soak {
    /// Starts a server, and warms it up.
    pub(crate) fn start(plan: Plan) -> Outcome<Self> {
        rlimit::increase_nofile_limit(u64::MAX)?;
        let server = Server::start()?;
        let (faults, receiver) = mpsc::channel();
        let mut soak = Self {
            plan,
            shared: Arc::default(),
            samples: Vec::new(),
            checkpoints: 0,
            fds: (0, 0),
            server,
            faults: receiver,
            threads: Vec::new(),
            start: now(),
        };
        soak.warm_up()?;
        soak.spawn_clients(Faults(faults))?;
        soak.start = now();
        Ok(soak)
    }

    fn warm_up(&mut self) -> Outcome<()> {
        let address = self.server.address;
        let open = |_| Client::stream(address, "/api/warm/events", None);
        drop((0..WARM).map(open).collect::<io::Result<Vec<_>>>()?);
        let start = now();
        while self.server.sample()?.seats > 0 {
            if start.elapsed() > SETTLED {
                return Err("the seats of the first streams are not freed".into());
            }
            thread::sleep(PAUSE);
        }
        thread::sleep(CLOSED);
        self.fds.0 = self.server.fds()?;
        Ok(())
    }

    fn spawn_clients(&mut self, faults: Faults) -> Outcome<()> {
        let (address, shared) = (self.server.address, Arc::clone(&self.shared));
        let subscribers = Subscribers::open(address, Arc::clone(&shared), self.plan.subscribers)?;
        let churn = Churn::new(address, Arc::clone(&shared));
        self.spawn("subscribers", &faults, || subscribers.run())?;
        self.spawn("churn", &faults, || churn.run())?;
        let other = Arc::clone(&shared);
        self.spawn("topics", &faults, move || topics::run(address, &other))?;
        self.spawn("publisher", &faults, move || Ok(publisher::run(address, &shared)?))
    }

    fn spawn(
        &mut self,
        name: &str,
        faults: &Faults,
        run: impl FnOnce() -> Outcome<()> + Send + 'static,
    ) -> Outcome<()> {
        let (faults, thread) = (faults.clone(), name.to_owned());
        let run = move || run().unwrap_or_else(|why| faults.report(format!("{thread}: {why}")));
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Runs to the end. `progress` is called with a line at each checkpoint.
    ///
    /// # Errors
    /// The invariant that broke.
    pub(crate) fn run(&mut self, mut progress: impl FnMut(&str)) -> Outcome<()> {
        let between = (self.plan.duration / 5).clamp(CHECKPOINT.0, CHECKPOINT.1);
        while self.start.elapsed() < self.plan.duration {
            let left = self.plan.duration.saturating_sub(self.start.elapsed());
            self.within(between.min(left), |_| Ok(false))?;
            self.checkpoint()?;
            let last = self.samples.last().cloned().unwrap_or_default();
            progress(&format!(
                "{:.0} s: {} seats, {} streams ended, {} KiB",
                last.at,
                last.seats,
                last.closed(),
                last.anonymous / 1024
            ));
            self.shared.enter(Phase::Run);
        }
        self.finish()
    }

    /// While nothing is sent and no client connects or disconnects, the counts of the server must equal those of the
    /// clients.
    fn checkpoint(&mut self) -> Outcome<()> {
        for phase in [Phase::Settle, Phase::Quiesce] {
            self.shared.enter(phase);
            for role in Role::ALL {
                if !self.within(SETTLED, |soak| Ok(soak.shared.has_reached(role, phase)))? {
                    let behind = read(&self.shared.tally.behind);
                    let why = format!(
                        "{role:?} does not reach {phase:?}; {behind} subscribers are behind"
                    );
                    return Err(why.into());
                }
            }
        }
        let open = read(&self.shared.tally.open);
        self.check_counts(open, self.fds.0 + self.plan.subscribers + 1)?;
        self.checkpoints += 1;
        Ok(())
    }

    /// Disconnects every client; no seat or descriptor may be left; the server must end with 0.
    fn finish(&mut self) -> Outcome<()> {
        self.shared.enter(Phase::Stop);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a thread of the clients panicked")?;
        }
        self.check_counts(0, self.fds.0)?;
        self.fds.1 = self.server.fds()?;
        let status = self.server.stop()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }

    /// Waits until this number of seats is occupied, which equals the streams opened and not closed, with at most this
    /// number of descriptors, and until the last topic has aged.
    fn check_counts(&mut self, seats: u64, fds: usize) -> Outcome<()> {
        let mut last = Sample::default();
        let settled = self.within(SETTLED, |soak| {
            last = soak.server.sample()?;
            let seated = last.seats == seats && last.opened - last.closed() == seats;
            Ok(seated && last.topics == 0 && last.fds <= fds)
        })?;
        if settled {
            return Ok(());
        }
        let Sample { seats: taken, opened, topics, fds: open, .. } = last;
        let closed = last.closed();
        let why = format!(
            "the clients have {seats} streams; the server has {taken} seats, {opened} streams opened \
             and {closed} closed, {topics} topics that nothing uses, {open} descriptors where {fds} suffice"
        );
        Err(why.into())
    }

    /// Whether the condition holds within this time. Meanwhile, takes a sample each second, and returns
    /// the first fault that a thread reports.
    fn within(
        &mut self,
        bound: Duration,
        mut condition: impl FnMut(&mut Self) -> Outcome<bool>,
    ) -> Outcome<bool> {
        let start = now();
        while !condition(self)? {
            if let Ok(fault) = self.faults.try_recv() {
                return Err(fault.into());
            }
            if start.elapsed() > bound {
                return Ok(false);
            }
            self.sample_if_due()?;
            thread::sleep(PAUSE);
        }
        Ok(true)
    }

    fn sample_if_due(&mut self) -> Outcome<()> {
        let at = self.start.elapsed();
        if at < SAMPLE_EVERY * u32::try_from(self.samples.len()).unwrap_or(u32::MAX) {
            return Ok(());
        }
        let sample = self.server.sample();
        let mut sample = sample.map_err(|why| format!("a sample failed: {why}"))?;
        sample.at = at.as_secs_f64();
        let most = self.fds.0 + self.plan.subscribers + STALLED_MAX + OTHERS_MAX;
        if sample.fds > most {
            return Err(format!("{} descriptors, and {most} suffice", sample.fds).into());
        }
        self.samples.push(sample);
        Ok(())
    }
}
