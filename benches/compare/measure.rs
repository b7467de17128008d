//! One run of one server: connect, idle, deliver, flood; then the parts that have a fresh server each.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use nudged::bench::{Cost, DRAIN_TIMEOUT, Load, Options, Quantiles, Tally};
use nudged::client::Verify;

use super::parts::{connect_one_at_a_time, deliver_to_other_core};
use super::peer::Peer;
use super::servers::Server;

/// What a run does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subscribers: usize,
    /// Streams that are opened one at a time, on a server of their own.
    pub(crate) singles: usize,
    pub(crate) workers: usize,
    /// Publishes of one event each, each after the one before has reached every subscriber.
    pub(crate) rounds: u32,
    /// Publishes back to back.
    pub(crate) flood: u32,
    /// How long to hold the streams without a publish.
    pub(crate) idle: Duration,
    /// Another build of nudged.
    pub(crate) nudged_before: Option<PathBuf>,
    /// Events in the history of an organisation, of servers with a setting for it; otherwise thousands.
    pub(crate) history: Option<usize>,
    /// Connections that a server accepts, of servers with a setting for it; otherwise as many as it can.
    pub(crate) connections: Option<usize>,
}

/// The figures of one run. What the plan leaves out is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Bytes of PSS without, with a third of, and with all subscribers.
    pub(crate) pss: [u64; 3],
    /// Bytes for each of the last two thirds of the subscribers.
    pub(crate) slope: f64,
    pub(crate) connect_us: f64,
    pub(crate) connects_per_second: f64,
    /// Of connects that come one at a time.
    pub(crate) connect_single_us: Option<f64>,
    pub(crate) delivery_us: Option<f64>,
    /// The same with the receive path on other processors, or why it was not measured.
    pub(crate) other_core: Option<Result<f64, String>>,
    pub(crate) last_p50_ms: Option<f64>,
    pub(crate) last_p99_ms: Option<f64>,
    pub(crate) flood_us: Option<f64>,
    pub(crate) flood_per_second: Option<f64>,
    /// Processor time a second, in milliseconds, while nothing is published.
    pub(crate) idle_ms: Option<f64>,
    pub(crate) tally: Tally,
    pub(crate) refusal: Option<String>,
}

/// Events that went to all subscribers one at a time.
pub(crate) struct Deliveries {
    pub(crate) cpu_us: f64,
    last: Option<Quantiles>,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Lets a server finish deferred work before it is measured.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

pub(crate) const ORG: &str = "acme";

// ===== impl Sample =====

impl Sample {
    /// Adds what the subscribers of a part have received, and closes their streams.
    pub(crate) fn finish(&mut self, mut load: Load) -> Outcome<()> {
        let Tally { missed, duplicates, reordered, disconnects, failed, .. } = load.tally();
        self.tally.missed += missed;
        self.tally.duplicates += duplicates;
        self.tally.reordered += reordered;
        self.tally.disconnects += disconnects;
        self.tally.failed += failed;
        self.tally.failed_status = load.tally().failed_status.or(self.tally.failed_status);
        let refused = load.refusals().map(|(count, why)| format!("{count} refused: {why}"));
        self.refusal = self.refusal.take().or(refused);
        Ok(load.close(true)?)
    }

