//! Parts of a run that have a fresh server each: connects that come one at a time, and deliveries whose receive path is
//! on other processors.

use std::thread;

use nudged::bench::{Load, Ramp};

use super::measure::{ORG, Outcome, Plan, SETTLE, Sample, deliver, load, micros, settled};
use super::peer::Peer;
use super::processors::Processors;
use super::receive_path::ReceivePath;
use super::servers::Server;

/// Opens one stream, waits for its response, and then the next one.
pub(crate) fn connect_one_at_a_time(peer: Peer, plan: &Plan, sample: &mut Sample) -> Outcome<()> {
    let server = peer.start(plan)?;
    let mut load = fresh(&server, plan)?;
    let before = server.cost()?;
    let one = Ramp { pending_max: 1, ..server.pace() };
    load.open(plan.singles, one, |_| {})?;
    let used = settled(&server, &mut load)? - before;
    sample.connect_single_us = Some(micros(used) / plan.singles as f64);
    sample.finish(load)
}

/// One event at a time, to as many subscribers as ever; the server has a processor of its own, and the receive path
/// those of the generator. That it cannot be measured here is no error.
pub(crate) fn deliver_to_other_core(peer: Peer, plan: &Plan, sample: &mut Sample) -> Outcome<()> {
    match other_core(plan) {
        Err(why) => sample.other_core = Some(Err(why.to_string())),
        Ok((processors, path)) => {
            sample.other_core = measure_other_core(peer, plan, &processors, sample)?.map(Ok);
            drop(path);
        }
    }
    Ok(())
}

/// The processors, and the receive path on those that the server does not have.
fn other_core(plan: &Plan) -> Outcome<(Processors, ReceivePath)> {
    if plan.workers != 1 {
        return Err("several workers have no processor in common: use --workers 1".into());
    }
    let processors = Processors::find()?;
    let path = ReceivePath::on_others(&processors)?;
    Ok((processors, path))
}

fn measure_other_core(
    peer: Peer,
    plan: &Plan,
    processors: &Processors,
    sample: &mut Sample,
) -> Outcome<Option<f64>> {
    processors.take_first()?;
    let started = peer.start(plan);
    processors.take_others()?;
    let server = started?;
    let mut load = fresh(&server, plan)?;
    load.open(plan.subscribers, server.pace(), |_| {})?;
    let deliveries = deliver(&server, &mut load, plan)?;
    sample.finish(load)?;
    Ok(deliveries.map(|deliveries| deliveries.cpu_us))
}

fn fresh(server: &Server, plan: &Plan) -> Outcome<Load> {
    thread::sleep(SETTLE);
    load(server, ORG, plan.subscribers)
}
