//! One run of one server: connect, idle, deliver, flood.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use nudged::bench::{Cost, DRAIN_TIMEOUT, Load, Options, Tally};
use nudged::client::Verify;

use super::peer::Peer;
use super::servers::Server;

/// What a run does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subscribers: usize,
    pub(crate) workers: usize,
    /// Publishes of one event each, each after the one before has reached every subscriber.
    pub(crate) rounds: u32,
    /// Publishes back to back.
    pub(crate) flood: u32,
    /// How long to hold the streams without a publish.
    pub(crate) idle: Duration,
    /// Another build of nudged.
    pub(crate) nudged_before: Option<PathBuf>,
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
    pub(crate) delivery_us: Option<f64>,
    pub(crate) last_p50_ms: Option<f64>,
    pub(crate) last_p99_ms: Option<f64>,
    pub(crate) flood_us: Option<f64>,
    pub(crate) flood_per_second: Option<f64>,
    /// Processor time a second, in milliseconds, while nothing is published.
    pub(crate) idle_ms: Option<f64>,
    pub(crate) tally: Tally,
    pub(crate) refusal: Option<String>,
}

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// Lets a server finish deferred work before it is measured.
const SETTLE: Duration = Duration::from_millis(500);

pub(crate) const ORG: &str = "acme";

// ===== impl Sample =====

impl Sample {
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
    let server = peer.start(plan)?;
    thread::sleep(SETTLE);
    let mut load = load(&server, ORG, plan.subscribers)?;
    let mut sample = Sample::default();

    progress("connect");
    connect(&server, &mut load, plan, &mut sample)?;
    if plan.idle > Duration::ZERO {
        progress("idle");
        let before = server.cost()?;
        load.wait(Some(plan.idle))?;
        let used = (server.cost()? - before).cpu;
        sample.idle_ms = Some(used.as_secs_f64() * 1e3 / plan.idle.as_secs_f64());
    }
    if plan.rounds + plan.flood > 0 {
        progress("deliver");
        deliver(&server, &mut load, plan, &mut sample)?;
    }
    if plan.flood > 0 {
        progress("flood");
        flood(&server, &mut load, plan, &mut sample)?;
    }
    sample.tally = load.tally();
    sample.refusal = load.refusals().map(|(count, why)| format!("{count} refused: {why}"));
    load.close(true)?;
    Ok(sample)
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

fn deliver(server: &Server, load: &mut Load, plan: &Plan, sample: &mut Sample) -> Outcome<()> {
    // The first publish runs cold code and fills empty buffers.
    load.publish(1, Duration::ZERO)?;
    load.take_latencies();
    if plan.rounds == 0 {
        return Ok(());
    }
    let before = settled(server, load)?;
    for _ in 0..plan.rounds {
        load.publish(1, Duration::ZERO)?;
    }
    let used = settled(server, load)? - before;
    let deliveries = f64::from(plan.rounds) * load.subscribers() as f64;
    sample.delivery_us = Some(micros(used) / deliveries);
    let last = load.take_latencies().last();
    sample.last_p50_ms = last.map(|last| last.p50);
    sample.last_p99_ms = last.map(|last| last.p99);
    Ok(())
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