    /// Deliveries other than every event exactly once to every subscriber, and other faults.
    pub(crate) fn fault(&self) -> Option<String> {
        let Tally { missed, duplicates, disconnects, failed, failed_status, .. } = self.tally;
        if let Some(why) = &self.refusal {
            return Some(why.clone());
        }
        let status = failed_status.map_or(String::new(), |status| format!(" (HTTP {status})"));
        (!self.tally.is_clean()).then(|| {
            format!(
                "{missed} missed, {duplicates} duplicate, {disconnects} streams lost, {failed} \
                 not opened{status}"
            )
        })
    }
}

pub(crate) fn load(server: &Server, org: &str, subscribers: usize) -> Outcome<Load> {
    let options = Options {
        url: server.url(org),
        verify: Verify::None,
        http2: server.http2(),
        subscribers,
        ramp: server.pace(),
        headers: Vec::new(),
        sources: Vec::new(),
        publish: Some(server.publish(org)),
        duration: None,
        processes: Vec::new(),
        drain_timeout: DRAIN_TIMEOUT,
    };
    Ok(Load::new(&options, Arc::new(AtomicBool::new(false)))?)
}

pub(crate) fn settled(server: &Server, load: &mut Load) -> Outcome<Cost> {
    load.wait(Some(SETTLE))?;
    Ok(server.cost()?)
}

/// Starts the server, runs the plan, stops it.
pub(crate) fn run(peer: Peer, plan: &Plan, mut progress: impl FnMut(&str)) -> Outcome<Sample> {
    let mut sample = Sample::default();
    run_one_server(peer, plan, &mut sample, &mut progress)?;
    if plan.singles > 0 {
        progress("connect, one at a time");
        connect_one_at_a_time(peer, plan, &mut sample)?;
    }
    if plan.rounds > 0 {
        progress("deliver, received on the other core");
        deliver_to_other_core(peer, plan, &mut sample)?;
    }
    Ok(sample)
}

fn run_one_server(
    peer: Peer,
    plan: &Plan,
    sample: &mut Sample,
    mut progress: impl FnMut(&str),
) -> Outcome<()> {
    let server = peer.start(plan)?;
    thread::sleep(SETTLE);
    let mut load = load(&server, ORG, plan.subscribers)?;

    progress("connect");
    connect(&server, &mut load, plan, sample)?;
    if plan.idle > Duration::ZERO {
        progress("idle");
        let idle = peer.idle_max().map_or(plan.idle, |max| max.min(plan.idle));
        let before = server.cost()?;
        load.wait(Some(idle))?;
        let used = (server.cost()? - before).cpu;
        sample.idle_ms = Some(used.as_secs_f64() * 1e3 / idle.as_secs_f64());
    }
    if plan.rounds + plan.flood > 0 {
        progress("deliver");
        if let Some(Deliveries { cpu_us, last }) = deliver(&server, &mut load, plan)? {
            sample.delivery_us = Some(cpu_us);
            sample.last_p50_ms = last.map(|last| last.p50);
            sample.last_p99_ms = last.map(|last| last.p99);
        }
    }
    if plan.flood > 0 {
        progress("flood");
        flood(&server, &mut load, plan, sample)?;
    }
    sample.finish(load)
}

fn connect(server: &Server, load: &mut Load, plan: &Plan, sample: &mut Sample) -> Outcome<()> {
    let third = plan.subscribers / 3;
    let rest = plan.subscribers - third;
    let before = server.cost()?;
    let elapsed = load.open(third, server.pace(), |_| {})?;
    let some = settled(server, load)?;
    let elapsed = elapsed + load.open(rest, server.pace(), |_| {})?;
    let all = settled(server, load)?;
    sample.pss = [before.pss, some.pss, all.pss];
    sample.slope = (all.pss as f64 - some.pss as f64) / rest as f64;
    let subscribers = plan.subscribers as f64;
    sample.connect_us = micros(all - before) / subscribers;
    sample.connects_per_second = subscribers / elapsed.as_secs_f64();
    Ok(())
}

/// `None` if the plan has no events one at a time.
pub(crate) fn deliver(
    server: &Server,
    load: &mut Load,
    plan: &Plan,
) -> Outcome<Option<Deliveries>> {
    // The first publish runs cold code and fills empty buffers.
    load.publish(1, Duration::ZERO)?;
    load.take_latencies();
    if plan.rounds == 0 {
        return Ok(None);
    }
    let before = settled(server, load)?;
    for _ in 0..plan.rounds {
        load.publish(1, Duration::ZERO)?;
    }
    let used = settled(server, load)? - before;
    let deliveries = f64::from(plan.rounds) * load.subscribers() as f64;
    Ok(Some(Deliveries { cpu_us: micros(used) / deliveries, last: load.take_latencies().last() }))
}

fn flood(server: &Server, load: &mut Load, plan: &Plan, sample: &mut Sample) -> Outcome<()> {
    let before = settled(server, load)?;
    let delivered = load.tally().delivered;
    let elapsed = load.publish(plan.flood, Duration::ZERO)?;
    let used = settled(server, load)? - before;
    let delivered = (load.tally().delivered - delivered) as f64;
    if delivered > 0.0 {
        sample.flood_us = Some(micros(used) / delivered);
        sample.flood_per_second = Some(delivered / elapsed.as_secs_f64());
    }
    Ok(())
}

pub(crate) fn micros(cost: Cost) -> f64 {
    cost.cpu.as_secs_f64() * 1e6
}
