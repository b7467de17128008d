//! Waves of connects that end in RSTs: the memory that a server keeps.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use super::measure::{ORG, Outcome, Plan, load, settled};
use super::peer::Peer;
use crate::shared::record::heading;

/// User memory of one server, in bytes.
pub(crate) struct Churn {
    peer: Peer,
    fresh: u64,
    /// After one wave, which fills pools and caches.
    warm: u64,
    after: u64,
    connects: usize,
}

const SETTLE: Duration = Duration::from_secs(1);

pub(crate) fn run(
    peer: Peer,
    plan: &Plan,
    waves: usize,
    mut progress: impl FnMut(&str),
) -> Outcome<Churn> {
    let server = peer.start(plan)?;
    let mut clients = load(&server, ORG, plan.subscribers)?;
    let fresh = settled(&server, &mut clients)?.pss;
    let mut warm = fresh;
    for wave in 1..=waves {
        progress(&format!("wave {wave} of {waves}"));
        clients.open(plan.subscribers, server.pace(), |_| {})?;
        if clients.subscribers() != plan.subscribers {
            return Err(format!("wave {wave}: only {} streams", clients.subscribers()).into());
        }
        clients.close(true)?;
        // Lets the server close its sockets: those of two waves would exceed the descriptor limit.
        thread::sleep(SETTLE);
        if wave == 1 {
            warm = server.cost()?.pss;
        }
    }
    // Some servers find dead streams only by writing to them.
    clients.open(1, server.pace(), |_| {})?;
    clients.publish(1, Duration::ZERO)?;
    clients.publish(1, Duration::ZERO)?;
    if !clients.tally().is_clean() {
        return Err(format!("after the waves: {:?}", clients.tally()).into());
    }
    thread::sleep(SETTLE);
    let after = server.cost()?.pss;
    Ok(Churn { peer, fresh, warm, after, connects: waves * plan.subscribers })
}

pub(crate) fn markdown(all: &[Churn], absent: &[(Peer, String)]) -> String {
    let mut text = heading("churn");
    text.push_str(
        "Waves of connects, each wave ended by RSTs. User memory (PSS) in MiB.\n\n\
         | | connects | fresh | after the first wave | after the last |\n|---|---:|---:|---:|---:|\n",
    );
    for churn in all {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {:.2} |",
            churn.peer.name(),
            churn.connects,
            mib(churn.fresh),
            mib(churn.warm),
            mib(churn.after)
        );
    }
    for (peer, why) in absent {
        let _ = writeln!(text, "\n{}: not measured: {why}", peer.name());
    }
    text
}
