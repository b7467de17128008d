//! A run from its start to its end: quiet, attacked, left alone, drained.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::attacks::{Attack, Running};
use crate::honest::{Honest, Received};
use crate::prober::{Probed, Prober};
use crate::shared::http::get;
use crate::stage::{Sizes, Stage};
use crate::support::server::Signal;
use crate::tokens;
use crate::verdict;

#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) sizes: Sizes,
    pub(crate) duration: Duration,
    /// One attack after the other.
    pub(crate) each: bool,
    /// The server has no internal address.
    pub(crate) public_only: bool,
    pub(crate) attacks: Vec<Attack>,
}

/// What was measured, and what of it must not be.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) flags: Vec<String>,
    /// The first is the quiet one.
    pub(crate) phases: Vec<Phase>,
    pub(crate) remains: Remains,
    /// From SIGTERM to the end, and the exit code.
    pub(crate) drain: (Duration, Option<i32>),
    pub(crate) log_lines: u64,
    pub(crate) faults: Vec<String>,
}

/// What the honest clients noticed while nothing or something attacked.
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) received: Vec<Received>,
    pub(crate) probed: Vec<Probed>,
    /// Of each attack: its name and issue numbers, connections, acts, answers, ends.
    pub(crate) attacks: Vec<(Attack, [u64; 4])>,
    /// Memory of the server at the end of the phase, in bytes (PSS).
    pub(crate) memory: u64,
    /// The most that it ever had resident.
    pub(crate) memory_peak: u64,
}

/// What is left once every client has gone: first before any came, then at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    pub(crate) descriptors: (usize, usize),
    pub(crate) seats: u64,
    /// Streams that were opened and not closed.
    pub(crate) streams: u64,
    pub(crate) connections: u64,
    /// In bytes: with all subscribers before the attacks, and at the end without any.
    pub(crate) memory: (u64, u64),
    /// Connections that the server accepts beside the honest ones.
    pub(crate) places: usize,
}

/// How long the quiet phase lasts.
const QUIET: Duration = Duration::from_secs(6);

/// The attackers have left, and the server has to notice it within this time; timeouts are shorter.
const LEFT: Duration = Duration::from_secs(30);

/// How long the attacks have run before the server is asked to end.
const BEFORE_DRAIN: Duration = Duration::from_secs(3);

/// Streams that are opened and closed before descriptors are first counted: workers open some for themselves once.
const WARM: usize = 64;

const PAUSE: Duration = Duration::from_millis(20);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs to the end. `progress` is called with a line at each step.
pub(crate) fn run(plan: Plan, mut progress: impl FnMut(&str)) -> Result<Outcome> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut stage = Stage::start(plan.sizes, plan.public_only)?;
    let mut remains = Remains { places: plan.sizes.spare(), ..Remains::default() };
    warm_up(&stage)?;
    remains.descriptors.0 = stage.server.descriptors();

    let mut honest = Honest::open(&stage)?;
    progress(&format!("{} streams are open", plan.sizes.subscribers()));
    let mut phases = vec![phase("quiet", &stage, &mut honest, QUIET, &[])?];
    remains.memory.0 = phases[0].memory;
    let sets: Vec<_> = match plan.each {
        true => plan.attacks.iter().map(|attack| (attack.name, vec![*attack])).collect(),
        false => vec![("attacked", plan.attacks.clone())],
    };
    for (name, attacks) in &sets {
        let phase = phase(name, &stage, &mut honest, plan.duration, attacks)?;
        progress(&format!("{name}: {}", verdict::summary(&phases[0], &phase)));
        phases.push(phase);
        if plan.each {
            settle(&stage, plan.sizes.connections());
        }
    }
    honest.close()?;
    let mut faults: Vec<_> =
        phases.iter().flat_map(|phase| verdict::faults(&phases[0], phase)).collect();
    leave(&stage, &mut remains);
    faults.extend(verdict::left(&remains));
    progress("every client has left");

    let attacks = Running::start(&stage, &plan.attacks)?;
    thread::sleep(BEFORE_DRAIN);
    let start = Instant::now();
    stage.server.signal(Signal::TERM);
    let code = stage.server.wait();
    let drain = (start.elapsed(), code);
    drop(attacks);
    faults.extend(verdict::drained(drain));
    let log_lines = stage.log.lines.load(Ordering::Relaxed);
    Ok(Outcome { plan, flags: stage.flags, phases, remains, drain, log_lines, faults })
}

