//! The verdict on memory, and the record.

use std::fmt::Write as _;

use super::curves::{self, Panel};
use super::phase::read;
use super::run::Soak;
use super::server::{SETTINGS, Sample};
use super::trend::{Limits, Trend, Verdict};
use crate::shared::record::{Files, heading, today};

/// Memory over the second half.
pub(crate) struct Memory {
    trend: Trend,
    /// Streams that ended per second.
    rate: f64,
    since: f64,
    limits: Limits,
}

const KIB: f64 = 1024.0;

// ===== impl Memory =====

impl Memory {
    /// `None` where the soak ended too early.
    pub(crate) fn of(soak: &Soak) -> Option<Self> {
        let since = soak.plan.duration.as_secs_f64() / 2.0;
        let steady: Vec<_> = soak.samples.iter().filter(|sample| sample.at >= since).collect();
        let points: Vec<_> = steady.iter().map(|one| (one.at, one.anonymous as f64)).collect();
        let trend = Trend::of(&points)?;
        let (first, last) = (steady.first()?, steady.last()?);
        let seconds = last.at - first.at;
        let rate = (last.closed() - first.closed()) as f64 / seconds;
        let limits = Limits::of(rate, seconds);
        (rate > 0.0).then_some(Self { trend, rate, since, limits })
    }

