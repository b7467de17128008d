//! What a large org costs its neighbour: the latency of the one subscriber of another org, while the
//! worker is idle and while it sweeps the large one.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nudged::bench::{Load, Quantiles};

use super::measure::{ORG, Outcome, Plan, load};
use super::peer::Peer;
use crate::shared::process::now;
use crate::shared::record::heading;

const OTHER: &str = "neighbour";

/// The neighbour's latencies in milliseconds.
pub(crate) struct Fairness {
    peer: Peer,
    quiet: Quantiles,
    busy: Quantiles,
    /// Sweeps of the large org during the busy part.
    sweeps: u32,
}

/// Random time between two events of the neighbour, so that they do not fall in step with the sweeps.
const GAP_MS: std::ops::Range<u64> = 2..30;

/// Time limit of a probe: a server with long sweeps is measured with fewer events.
const PROBE: Duration = Duration::from_secs(30);

pub(crate) fn run(peer: Peer, plan: &Plan, mut progress: impl FnMut(&str)) -> Outcome<Fairness> {
    let server = peer.start(plan)?;
    let mut large = load(&server, ORG, plan.subscribers)?;
    let mut single = load(&server, OTHER, 1)?;
    single.open(1, server.pace(), |_| {})?;
    single.publish(1, Duration::ZERO)?;
    progress("connect");
    large.open(plan.subscribers, server.pace(), |_| {})?;
    large.publish(1, Duration::ZERO)?;

    progress("the neighbour alone");
    let quiet = probe(&mut single, plan.rounds)?;
    progress("the neighbour during sweeps");
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let rounds = plan.rounds;
    let neighbour = thread::spawn(move || {
        let busy = probe(&mut single, rounds).map_err(|why| why.to_string());
        stop.store(true, Ordering::Relaxed);
        (busy, single.tally())
    });
    let mut sweeps = 0;
    while !done.load(Ordering::Relaxed) {
        large.publish(1, Duration::ZERO)?;
        sweeps += 1;
    }
    let (busy, tally) = neighbour.join().expect("the neighbour does not panic");
    if let Some((count, why)) = large.refusals() {
        return Err(format!("{count} publishes refused: {why}").into());
    }
    if !large.tally().is_clean() || !tally.is_clean() {
        return Err(format!("events were lost: {:?}, {tally:?}", large.tally()).into());
    }
    large.close(true)?;
    Ok(Fairness { peer, quiet, busy: busy?, sweeps })
}

fn probe(single: &mut Load, rounds: u32) -> Outcome<Quantiles> {
    single.take_latencies();
    let start = now();
    for _ in 0..rounds {
        single.publish(1, Duration::ZERO)?;
        single.wait(Some(Duration::from_millis(fastrand::u64(GAP_MS))))?;
        if start.elapsed() > PROBE {
            break;
        }
    }

    single.take_latencies().each().ok_or_else(|| "the neighbour received nothing".into())
}

pub(crate) fn markdown(plan: &Plan, all: &[Fairness], absent: &[(Peer, String)]) -> String {
    let mut text = heading("fairness");
    let _ = write!(
        text,
        "One worker; an org of {} subscribers is swept without pause while up to {} events, {} to {} ms \
         apart, go to the one subscriber of another org. Its latencies in ms, from the publish to \
         the arrival. The generator's four threads and the server share this machine's cores.\n\n\
         | | p50 alone | p99 alone | p50 during sweeps | p99 during sweeps | p99 added | events | sweeps |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
        plan.subscribers, plan.rounds, GAP_MS.start, GAP_MS.end
    );
    for Fairness { peer, quiet, busy, sweeps } in all {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {sweeps} |",
            peer.name(),
            quiet.p50,
            quiet.p99,
            busy.p50,
            busy.p99,
            busy.p99 - quiet.p99,
            busy.count
        );
    }
    for (peer, why) in absent {
        let _ = writeln!(text, "\n{}: not measured: {why}", peer.name());
    }
    text
}