fn phase(
    name: &str,
    stage: &Stage,
    honest: &mut Honest,
    duration: Duration,
    attacks: &[Attack],
) -> Result<Phase> {
    let running = Running::start(stage, attacks)?;
    let prober = Prober::start(stage)?;
    let received = honest.listen(duration);
    let probed = prober.stop();
    let arenas = running.arenas.iter();
    let attacks = arenas.map(|(attack, arena)| (*attack, arena.tally.read())).collect();
    drop(running);
    let (memory, memory_peak) = (stage.server.memory(), stage.server.memory_peak());
    Ok(Phase { name: name.into(), received, probed, attacks, memory, memory_peak })
}

/// Waits until only the honest connections are left, within a bound.
fn settle(stage: &Stage, honest: usize) {
    // With those of the publishers.
    let most = honest as u64 + 8;
    until(LEFT, || metrics(stage).is_some_and(|now| connections(&now) <= most));
}

/// Waits until nothing remains, and notes what does after [`LEFT`].
fn leave(stage: &Stage, remains: &mut Remains) {
    until(LEFT, || {
        if let Some(now) = metrics(stage) {
            remains.seats = value(&now, "nudged_seats");
            let opened = value(&now, "nudged_streams_opened_total");
            remains.streams = opened - value(&now, "nudged_streams_closed_total");
            remains.connections = connections(&now);
        }
        remains.descriptors.1 = stage.server.descriptors();
        remains.memory.1 = stage.server.memory();
        verdict::left(remains).is_empty()
    });
}

/// Waits until the condition holds, or for this long.
fn until(bound: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        match holds() {
            true => return true,
            false if start.elapsed() > bound => return false,
            false => thread::sleep(PAUSE),
        }
    }
}

/// The response to a request for the metrics; `None` if there is none.
fn metrics(stage: &Stage) -> Option<String> {
    let mut socket = TcpStream::connect(stage.backend).ok()?;
    socket.set_read_timeout(Some(LEFT)).ok()?;
    socket.write_all(get("/metrics", "connection: close\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.contains("nudged_seats").then_some(answer)
}

/// Open connections besides the one that reads the metrics.
fn connections(metrics: &str) -> u64 {
    let [public, internal] = ["nudged_connections", "nudged_internal_connections"];
    (value(metrics, public) + value(metrics, internal)).saturating_sub(1)
}

/// The value of a metric, or the sum of its values over all labels.
fn value(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value =
            rest.strip_prefix(' ').or_else(|| Some(rest.strip_prefix('{')?.split_once("} ")?.1));
        value?.parse::<u64>().ok()
    });
    values.sum()
}

/// Opens streams and closes them again.
fn warm_up(stage: &Stage) -> Result<()> {
    let fields = format!("authorization: Bearer {}\r\n", tokens::honest());
    let open = |number: usize| {
        let mut socket =
            TcpStream::connect(if number.is_multiple_of(2) { stage.plain } else { stage.tls })?;
        socket.write_all(get("/api/warm/events", &fields).as_bytes())?;
        socket.set_read_timeout(Some(LEFT))?;
        _ = socket.read(&mut [0])?;
        std::io::Result::Ok(socket)
    };
    drop((0..WARM).map(open).collect::<std::io::Result<Vec<_>>>()?);
    match until(LEFT, || metrics(stage).is_some_and(|now| connections(&now) == 0)) {
        true => Ok(()),
        false => Err("the first connections do not end".into()),
    }
}