    pub(crate) fn fault(&self) -> Option<String> {
        let what = self.describe();
        match self.trend.verdict(self.limits) {
            Verdict::Flat => None,
            Verdict::Rises => Some(format!("memory rises: {what}")),
            Verdict::Unclear => Some(format!("memory moves too much for a verdict: {what}")),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let Trend { slope, half_width, .. } = self.trend;
        let found = self.trend.smallest_found(self.limits.tolerance);
        format!(
            "{:+.1} ± {:.1} KiB per minute, {:+.2} ± {:.2} bytes for each of {:.0} streams that ended \
             per second ({:.1} bytes are allowed; a leak of {:.1} would have been found)",
            slope * 60.0 / KIB,
            half_width * 60.0 / KIB,
            slope / self.rate,
            half_width / self.rate,
            self.rate,
            self.limits.tolerance / self.rate,
            found / self.rate
        )
    }
}

/// The files of the record.
pub(crate) fn files(soak: &Soak, mut files: Files, faults: &[String]) -> Files {
    let memory = Memory::of(soak);
    files.add(".md", markdown(soak, memory.as_ref(), faults));
    files.add(".csv", csv(&soak.samples));
    files.add(".svg", plot(soak, memory.as_ref()));
    files
}

/// The record's name.
pub(crate) const MODE: &str = "soak";

pub(crate) fn markdown(soak: &Soak, memory: Option<&Memory>, faults: &[String]) -> String {
    let mut text = heading(MODE);
    let _ = write!(
        text,
        "{} steady subscribers of 8 organisations, all of one organisation restarted every few seconds \
         (closes and resets; half resume, half are new), while other clients connect and end in every \
         way: close, reset, half-close, before the response, in the middle of a request head, in the \
         middle of a publish, stalled until the server closes, killed with SIGKILL, resumed with \
         `Last-Event-ID`; and while 100,000 topics an hour come and go: published to and read, live or later, resumed, \
         replaced, flooded, closed or left to age. `nudged serve {}`.\n\n",
        soak.plan.subscribers,
        SETTINGS.join(" ")
    );
    table(&mut text, soak);
    let memory = memory.map_or_else(|| "not enough samples".into(), Memory::describe);
    let _ = write!(
        text,
        "\nThe server's anonymous memory (`Pss_Anon`) over the second half: {memory}. The slope is of \
         a line through the averages of 12 blocks, with its 95 % confidence interval \
         (`benches/soak/trend.rs`).\n\n![Seats, memory and CPU over time]({}-{MODE}.svg)\n",
        today()
    );
    match faults {
        [] => text.push_str(HELD),
        faults => {
            text.push_str("\n**Failed:**\n");
            faults.iter().for_each(|fault| text.push_str(&format!("* {fault}\n")));
        }
    }
    text
}

const HELD: &str = "\nAt every checkpoint the server's seats equalled the clients' streams and the streams \
    opened less those closed, with no descriptor beyond those, and no topic was left; and every subscriber had received \
    every number in order, or `connected`, and every stream of a topic its events and its end. At the end no seat and no descriptor was left, and the server ended \
    with 0 on SIGTERM.\n";

fn table(text: &mut String, soak: &Soak) {
    let (tally, empty) = (&soak.shared.tally, Sample::default());
    let last = soak.samples.last().unwrap_or(&empty);
    let most =
        |value: fn(&Sample) -> u64| soak.samples.iter().map(value).max().unwrap_or(0).to_string();
    let mut row = |name: &str, value: String| _ = writeln!(text, "| {name} | {value} |");
    row("", String::new());
    row("---", "---:".into());
    row("time (s)", format!("{:.0}", last.at));
    row("checkpoints", soak.checkpoints.to_string());
    row("streams opened", last.opened.to_string());
    for (cause, count) in last.closed.iter().filter(|(_, count)| **count > 0) {
        row(&format!("… ended, `{cause}`"), count.to_string());
    }
    row("publishes", read(&tally.published).to_string());
    row("events delivered to streams", last.delivered.to_string());
    row("events received by the steady subscribers", read(&tally.received).to_string());
    row("their restarts, an organisation each", read(&tally.restarts).to_string());
    row("… fresh streams, greeted with `connected`", read(&tally.connected).to_string());
    row("… streams that resumed", read(&tally.resumed).to_string());
    row("live streams that got `connected` (bursts of 300 keys)", read(&tally.rereads).to_string());
    row("topics that came and went", read(&tally.topics).to_string());
    row("… their events", read(&tally.topic_events).to_string());
    row("most topics kept", most(|sample| sample.topics));
    row("most seats", most(|sample| sample.seats));
    row("most organisations with a channel", most(|sample| sample.channels));
    row(
        "descriptors before the first client, at the end",
        format!("{}, {}", soak.fds.0, soak.fds.1),
    );
    let mib = |bytes: u64| format!("{:.2}", bytes as f64 / KIB / KIB);
    row("memory at the end (PSS, MiB)", mib(last.pss));
    row("… of it anonymous (MiB)", mib(last.anonymous));
    row("CPU (ms/s)", format!("{:.0}", last.cpu.as_secs_f64() * 1e3 / last.at.max(1.0)));
}

fn csv(samples: &[Sample]) -> String {
    let causes: Vec<_> = samples.first().map_or(Vec::new(), |s| s.closed.keys().collect());
    let mut text = String::from(
        "seconds,seats,fds,pss_kib,anonymous_kib,cpu_ms,opened,delivered,channels,topics",
    );
    causes.iter().for_each(|cause| text.push_str(&format!(",closed_{cause}")));
    text.push('\n');
    for s in samples {
        let (cpu, pss, own) = (s.cpu.as_millis(), s.pss / 1024, s.anonymous / 1024);
        let _ = write!(text, "{:.1},{},{},{pss},{own},{cpu}", s.at, s.seats, s.fds);
        let _ = write!(text, ",{},{},{},{}", s.opened, s.delivered, s.channels, s.topics);
        causes.iter().for_each(|cause| _ = write!(text, ",{}", s.closed[*cause]));
        text.push('\n');
    }
    text
}

fn plot(soak: &Soak, memory: Option<&Memory>) -> String {
    let samples = &soak.samples;
    let curve = |title: &str, value: fn(&Sample) -> f64| Panel {
        title: title.into(),
        points: samples.iter().map(|sample| (sample.at, value(sample))).collect(),
        fit: None,
    };
    let rate = |title: &str, value: fn(&Sample) -> f64| {
        let each = samples.windows(2);
        let each = each
            .map(|two| (two[1].at, (value(&two[1]) - value(&two[0])) / (two[1].at - two[0].at)));
        Panel { title: title.into(), points: each.collect(), fit: None }
    };
    let fit = memory.map(|memory| {
        let end = samples.last().map_or(0.0, |sample| sample.at);
        [memory.since, end].map(|at| (at, memory.trend.at(at) / KIB / KIB))
    });
    let own = curve("anonymous memory (MiB), with the line over the second half", |sample| {
        sample.anonymous as f64 / KIB / KIB
    });
    let panels = [
        Panel { fit, ..own },
        curve("memory, PSS (MiB)", |sample| sample.pss as f64 / KIB / KIB),
        curve("seats", |sample| sample.seats as f64),
        curve("topics", |sample| sample.topics as f64),
        curve("descriptors", |sample| sample.fds as f64),
        rate("streams that ended (/s)", |sample| sample.closed() as f64),
        rate("CPU (ms/s)", |sample| sample.cpu.as_secs_f64() * 1e3),
    ];
    let subtitle = format!(
        "{} steady subscribers, other clients ending in every way, {}",
        soak.plan.subscribers,
        today()
    );
    curves::svg("A server under soak", &subtitle, &panels)
}
