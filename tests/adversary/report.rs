//! Tables of what was measured, and the record.

use std::fmt::Write as _;

use crate::run::{Outcome, Phase};
use crate::shared::record::heading_of;
use crate::verdict::{bound, latencies};

/// The record's name.
pub(crate) const MODE: &str = "adversary";

const COMMAND: &str = "cargo test --release --all-features --test adversary";

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn markdown(outcome: &Outcome) -> String {
    let sizes = outcome.plan.sizes;
    let mut text = heading_of(MODE, COMMAND);
    let _ = write!(
        text,
        "{} honest subscribers (cleartext: {} of one organisation, {} of one each; {} over TLS; {} over HTTP/2), whose \
         publishers each publish twice a second, and an honest client that connects anew for each of its requests. \
         All attacks, on this machine too, {} for {} s. `nudged serve {}`, with a secret, a set of 32 published keys and \
         a publish key.\n\n",
        sizes.subscribers(),
        sizes.big,
        sizes.small,
        sizes.tls,
        sizes.http2,
        if outcome.plan.each { "one after the other, each" } else { "at once" },
        outcome.plan.duration.as_secs(),
        outcome.flags.join(" ")
    );
    text + &tables(outcome)
}

pub(crate) fn tables(outcome: &Outcome) -> String {
    let mut text = String::new();
    let quiet = &outcome.phases[0];
    for phase in &outcome.phases[1..] {
        _ = write!(text, "{}", latency_table(quiet, phase));
    }
    text.push_str(
        "\n| attack | issue 13 | connections | acts | responses | ends by the server |\n",
    );
    text.push_str("| --- | --- | ---: | ---: | ---: | ---: |\n");
    for (attack, [connections, acts, answers, ends]) in
        outcome.phases.iter().flat_map(|phase| &phase.attacks)
    {
        let (name, numbers) = (attack.name, attack.numbers);
        _ = writeln!(text, "| {name} | {numbers} | {connections} | {acts} | {answers} | {ends} |");
    }
    remains(&mut text, outcome);
    match outcome.faults.as_slice() {
        [] => text.push_str(HELD),
        faults => {
            text.push_str("\n**Failed:**\n");
            faults.iter().for_each(|fault| text.push_str(&format!("* {fault}\n")));
        }
    }
    text
}

const HELD: &str = "\nNo event was lost, repeated or out of order; no honest stream was cut and no honest \
    request unanswered; every latency was within its bound; nothing remained; and the attackers did \
    not hold up the end of the server.\n";

fn latency_table(quiet: &Phase, phase: &Phase) -> String {
    let mut text = format!(
        "\n| ms, {} | p50 | p99 | max | quiet p50 | p99 | max | p99 may be | count | failed |\n",
        phase.name
    );
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n");
    for (quiet, now) in latencies(quiet).iter().zip(latencies(phase)) {
        let failed = now.failed.as_deref().unwrap_or_default().replace(['|', '\n'], " ");
        _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {} | {failed} |",
            now.name,
            now.p50,
            now.p99,
            now.max,
            quiet.p50,
            quiet.p99,
            quiet.max,
            bound(quiet),
            now.count
        );
    }
    text
}

fn remains(text: &mut String, outcome: &Outcome) {
    let Outcome { remains, drain, log_lines, phases, .. } = outcome;
    text.push_str("\n| what remains | |\n| --- | ---: |\n");
    let mut row = |name: &str, value: String| _ = writeln!(text, "| {name} | {value} |");
    row("seats, streams, connections", {
        let (seats, streams, connections) = (remains.seats, remains.streams, remains.connections);
        format!("{seats}, {streams}, {connections}")
    });
    row("descriptors before the first client, at the end", {
        format!("{}, {}", remains.descriptors.0, remains.descriptors.1)
    });
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / MIB);
    row("memory with all subscribers before the attacks (PSS, MiB)", mib(remains.memory.0));
    let peak = phases.iter().map(|phase| phase.memory_peak).max().unwrap_or(0);
    row("… the most during the attacks (resident)", mib(peak));
    row("… at the end without any client (PSS)", mib(remains.memory.1));
    row("lines of the log that were read", log_lines.to_string());
    row("drain with the attackers connected (s)", format!("{:.1}", drain.0.as_secs_f64()));
}
