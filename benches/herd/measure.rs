//! One server, its pages, and what they do when something happens.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::memory::cpu;
use crate::pages::Pages;
use crate::shared::http::{Connection, JSON, post};
use crate::shared::process::{NUDGED, Process, guarded, now};
use crate::{Event, Outcome, Plan, Rules};

/// A server, and pages that have their streams.
pub(crate) struct Session<'a> {
    plan: &'a Plan,
    rules: Rules,
    listen: String,
    settings: &'static [&'static str],
    server: Process,
    backend: &'a Backend,
    pub(crate) pages: Pages,
}

/// What one event did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// When each page re-read that is seen, or must not wait until it is: seconds from the event.
    pub(crate) reads: Vec<f64>,
    /// Pages that re-read when they were looked at.
    pub(crate) late: usize,
    /// Requests for streams, those that were refused included.
    pub(crate) attempts: usize,
    /// When streams were opened: seconds from the event.
    pub(crate) openings: Vec<f64>,
    /// The share of a processor that the busiest process of Node had in its busiest second.
    pub(crate) node: f64,
    pub(crate) delay_ms: f64,
    pub(crate) faults: Vec<String>,
}

/// A thread that notes the processor time of some processes.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

/// How long all pages may take.
const BOUND: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);
/// For at least this long the processor time is measured.
const MEASURED: Duration = Duration::from_millis(1_500);
/// Between two events.
const REST: Duration = Duration::from_millis(500);

// ===== impl Session =====

impl<'a> Session<'a> {
    pub(crate) fn start(
        plan: &'a Plan,
        rules: Rules,
        settings: &'static [&'static str],
        backend: &'a Backend,
    ) -> Outcome<Self> {
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let server = start(&listen, settings)?;
        let pages = Pages::start(&server.url, backend.address, &plan.by_process(), rules)?;
        let mut session = Self { plan, rules, listen, settings, server, backend, pages };
        // What they have not read yet does not count.
        session.look()?;
        Ok(session)
    }

    pub(crate) fn measure(&mut self, event: Event) -> Outcome<Measured> {
        let hidden = if self.rules.hidden { 0 } else { self.plan.hidden() };
        let visible = self.plan.pages - hidden;
        thread::sleep(REST);
        self.backend.take();
        self.pages.mark()?;
        let sampler = Sampler::start(self.pages.processes());
        let start = now();
        self.cause(event)?;
        let mut reads = Vec::new();
        let mut is_complete = false;
        while !is_complete && start.elapsed() < BOUND {
            thread::sleep(PAUSE);
            reads.append(&mut self.backend.take());
            let counted = self.pages.count()?;
            is_complete = reads.len() >= visible
                && counted.open == self.plan.pages
                && counted.moved == self.plan.pages;
        }
        // A hidden page notes what it has missed after its part of `spread`.
        thread::sleep(Duration::from_millis(self.rules.spread_ms.into()));
        self.pages.settle()?;
        reads.append(&mut self.backend.take());
        // A share is one of a second.
        thread::sleep(MEASURED.saturating_sub(start.elapsed()));
        let node = sampler.stop();
        let happened = self.pages.happened()?;
        let late = self.look()?;
        let mut faults = happened.faults;
        let counts = [("streams", self.pages.count()?.open, self.plan.pages)];
        let counts = counts.into_iter().chain([("re-reads", reads.len(), visible)]);
        for (what, count, due) in counts.chain([("late re-reads", late, hidden)]) {
            if count != due {
                faults.push(format!("{count} {what}, not {due}"));
            }
        }
        let seconds = |at: Instant| at.saturating_duration_since(start).as_secs_f64();
        let reads = reads.into_iter().map(seconds).collect();
        let (attempts, openings) = (happened.attempts, happened.openings);
        Ok(Measured { reads, late, attempts, openings, node, delay_ms: happened.delay_ms, faults })
    }

    fn cause(&mut self, event: Event) -> Outcome<()> {
        match event {
            Event::Publish => {
                let address = self.listen.parse()?;
                let request = post("/api/herd/events", JSON, "", "{\"keys\":[\"posts\"]}");
                Connection::open(address)?.exchange(&request, 202)?;
                return Ok(());
            }
            Event::Kill | Event::KillFixed => {
                self.server.child.kill()?;
                self.server.child.wait()?;
            }
            Event::Terminate => {
                self.server.stop()?;
            }
        }
        self.server = start(&self.listen, self.settings)?;
        Ok(())
    }

    /// Has the hidden pages looked at. Returns how often they re-read then.
    fn look(&mut self) -> Outcome<usize> {
        self.pages.look(self.plan.look)?;
        Ok(self.backend.take().len())
    }
}

fn start(listen: &str, settings: &[&str]) -> Outcome<Process> {
    let mut command = guarded(NUDGED)?;
    command.args(["serve", "--listen", listen, "--log", "error"]).args(settings);
    Ok(Process::start(&mut command)?)
}

// ===== impl Measured =====

impl Measured {
    /// Requests for streams that found no server.
    pub(crate) fn refused(&self) -> f64 {
        self.attempts.saturating_sub(self.openings.len()) as f64
    }
}

// ===== impl Sampler =====

impl Sampler {
    fn start(processes: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let used = processes.iter().map(|process| cpu(*process).unwrap_or_default());
                samples.push((now(), used.collect::<Vec<_>>()));
                thread::sleep(PAUSE);
            }
            busiest(&samples)
        });
        Self { stop, thread }
    }

    fn stop(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// The largest share of a processor that one of the processes had in any second.
fn busiest(samples: &[(Instant, Vec<Duration>)]) -> f64 {
    let mut most = 0.0_f64;
    for (number, (from, before)) in samples.iter().enumerate() {
        let second = Duration::from_secs(1);
        let after = samples[number..].iter().find(|(to, _)| *to - *from >= second);
        let Some((to, after)) = after else { break };
        for (before, after) in before.iter().zip(after) {
            most = most.max((*after - *before).as_secs_f64() / (*to - *from).as_secs_f64());
        }
    }
    most
}
