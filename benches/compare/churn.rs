//! Waves of connects that end in RSTs: what a server keeps of them.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use super::measure::{ORG, Outcome, Plan, load, settled};
use super::peer::Peer;
use crate::shared::record::heading;

/// User memory in bytes.
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
    let server = peer.start(plan.workers)?;
    let mut crowd = load(&server, ORG, plan.subscribers)?;
    let fresh = settled(&server, &mut crowd)?.pss;
    let mut warm = fresh;
    for wave in 1..=waves {
        progress(&format!("wave {wave} of {waves}"));
        crowd.open(plan.subscribers, server.pace(), |_| {})?;
        if crowd.subscribers() != plan.subscribers {
            return Err(format!("wave {wave}: only {} streams", crowd.subscribers()).into());
        }
        crowd.close(true)?;
        // Else the descriptors of this wave and of the next would not fit together.
        thread::sleep(SETTLE);
        if wave == 1 {
            warm = server.cost()?.pss;
        }
    }
    // A server that only finds dead streams by writing gets something to write.
    crowd.open(1, server.pace(), |_| {})?;
    crowd.publish(1, Duration::ZERO)?;
    crowd.publish(1, Duration::ZERO)?;
    if !crowd.tally().is_clean() {
        return Err(format!("after the waves: {:?}", crowd.tally()).into());
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
