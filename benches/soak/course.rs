//! The course of a soak: start, warm up, run, count heads now and then, empty the server, end it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::churn::{BATCH, Churn, STALLED_MAX};
use super::client::Client;
use super::crowd::Crowd;
use super::publisher;
use super::server::{Sample, Server};
use super::stage::{Faults, Part, Phase, Stage, read};
use crate::shared::process::now;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subscribers: usize,
    pub(crate) duration: Duration,
    pub(crate) park: &'static str,
}

/// A soak, as far as it came.
pub(crate) struct Soak {
    pub(crate) plan: Plan,
    pub(crate) stage: Arc<Stage>,
    /// One a second.
    pub(crate) samples: Vec<Sample>,
    /// How often seats, descriptors and positions were compared with what the clients know.
    pub(crate) censuses: u32,
    /// Descriptors of the server when nobody is there, and at the end.
    pub(crate) fds: (usize, usize),
    server: Server,
    faults: Receiver<String>,
    threads: Vec<JoinHandle<()>>,
    start: Instant,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(20);
/// Clients that came and went before descriptors are first counted: a worker opens some things once.
const WARM: usize = 64;
const PUBLISHED_BY_NOW: Duration = Duration::from_millis(500);

/// How long until everything that was to happen has happened: stalled clients are cut, the last word is
/// heard, seats are free.
const SETTLED: Duration = Duration::from_secs(25);

/// Between two censuses, at the least and at the most.
const CENSUS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));

/// Connections that are no streams: scrapes, publishes, requests that are cut.
const VISITORS_MAX: usize = 4 * BATCH;

// ===== impl Soak =====

impl Soak {
    /// Starts a server, and warms it up.
    pub(crate) fn start(plan: Plan) -> Outcome<Self> {
        rlimit::increase_nofile_limit(u64::MAX)?;
        let server = Server::start(plan.park)?;
        let (faults, heard) = mpsc::channel();
        let mut soak = Self {
            plan,
            stage: Arc::default(),
            samples: Vec::new(),
            censuses: 0,
            fds: (0, 0),
            server,
            faults: heard,
            threads: Vec::new(),
            start: now(),
        };
        soak.warm_up()?;
        soak.populate(Faults(faults))?;
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
                return Err("the first streams never go".into());
            }
            thread::sleep(NAP);
        }
        thread::sleep(PUBLISHED_BY_NOW);
        self.fds.0 = self.server.fds()?;
        Ok(())
    }

    fn populate(&mut self, faults: Faults) -> Outcome<()> {
        let (address, stage) = (self.server.address, Arc::clone(&self.stage));
        let crowd = Crowd::open(address, Arc::clone(&stage), self.plan.subscribers)?;
        let churn = Churn::new(address, Arc::clone(&stage));
        self.spawn("crowd", &faults, || crowd.run())?;
        self.spawn("churn", &faults, || churn.run())?;
        self.spawn("publisher", &faults, move || Ok(publisher::run(address, &stage)?))
    }

    fn spawn(
        &mut self,
        name: &str,
        faults: &Faults,
        run: impl FnOnce() -> Outcome<()> + Send + 'static,
    ) -> Outcome<()> {
        let (faults, part) = (faults.clone(), name.to_owned());
        let run = move || run().unwrap_or_else(|why| faults.tell(format!("{part}: {why}")));
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// The whole course. `progress` gets a line at each census.
    ///
    /// # Errors
    /// The invariant that broke.
    pub(crate) fn run(&mut self, mut progress: impl FnMut(&str)) -> Outcome<()> {
        let census = (self.plan.duration / 5).clamp(CENSUS.0, CENSUS.1);
        while self.start.elapsed() < self.plan.duration {
            let left = self.plan.duration.saturating_sub(self.start.elapsed());
            self.within(census.min(left), |_| Ok(false))?;
            self.census()?;
            let last = self.samples.last().cloned().unwrap_or_default();
            progress(&format!(
                "{:.0} s: {} seats, {} streams ended, {} KiB",
                last.at,
                last.seats,
                last.closed(),
                last.anonymous / 1024
            ));
            self.stage.enter(Phase::Run);
        }
        self.empty()
    }

    /// Nobody comes or goes, all is silent: what server and clients know has to be the same.
    fn census(&mut self) -> Outcome<()> {
        for phase in [Phase::Settle, Phase::LastWord] {
            self.stage.enter(phase);
            for part in Part::ALL {
                if !self.within(SETTLED, |soak| Ok(soak.stage.has_reached(part, phase)))? {
                    let behind = read(&self.stage.tally.behind);
                    let why = format!("{part:?} does not reach {phase:?}; {behind} are behind");
                    return Err(why.into());
                }
            }
        }
        let open = read(&self.stage.tally.open);
        self.balanced(open, self.fds.0 + self.plan.subscribers + 1)?;
        self.censuses += 1;
        Ok(())
    }

    /// Everybody goes; nothing is left; the server ends well.
    fn empty(&mut self) -> Outcome<()> {
        self.stage.enter(Phase::End);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| "a thread of the clients panicked")?;
        }
        self.balanced(0, self.fds.0)?;
        self.fds.1 = self.server.fds()?;
        let status = self.server.end()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }

    /// Waits until so many seats are taken, as many as streams were opened and not closed, with no
    /// more descriptors than that.
    fn balanced(&mut self, seats: u64, fds: usize) -> Outcome<()> {
        let mut last = Sample::default();
        let settled = self.within(SETTLED, |soak| {
            last = soak.server.sample()?;
            Ok(last.seats == seats && last.opened - last.closed() == seats && last.fds <= fds)
        })?;
        if settled {
            return Ok(());
        }
        let Sample { seats: taken, opened, fds: open, .. } = last;
        let closed = last.closed();
        let why = format!(
            "the clients have {seats} streams; the server has {taken} seats, {opened} streams opened \
             and {closed} closed, {open} descriptors where {fds} suffice"
        );
        Err(why.into())
    }

    /// Whether it comes about in this time. Meanwhile, takes a sample each second and hears of faults.
    fn within(
        &mut self,
        bound: Duration,
        mut is_so: impl FnMut(&mut Self) -> Outcome<bool>,
    ) -> Outcome<bool> {
        let start = now();
        while !is_so(self)? {
            if let Ok(fault) = self.faults.try_recv() {
                return Err(fault.into());
            }
            if start.elapsed() > bound {
                return Ok(false);
            }
            self.sample_if_due()?;
            thread::sleep(NAP);
        }
        Ok(true)
    }

    fn sample_if_due(&mut self) -> Outcome<()> {
        let at = self.start.elapsed();
        if at < SAMPLE_EVERY * u32::try_from(self.samples.len()).unwrap_or(u32::MAX) {
            return Ok(());
        }
        let sample = self.server.sample();
        let mut sample = sample.map_err(|why| format!("the server does not tell: {why}"))?;
        sample.at = at.as_secs_f64();
        let most = self.fds.0 + self.plan.subscribers + STALLED_MAX + VISITORS_MAX;
        if sample.fds > most {
            return Err(format!("{} descriptors, and {most} suffice", sample.fds).into());
        }
        self.samples.push(sample);
        Ok(())
    }
}
