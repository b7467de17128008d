//! The last table of a comparison: servers as multiples of others in the same runs.

use std::fmt::Write as _;

use super::comparison::Runs;
use super::metric::{METRICS, Metric};
use super::peer::Peer;
use super::spread::{Spread, multiples};

/// What is compared with what: a build with the one before, TLS with cleartext, and nudged with nchan, each over TLS.
const PAIRS: [(Peer, Peer); 7] = [
    (Peer::Nudged, Peer::NudgedBefore),
    (Peer::NudgedTls, Peer::NudgedTlsBefore),
    (Peer::NudgedH2, Peer::NudgedH2Before),
    (Peer::NudgedTls, Peer::Nudged),
    (Peer::NudgedTlsBefore, Peer::NudgedBefore),
    (Peer::NudgedTls, Peer::NchanTls),
    (Peer::NudgedH2, Peer::NchanTls),
];

/// Nothing if there is no pair.
pub(crate) fn table(all: &[Runs]) -> String {
    let find = |peer| all.iter().find(|runs| runs.peer == peer);
    let pairs = PAIRS.iter().filter_map(|(of, against)| Some((find(*of)?, find(*against)?)));
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\nMultiples of another server's figures in the same runs: the median of the ratios (lowest–highest).\n\n| |",
    );
    for (of, against) in &pairs {
        let _ = write!(text, " {} / {} |", of.peer.name(), against.peer.name());
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(pairs.len()));
    for metric in &METRICS {
        let cells: Vec<_> = pairs.iter().map(|(of, against)| cell(metric, of, against)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "| {} |", metric.title);
        for cell in cells {
            let _ = write!(text, " {} |", cell.unwrap_or_else(|| "–".into()));
        }
        text.push('\n');
    }
    text
}

fn cell(metric: &Metric, of: &Runs, against: &Runs) -> Option<String> {
    let multiples = multiples(&of.values(metric), &against.values(metric));
    Some(Spread::of(&multiples)?.to_string())
}
